"""The control socket: length-bounded JSON requests to the running daemon.

One request and one reply a connection, each a 4-byte big-endian length and a JSON object.
The folder is 0750 and the peer's user is checked: root or the daemon's own user.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kiosk.errors import ControlError, KioskError, UserError

log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any]], dict[str, Any]]

MAX_MESSAGE = 4 * 1024 * 1024
_TIMEOUT_S = 10.0
_LENGTH = struct.Struct(">I")
_CREDENTIALS = struct.Struct("3i")


def socket_path(runtime_dir: str) -> Path:
    """Where the daemon listens."""
    return Path(runtime_dir) / "control.sock"


def ask(runtime_dir: str, operation: str, **arguments: Any) -> dict[str, Any]:
    """Ask the running daemon; ControlError when there is none or it does not answer.

    A refusal by the daemon comes back as the UserError or KioskError it was there.
    """
    path = socket_path(runtime_dir)
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(str(path))
            _send(connection, {"operation": operation, **arguments})
            reply = _receive(connection)
        except (OSError, ValueError) as error:
            raise ControlError(
                f"no daemon answers at {path} ({error})", hint="start it: kiosk run --config FILE"
            ) from error
    if "error" in reply:
        kind = UserError if reply.get("exit_status") == UserError.exit_status else KioskError
        raise kind(str(reply["error"]))
    return reply


def daemon_listens(runtime_dir: str) -> bool:
    """Whether somebody accepts connections at the control socket."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(_TIMEOUT_S)
        return connection.connect_ex(str(socket_path(runtime_dir))) == 0


class ControlServer:
    """Answers one connection at a time from a thread of its own."""

    def __init__(self, runtime_dir: str, handlers: Mapping[str, Handler]) -> None:
        self._path = socket_path(runtime_dir)
        self._handlers = handlers
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def open(self) -> None:
        """Make the folder and listen; the caller holds the state lock, so a stale socket is ours.

        Raises ControlError when the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            self._listener.bind(str(self._path))
            self._path.chmod(0o660)
        except OSError as error:
            raise ControlError(
                f"paths.runtime_dir {self._path.parent}: expected a folder to write to, {error}",
                hint="make it writable for this user or set a shorter paths.runtime_dir",
            ) from error
        self._listener.listen(8)

    def run(self, stop: threading.Event) -> None:
        """Answer until `stop` is set or the listener is closed."""
        while not stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if not stop.is_set():
                    raise
                return
            with contextlib.closing(connection):
                self._serve(connection)

    def close(self) -> None:
        """Wake the thread and remove the socket."""
        # A listener that is shut wakes its accept(); one that was never opened has nothing to shut.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_TIMEOUT_S)
        try:
            _check_peer(connection)
            reply = self._answer(_receive(connection))
            _send(connection, reply)
        except (OSError, ValueError, ControlError) as error:
            log.warning("control.refused", extra={"fields": {"reason": str(error)}})

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        operation = request.pop("operation", None)
        handler = self._handlers.get(operation) if isinstance(operation, str) else None
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return {"error": f"operation: expected one of {known}, got {operation!r}"}
        try:
            return handler(request)
        except KioskError as error:
            return {"error": str(error), "exit_status": error.exit_status}
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"{operation}: malformed request ({error!r})"}


def _check_peer(connection: socket.socket) -> None:
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(packed)
    if user not in (0, os.geteuid()):
        raise ControlError(f"expected root or user {os.geteuid()} at the socket, got user {user}")


def _send(connection: socket.socket, document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    connection.sendall(_LENGTH.pack(len(data)) + data)


def _receive(connection: socket.socket) -> dict[str, Any]:
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > MAX_MESSAGE:
        raise ValueError(f"expected a message of at most {MAX_MESSAGE} bytes, got {length}")
    document = json.loads(_exactly(connection, length))
    if not isinstance(document, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - bad bytes, not a bad call
    return document


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(min(65536, count - len(data)))
        if not part:
            raise ValueError(f"expected {count} bytes, the peer ended after {len(data)}")
        data += part
    return bytes(data)
