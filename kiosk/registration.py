"""The sign key on its one way out: to the server, over TLS, for a code that works once."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
from urllib.parse import quote, urlsplit

from kiosk.address import is_loopback
from kiosk.config import Server
from kiosk.errors import LinkDownError, UplinkPausedError, UserError
from kiosk.reach import connected

_MOST_BYTES = 65_536


def register(server: Server, device: str, key: bytes, code: str) -> None:
    """Hand the key in under `server.key_id`; the same once more changes nothing.

    UserError: no key id is configured, or the way is not encrypted. UplinkPausedError: the server
    refuses. LinkDownError: no answer.
    """
    if not server.key_id:
        raise UserError(
            "server.key_id: expected the id that the key gets, it is empty",
            hint='set it, to "1" for a first key, and say this again',
        )
    if not server.url.startswith("https://") and not is_loopback(server.url):
        raise UserError(
            f"server.url {server.url}: expected https, a key goes over no other way",
            hint="give the server a certificate (docs/server.md)",
        )
    status, told = _posted(server, device, key, code)
    if status == http.client.OK:
        return
    if status >= http.client.INTERNAL_SERVER_ERROR:
        raise LinkDownError(f"{server.url}: status {status}: {told}", hint="try again later")
    raise UplinkPausedError(
        f"{server.url}: expected the key to be taken, got status {status}: {told}",
        hint="kiosk-server invite makes a new code",
    )


def _posted(server: Server, device: str, key: bytes, code: str) -> tuple[int, str]:
    parts = urlsplit(server.url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = f"{parts.path.rstrip('/')}/devices/{quote(device)}/keys/{quote(server.key_id)}"
    body = json.dumps({"key": base64.b64encode(key).decode("ascii"), "code": code})
    connection = http.client.HTTPConnection(host, port)
    with contextlib.closing(connection):
        try:
            connection.sock = connected(server, host, port)
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            text = reply.read(_MOST_BYTES).decode("utf-8", errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise LinkDownError(
                f"{server.url}: expected an HTTP reply, got {type(error).__name__}: {error}",
                hint="whether the key arrived is not known; say this again with the same code",
            ) from error
    return reply.status, _words(text)


def _words(text: str) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return "an answer that is not this server's"
