"""The control socket: length-bounded JSON requests to the running daemon.

One request and one reply a connection, each a 4-byte big-endian length and a JSON object.
Nobody but the owner can write in its folder, and the peer's user is checked: root or the daemon's
own user.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import pwd
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kiosk.errors import ControlError, KioskError, UserError
from kiosk.folder import make_folder
from kiosk.wire.jsontext import quoted

if TYPE_CHECKING:
    from kiosk.clock import Clock

log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any]], dict[str, Any]]

MAX_MESSAGE = 4 * 1024 * 1024
MAX_PEERS = 16
REQUEST_S = 2.0
"""The whole of a request, and the whole of a reply, has so long to go through the socket."""
_ANSWER_S = 10.0
# So often the listening thread shows that it is alive.
_LISTEN_S = 5.0
_LENGTH = struct.Struct(">I")
_CREDENTIALS = struct.Struct("3i")


def socket_path(runtime_dir: str) -> Path:
    """Where the daemon listens."""
    return Path(runtime_dir) / "control.sock"


def ask(
    runtime_dir: str, operation: str, *, answer_s: float = _ANSWER_S, **arguments: Any
) -> dict[str, Any]:
    """Ask the running daemon; ControlError when there is none, or none for this user, or no answer.

    `answer_s` is for what takes longer than any other.
    A refusal by the daemon comes back as the UserError or KioskError it was there.
    """
    path = socket_path(runtime_dir)
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(answer_s)
        try:
            connection.connect(str(path))
            connection.sendall(_packed({"operation": operation, **arguments}))
            reply = _object_in(_exactly(connection, _length_in(_exactly(connection, _LENGTH.size))))
        except PermissionError as error:
            raise _not_ours(path) from error
        except (OSError, ValueError) as error:
            if _owner_of(path) not in (None, os.geteuid()) and os.geteuid() != 0:
                # It hung up on whom it does not answer, and has said so in its own journal.
                raise _not_ours(path) from error
            raise ControlError(
                f"no daemon answers at {path} ({error})",
                hint="start it: sudo systemctl start kiosk",
            ) from error
    if "error" in reply:
        kind = UserError if reply.get("exit_status") == UserError.exit_status else KioskError
        raise kind(str(reply["error"]))
    return reply


def daemon_listens(runtime_dir: str) -> bool:
    """Whether somebody accepts connections at the control socket.

    ControlError when this user may not even look: nothing is known then.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(str(socket_path(runtime_dir)))
        except PermissionError as error:
            raise _not_ours(socket_path(runtime_dir)) from error
        except OSError:
            return False
        return True


def _owner_of(path: Path) -> int | None:
    """The user id of a socket's owner, or of its folder's where that is all that can be seen."""
    for each in (path, path.parent):
        with contextlib.suppress(OSError):
            return each.stat().st_uid
    return None


def _not_ours(path: Path) -> ControlError:
    owner = _owner_of(path)
    user = "kiosk" if owner is None else _name_of(owner)
    others = "" if owner == 0 else f" and {'its own user' if owner is None else user}"
    return ControlError(
        f"{path}: expected a control socket open to {_name_of(os.geteuid())}, it is open to"
        f" root{others} only",
        hint=f"run the command as its user: sudo -u {user} kiosk ... (a group does not help)",
    )


def _name_of(user: int) -> str:
    """A user's name; `#` and the id, as sudo takes it, where nobody has named it."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"


class ControlServer:
    """Answers each connection in a thread of its own, so that none waits for another's peer."""

    def __init__(
        self,
        runtime_dir: str,
        handlers: Mapping[str, Handler],
        *,
        clock: Clock,
        beat: Callable[[str, float], None],
    ) -> None:
        self._path = socket_path(runtime_dir)
        self._handlers = handlers
        self._clock, self._beat = clock, beat
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._lock_descriptor: int | None = None
        self._inode: int | None = None
        self._guard = threading.Lock()
        self._served: dict[socket.socket, threading.Thread] = {}
        self._closed = False

    def open(self) -> None:
        """Make the folder, take its lock and listen; a socket that is there is then a stale one.

        Raises ControlError when another daemon has the folder or it cannot be written, KioskError
        when others can write in it.
        """
        try:
            self._open()
        except KioskError:
            self.close()
            raise

    def _open(self) -> None:
        folder = self._path.parent
        make_folder(folder, "paths.runtime_dir", 0o750)
        try:
            self._lock_descriptor = os.open(
                folder / "control.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._path.unlink(missing_ok=True)
            self._listener.bind(str(self._path))
            self._inode = self._path.lstat().st_ino
            self._path.chmod(0o660)
            self._listener.listen(MAX_PEERS)
            self._listener.settimeout(_LISTEN_S)
        except BlockingIOError as error:
            raise ControlError(
                f"paths.runtime_dir {folder}: expected to be this daemon's alone, another one"
                " listens there",
                hint="give each daemon a paths.runtime_dir of its own",
            ) from error
        except OSError as error:
            raise ControlError(
                f"paths.runtime_dir {folder}: expected a folder to write to, got: {error}",
                hint="make it writable for this user or set a shorter paths.runtime_dir",
            ) from error

    def run(self, stop: threading.Event) -> None:
        """Answer until `stop` is set or the listener is closed."""
        while not stop.is_set():
            self._beat("listens", _LISTEN_S + _ANSWER_S)
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                if not stop.is_set() and not self._closed:
                    raise
                break
            self._admit(connection)
        for thread in list(self._served.values()):
            thread.join(_ANSWER_S)

    def close(self) -> None:
        """Wake every thread and remove the socket, if it is still this daemon's own."""
        with self._guard:
            self._closed = True
            for connection in self._served:
                shut(connection)
        # A listener that is shut wakes its accept(); one that was never opened has nothing to shut.
        shut(self._listener)
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        self._inode = None
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def _admit(self, connection: socket.socket) -> None:
        """Serve a peer that may ask, in a thread of its own."""
        try:
            check_peer(connection)
            with self._guard:
                if self._closed or len(self._served) >= MAX_PEERS:
                    raise ControlError(f"expected at most {MAX_PEERS} connections, got one more")
                thread = threading.Thread(
                    target=self._serve, args=(connection,), name="control-peer", daemon=True
                )
                self._served[connection] = thread
            thread.start()
        except (OSError, ControlError) as error:
            _tell_refused(error)
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        """The body of one connection's thread."""
        try:
            message = self._received(connection)
            if message is not None:
                reply = self._answer(message)
                connection.settimeout(REQUEST_S)
                connection.sendall(_packed(reply))
        except (OSError, ValueError) as error:
            _tell_refused(error)
        finally:
            with self._guard:
                self._served.pop(connection, None)
                connection.close()

    def _received(self, connection: socket.socket) -> bytes | None:
        """One message within REQUEST_S as a whole, however slowly it drips.

        None from a peer that ends before its first byte: `daemon_listens` only looks.
        """
        deadline_s = self._clock.boottime_ns() / 1e9 + REQUEST_S

        def hurry() -> None:
            left_s = deadline_s - self._clock.boottime_ns() / 1e9
            if left_s <= 0:
                raise TimeoutError(f"expected a whole request within {REQUEST_S:g} s")
            connection.settimeout(left_s)

        hurry()
        if not connection.recv(1, socket.MSG_PEEK):
            return None
        length = _length_in(_exactly(connection, _LENGTH.size, hurry))
        return _exactly(connection, length, hurry)

    def _answer(self, message: bytes) -> dict[str, Any]:
        """The reply to one message; whatever it holds, the daemon goes on."""
        try:
            request = _object_in(message)
        except ValueError as error:
            _tell_refused(error)
            return {"error": f"request: {error}"}
        operation = request.pop("operation", None)
        handler = self._handlers.get(operation) if isinstance(operation, str) else None
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return {"error": f"operation: expected one of {known}, got {quoted(operation)}"}
        try:
            return handler(request)
        except KioskError as error:
            return {"error": str(error), "exit_status": error.exit_status}
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"{operation}: malformed request ({error!r})"}
        except Exception as error:
            # The top of a connection's thread: what is on disk is whole, for every change of it is.
            reason = str(error) or type(error).__name__
            fields = {
                "operation": operation,
                "reason": reason,
                "data": "as it was, or changed whole",
            }
            log.critical("control.failed", extra={"fields": fields}, exc_info=True)
            return {
                "error": f"{operation}: a fault of the daemon's own ({error!r}), see its journal"
            }


def check_peer(connection: socket.socket) -> None:
    """ControlError unless the peer runs as root or as this very user."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(packed)
    if user not in (0, os.geteuid()):
        raise ControlError(f"expected root or user {os.geteuid()} at the socket, got user {user}")


def _tell_refused(error: Exception) -> None:
    log.warning("control.refused", extra={"fields": {"reason": str(error)}})


def _packed(document: dict[str, Any]) -> bytes:
    data = json.dumps(document).encode()
    return _LENGTH.pack(len(data)) + data


def _length_in(head: bytes) -> int:
    (length,) = _LENGTH.unpack(head)
    if length > MAX_MESSAGE:
        raise ValueError(f"expected a message of at most {MAX_MESSAGE} bytes, got {length}")
    return int(length)


def _object_in(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError("expected a JSON object, got one nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - bad bytes, not a bad call
    return document


def _exactly(
    connection: socket.socket, count: int, before_each: Callable[[], None] = lambda: None
) -> bytes:
    """Read `count` bytes, calling `before_each` part, which may give the rest less time."""
    data = bytearray()
    while len(data) < count:
        before_each()
        part = connection.recv(min(65536, count - len(data)))
        if not part:
            raise ValueError(f"expected {count} bytes, the peer ended after {len(data)}")
        data += part
    return bytes(data)


def shut(connection: socket.socket) -> None:
    """End a connection under whoever reads it."""
    # What is not connected any more has nobody left to wake.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
