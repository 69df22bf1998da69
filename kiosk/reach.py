"""Whether the server can be reached at all: one look, for a person who waits for the answer.

What is sent says nothing of anybody, and any answer will do: plain servers have no /healthz.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import certifi

from kiosk.config import Server
from kiosk.errors import LinkDownError, UplinkPausedError
from kiosk.files import pem_problem

_OTHER = 300
_REFUSED = 400
_UNKNOWN = 404
_BROKEN = 500


def reach(server: Server) -> str:
    """What the server answered, in words.

    UplinkPausedError for what no waiting mends (files, certificates), LinkDownError for the rest.
    """
    parts = urlsplit(server.url)
    host = parts.hostname or ""
    connection = http.client.HTTPConnection(
        host, parts.port or (443 if parts.scheme == "https" else 80)
    )
    try:
        connection.sock = connected(server, host, connection.port)
        connection.request("GET", f"{parts.path.rstrip('/')}/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise LinkDownError(
            f"{server.url}: connected, then expected an HTTP reply, got"
            f" {type(error).__name__}: {_words(error)}",
            hint="check port and scheme: is it the attendance server that listens there?",
        ) from error
    finally:
        connection.close()
    if _OTHER <= status < _REFUSED or status >= _BROKEN:
        raise LinkDownError(
            f"{server.url}: expected an answer of the server's own, got status {status}",
            hint="a redirect may be a captive portal's; otherwise see the server's log",
        )
    unknown = ": a plain server has no /healthz, but a wrong path looks the same"
    return f"{server.url}: answers (status {status})" + (unknown if status == _UNKNOWN else "")


def connected(server: Server, host: str, port: int) -> socket.socket:
    """A socket with TLS where the URL says so; an UplinkError telling which step failed."""
    context = _context(server) if server.url.startswith("https://") else None
    try:
        plain = socket.create_connection((host, port), server.connect_timeout_s)
    except (socket.gaierror, UnicodeError) as error:
        raise LinkDownError(
            f"{server.url}: expected the name {host} to be known, got: {_words(error)}",
            hint="check the name, the network and its DNS",
        ) from error
    except OSError as error:
        raise LinkDownError(
            f"{server.url}: expected a connection to port {port}, got: {_words(error)}",
            hint="check that it runs and no firewall is between; punches are kept meanwhile",
        ) from error
    plain.settimeout(server.read_timeout_s)
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except OSError as error:
        plain.close()
        raise UplinkPausedError(
            f"{server.url}: expected TLS with a trusted certificate, got: {_words(error)}",
            hint="check the port, the clock, the certificate's name, and server.ca_file for an"
            " authority of your own",
        ) from error


def _context(server: Server) -> ssl.SSLContext:
    for name in ("ca_file", "client_cert_file", "client_key_file"):
        path = getattr(server, name)
        problem = pem_problem(Path(path)) if path else None
        if problem is not None:
            raise UplinkPausedError(f"server.{name} = {path}: {problem[0]}", hint=problem[1])
    try:
        context = ssl.create_default_context(cafile=server.ca_file or certifi.where())
        if server.client_cert_file:
            # The empty password: nobody is asked at a terminal for the one of an encrypted key.
            context.load_cert_chain(server.client_cert_file, server.client_key_file, password="")
    except OSError as error:
        raise UplinkPausedError(
            f"server.ca_file, client_cert_file, client_key_file: expected PEM files that belong"
            f" together, got: {_words(error)}",
            hint="check each with openssl x509 -in FILE -noout -text",
        ) from error
    return context


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
