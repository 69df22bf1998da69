"""What would be unsafe is refused at start; the rest starts, says where, and ends cleanly."""

import datetime
import ipaddress
import json
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kiosk.server import start
from kiosk.server.__main__ import main

HANG_S = 60
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A folder with an authority, a server's and a client's certificate, keys, and a token."""
    folder = tmp_path_factory.mktemp("pki")
    authority = issue(folder, "ca", None)
    for name in ("server", "client"):
        issue(folder, name, authority)
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    return folder


def issue(folder, name, authority):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signing_key = authority or (subject, key)
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(day)
        .not_valid_after(day.replace(year=2090))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
    )
    certificate = builder.sign(signing_key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    for suffix, encryption in (
        ("key", serialization.NoEncryption()),
        ("locked", serialization.BestAvailableEncryption(b"secret")),
    ):
        (folder / f"{name}.{suffix}").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
    return subject, key


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """A function: the one line that the program ends with, having refused to start."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def refuse(*arguments):
        store = [] if "--store" in arguments else ["--store", f"sqlite:///{tmp_path}/refused.db"]
        try:
            status = main([*store, *arguments])
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        assert (status, said.out) == (2, "")
        (line,) = said.err.splitlines()
        assert line.startswith("kiosk-server: ")
        assert not (tmp_path / "refused.db").exists()
        return line

    return refuse


def tls(pki, name="server"):
    return ["--cert", str(pki / f"{name}.pem"), "--key", str(pki / f"{name}.key")]


def test_an_address_that_others_reach_needs_tls_and_a_token(pki, refused):
    """Each one alone is refused, and the line says what is missing."""
    beyond = ["--listen", "0.0.0.0:0"]
    token = ["--token-file", str(pki / "token")]
    assert "--cert, --key and --token-file" in refused(*beyond)
    assert refused(*beyond, *tls(pki)).endswith("add --token-file")
    assert refused(*beyond, *token).endswith("add --cert, --key")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--listen", "nonsense"], "HOST:PORT"),
        (["--listen", "127.0.0.1:65536"], "HOST:PORT"),
        (["--cert", "none.pem"], "both or neither"),
        (["--client-ca", "none.pem"], "--cert and --key"),
        (["--cert", "none.pem", "--key", "none.key"], "none.pem"),
        (["--token-file", "none"], "--token-file none"),
        (["--store", "postgresql://x"], "postgresql"),
        (["--store", "sqlite:///"], "expected sqlite:///PATH, got 'sqlite:///'"),
        (["--store", "sqlite://x.db"], "with three slashes, got 'sqlite://x.db'; sqlite:///x.db,"),
        (["--store", "sqlite:x.db"], "with three slashes, got 'sqlite:x.db'; sqlite:///x.db,"),
        (["--threshold", "2"], "--threshold: expected a cosine from -1 to 1, got '2'"),
        (["--threshold", "nan"], "--threshold: expected a cosine from -1 to 1, got 'nan'"),
        (["--threshold", "abc"], "--threshold: expected a cosine from -1 to 1, got 'abc'"),
        (["--surplus"], "--surplus"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, told, refused):
    """The user's mistakes are named by their option, and no file is made."""
    assert told in refused(*arguments)


def test_files_that_do_not_fit_are_refused(pki, refused, tmp_path):
    """Another one's key, a key under a passphrase, a CA that is none, a token that others read."""
    cert = ["--cert", str(pki / "server.pem")]
    assert "client.key" in refused(*cert, "--key", str(pki / "client.key"))
    assert "not encrypted" in refused(*cert, "--key", str(pki / "server.locked"))
    no_ca = ["--client-ca", str(pki / "token")]
    assert "--client-ca" in refused(*tls(pki), *no_ca)
    loose = tmp_path / "token"
    loose.write_text(TOKEN)
    loose.chmod(0o640)
    assert "mode 0600, got 0640" in refused("--token-file", str(loose))
    loose.chmod(0o600)
    loose.write_text("short")
    line = refused("--token-file", str(loose))
    assert "16 characters" in line
    assert "short" not in line


def test_a_port_that_is_taken_is_refused(tmp_path):
    """One line, not a trace; the store may have been opened by then."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        store = f"sqlite:///{tmp_path}/a.db"
        done = subprocess.run(
            [sys.executable, "-m", "kiosk.server", "--store", store, "--listen", listen],
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
    assert done.returncode == 2
    assert "free address" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_cleanly(start_server, number):
    """A supervisor reads the port and connects at once; a signal ends it with status 0, quietly."""
    with start_server() as (process, url):
        with urllib.request.urlopen(f"{url}/healthz", timeout=HANG_S) as reply:
            assert json.load(reply)["status"] == "ok"
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
        process.send_signal(number)
        said, complaint = process.communicate(timeout=HANG_S)
    assert (process.returncode, said, complaint) == (0, "", "")


def test_beyond_loopback_with_all_that_is_needed(pki, tmp_path, start_server):
    """TLS, a token and a client's certificate: each of them is demanded."""
    arguments = [*tls(pki), "--client-ca", str(pki / "ca.pem")]
    with start_server(*arguments, "--token-file", str(pki / "token"), "--listen", "0.0.0.0:0") as (
        _,
        shown,
    ):
        url = shown.replace("0.0.0.0", "127.0.0.1") + "/employees"
        assert url.startswith("https://")
        stranger = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            ask(url, stranger, TOKEN)
        known = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        known.load_cert_chain(pki / "client.pem", pki / "client.key")
        assert ask(url, known, "wrong") == 401
        assert ask(url, known, TOKEN) == 200


def ask(url, context, token):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=HANG_S, context=context) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_signal_does_not_wait_for_a_body_that_never_ends(start_server):
    """413 arrives while the sender still sends; half a message does not keep the server alive."""
    with start_server() as (process, url):
        host, port = url.removeprefix("http://").split(":")
        with (
            socket.create_connection((host, int(port)), timeout=HANG_S) as large,
            socket.create_connection((host, int(port)), timeout=HANG_S) as half,
        ):
            for line in (large, half):
                line.sendall(
                    b"POST /toon/attendance HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n"
                )
            for _ in range(17):
                large.sendall(b"f000\r\n" + b" " * 0xF000 + b"\r\n")
            assert large.recv(4096).startswith(b"HTTP/1.1 413 ")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=HANG_S)
    assert process.returncode == 0


def test_replies_are_not_held_back():
    """asyncio turns Nagle's algorithm off only where the socket is made as TCP by name."""
    with start.bind(start.resolve("127.0.0.1:0")) as listener:
        assert listener.proto == socket.IPPROTO_TCP
