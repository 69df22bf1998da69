"""Start rules: what may be listened on, with which certificate and token, before it is."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from kiosk.errors import UserError

_LEAST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: the server's chain and key; whose client certificates are demanded, if any."""

    cert: Path
    key: Path
    client_ca: Path | None


@dataclass(frozen=True, slots=True)
class Address:
    """A resolved address to listen on; port 0 takes a free one."""

    family: socket.AddressFamily
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback


def resolve(listen: str) -> Address:
    """HOST:PORT or [HOST]:PORT as an address; UserError when it is none."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise UserError(f"--listen: expected HOST:PORT, got {listen!r}")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--listen: expected an address of this machine, got {host!r}") from error
    family, _, _, _, address = found[0]
    return Address(family, str(address[0]), int(port))


def tls_of(cert: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    """The TLS files, read once to see that they fit; UserError names what is amiss."""
    if cert is None or key is None:
        if cert is not key:
            raise UserError("--cert, --key: expected both or neither, got one")
        if client_ca is not None:
            raise UserError("--client-ca: expected --cert and --key with it, got neither")
        return None
    for option, path in (("--cert", cert), ("--key", key), ("--client-ca", client_ca)):
        if path is not None and not path.is_file():
            raise UserError(f"{option}: expected a PEM file, got {path}, which is none")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty passphrase, so that an encrypted key is refused instead of asked for.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        raise UserError(
            f"--cert {cert}, --key {key}: expected a certificate and its key in PEM,"
            f" not encrypted, got: {error}"
        ) from error
    try:
        if client_ca is not None:
            context.load_verify_locations(client_ca)
    except OSError as error:
        raise UserError(
            f"--client-ca {client_ca}: expected certificates in PEM, got: {error}"
        ) from error
    return Tls(cert, key, client_ca)


def read_token(path: Path) -> str:
    """The token of a file that only its owner can read; UserError otherwise."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--token-file {path}: expected a text file, got: {error}") from error
    if mode & 0o077:
        raise UserError(
            f"--token-file {path}: expected mode 0600, got {mode:04o}", hint=f"chmod 600 {path}"
        )
    if len(token) < _LEAST_TOKEN or not token.isprintable() or " " in token:
        raise UserError(
            f"--token-file {path}: expected one word of {_LEAST_TOKEN} characters or more,"
            f" got {len(token)} characters",
            hint=f"openssl rand -hex 32 > {path}",
        )
    return token


def check_exposure(address: Address, tls: Tls | None, token: str | None) -> None:
    """Refuse an address that others reach, unless it is encrypted and asks who they are."""
    if address.is_loopback or (tls is not None and token is not None):
        return
    missing = [
        option
        for option, given in (("--cert, --key", tls), ("--token-file", token))
        if given is None
    ]
    raise UserError(
        f"--listen: expected a loopback address, got {address.host}, which others reach",
        hint=f"add {' and '.join(missing)}",
    )


def bind(address: Address) -> socket.socket:
    """A bound socket, not yet listening; UserError when the address cannot be had."""
    # By name, or asyncio does not know TCP and leaves out TCP_NODELAY: 40 ms for each reply.
    listener = socket.socket(address.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"--listen: expected a free address, got {address.host}:{address.port}:"
            f" {error.strerror}"
        ) from error
    return listener


def url_of(listener: socket.socket, tls: Tls | None) -> str:
    """The URL that the socket is reached by."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'http' if tls is None else 'https'}://{shown}:{port}"
