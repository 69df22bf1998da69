"""TLS: whom the kiosk believes, and as whom it speaks."""

import datetime
import ipaddress
import json
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kiosk.errors import LinkDownError, UplinkPausedError

# Fixed and wide: certificates are checked against the machine's clock.
NOT_BEFORE = datetime.datetime(2020, 1, 1)  # noqa: DTZ001 - x509 takes UTC without a zone
NOT_AFTER = datetime.datetime(2120, 1, 1)  # noqa: DTZ001


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, on disk."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; its own is `root`."""

    def __init__(self, folder):
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        self.root = folder / "root.pem"
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(
            *[False] * 5,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = self._builder(self._name, self._key).add_extension(constraints, critical=True)
        self._write(self.root, builder.add_extension(usage, critical=True))

    def issue(self, name, address="127.0.0.1"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        identity = Identity(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        builder = self._builder(subject, key).add_extension(names, critical=False)
        self._write(identity.certificate, builder)
        identity.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return identity

    def _builder(self, subject, key):
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOT_BEFORE)
            .not_valid_after(NOT_AFTER)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(authority, False)
        )

    def _write(self, path, builder):
        signed = builder.sign(self._key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """The authority that the server's certificate comes from."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def serve_tls(serve, authority):
    """Start a TLS server."""

    def start(address="127.0.0.1", client_authority=None):
        identity = authority.issue("server", address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.certificate, identity.key)
        if client_authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_authority.root)
        return serve(wrap=lambda accepted: context.wrap_socket(accepted, server_side=True))

    return start


def test_a_pinned_authority_is_believed(serve_tls, poster, envelope, authority):
    """ca_file names whom to trust; the connection is kept here too."""
    server = serve_tls()
    one = poster(server.url, ca_file=str(authority.root))
    for _ in range(2):
        assert json.loads(one.send(envelope))["S1"] == "ok"
    assert len({request.port for request in server.requests}) == 1


def test_an_unknown_authority_is_a_link_that_is_down(serve_tls, poster, envelope):
    """A captive portal on https shows another's certificate: nothing is sent to it."""
    server = serve_tls()
    with pytest.raises(LinkDownError, match="certificate verify failed"):
        poster(server.url).send(envelope)
    assert server.requests == []


def test_no_letter_is_asked_for_before_tls_is_done(serve_tls, poster, envelope, authority):
    """A server whose certificate is refused never makes a body final; one that is believed does."""
    server = serve_tls()
    asked = []

    def letter():
        asked.append(envelope)
        return [envelope]

    with pytest.raises(LinkDownError, match="certificate verify failed"):
        poster(server.url).post(letter, is_batch=False)
    assert asked == []
    assert (
        poster(server.url, ca_file=str(authority.root)).post(letter, is_batch=False).status == 200
    )
    assert asked == [envelope]


def test_another_pinned_authority_does_not_do(serve_tls, poster, envelope, tmp_path):
    """Pinning is to this authority alone."""
    server = serve_tls()
    with pytest.raises(LinkDownError, match="certificate verify failed"):
        poster(server.url, ca_file=str(Authority(tmp_path).root)).send(envelope)
    assert server.requests == []


def test_a_certificate_for_another_host_does_not_do(serve_tls, poster, envelope, authority):
    """The right authority, the wrong host."""
    server = serve_tls(address="127.0.0.2")
    with pytest.raises(LinkDownError, match=r"127\.0\.0\.1"):
        poster(server.url, ca_file=str(authority.root)).send(envelope)
    assert server.requests == []


def test_the_environment_names_no_authority(serve_tls, poster, envelope, authority, monkeypatch):
    """Whom to trust stands in the configuration only."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(authority.root))
    with pytest.raises(LinkDownError):
        poster(serve_tls().url).send(envelope)


def test_a_client_certificate_is_shown(serve_tls, poster, envelope, authority, tmp_path):
    """A server that asks for one gets the configured one; without it nothing is sent."""
    clients = Authority(tmp_path)
    server = serve_tls(client_authority=clients)
    with pytest.raises(LinkDownError):
        poster(server.url, ca_file=str(authority.root)).send(envelope)
    kiosk = clients.issue("kiosk")
    one = poster(
        server.url,
        ca_file=str(authority.root),
        client_cert_file=str(kiosk.certificate),
        client_key_file=str(kiosk.key),
    )
    assert one.send(envelope)
    assert len(server.requests) == 1


@pytest.mark.parametrize("key", ["ca_file", "client_cert_file", "client_key_file"])
def test_a_missing_file_pauses_and_is_named(serve_tls, poster, envelope, authority, key, tmp_path):
    """A configuration to be mended, not a link to be waited for; mended, it goes on."""
    kiosk = authority.issue("kiosk")
    files = {
        "ca_file": authority.root,
        "client_cert_file": kiosk.certificate,
        "client_key_file": kiosk.key,
    }
    absent = tmp_path / "absent.pem"
    options = {name: str(path) for name, path in (files | {key: absent}).items()}
    one = poster(serve_tls().url, **options)
    with pytest.raises(UplinkPausedError, match=rf"server\.{key} = .*absent\.pem"):
        one.send(envelope)
    absent.write_bytes(files[key].read_bytes())
    assert one.send(envelope)


def test_a_file_that_is_no_certificate_is_named(serve_tls, poster, envelope, tmp_path):
    """Something else in its place: no connection is made without verification."""
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("hello\n")
    server = serve_tls()
    with pytest.raises(LinkDownError, match="expected a reply"):
        poster(server.url, ca_file=str(rubbish)).send(envelope)
    assert server.requests == []


def test_an_abort_ends_a_post_over_tls(serve_tls, poster, envelope, authority, in_background):
    """The TLS layer hides the socket; it is shut all the same."""
    server = serve_tls()
    server.answers = [lambda connection, _: bool(connection.recv(1))]
    options = {"connect_timeout_s": 280.0, "read_timeout_s": 280.0}
    one = poster(server.url, ca_file=str(authority.root), **options)
    finish = in_background(lambda: one.send(envelope))
    assert server.asked.wait(5.0)
    one.abort()
    outcome = finish()
    assert isinstance(outcome, LinkDownError)
    assert "the kiosk is stopping" in str(outcome)
