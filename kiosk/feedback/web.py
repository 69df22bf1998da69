"""The page over HTTP: three files and a stream of Server-Sent Events, on loopback only.

The stream follows the HTML standard, "Server-sent events". Its events: `hello` (label,
fingerprint of the files), `notice` (what is on the screen, for how long, and what follows) and
`beat` (an event, not a comment: a script cannot see comments, and by its silence the page knows
a kiosk that hangs with its sockets open).
"""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, ClassVar

from kiosk.feedback.board import Board, Shown
from kiosk.feedback.notice import Notice

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
HEARTBEAT_S = 2.0
MAX_CONNECTIONS = 24
MAX_REQUEST_LINE = 2048
_CLIENT_TIMEOUT_S = 5.0
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]"}
# A browser's own word on who asks: the page itself, or somebody typing the address.
_OWN_SITES = {None, "same-origin", "none"}


class WebServer(ThreadingHTTPServer):
    """Serves one board. Raises OSError when the port cannot be had."""

    daemon_threads = True
    # Two daemons on one port would each get every other browser.
    allow_reuse_port = False

    def __init__(self, port: int, board: Board, *, label: str) -> None:
        self.board = board
        self.files = {
            path: (resources.files(__package__).joinpath(name).read_bytes(), media_type)
            for path, (name, media_type) in _FILES.items()
        }
        content = b"\0".join(data for data, _ in self.files.values())
        self.hello = {
            "label": label,
            "page": hashlib.sha256(content).hexdigest()[:16],
        }
        self._open: set[Any] = set()
        self._changed = threading.Condition()
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        """Bind without the base class's look-up of the host's name, which may ask a network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.socket.getsockname()[1]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a connection beyond the bound: each one costs a thread."""
        with self._changed:
            if len(self._open) >= MAX_CONNECTIONS:
                fields = {"port": client_address[1], "limit": MAX_CONNECTIONS}
                log.warning("feedback.too_many_connections", extra={"fields": fields})
                return False
            self._open.add(request)
            return True

    def shutdown_request(self, request: Any) -> None:
        """End one connection; the last thing its thread does."""
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection; a browser that goes away in the middle is no fault."""
        try:
            self.finish_request(request, client_address)
        except OSError as error:
            log.debug("feedback.client_gone", extra={"fields": {"reason": str(error)}})
        finally:
            self.shutdown_request(request)

    def end_connections(self, timeout_s: float) -> bool:
        """Shut every connection under its thread; whether all had ended in time."""
        with self._changed:
            for connection in self._open:
                _shut(connection)
            return self._changed.wait_for(lambda: not self._open, timeout_s)


class _Handler(BaseHTTPRequestHandler):
    """One request on one connection."""

    server: WebServer
    raw_requestline: bytes
    timeout: ClassVar[float | None] = _CLIENT_TIMEOUT_S
    disable_nagle_algorithm = True
    server_version = "kiosk"
    sys_version = ""

    def parse_request(self) -> bool:
        """Refuse a request line beyond the bound before it is parsed."""
        if len(self.raw_requestline) > MAX_REQUEST_LINE:
            self.requestline, self.request_version, self.command = "", "", ""
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
            return False
        return super().parse_request()

    def do_GET(self) -> None:
        """Answer a file or the stream."""
        path = self.path.partition("?")[0]
        if not self._is_meant_for_us():
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif path == "/events":
            self._stream()
        elif path in self.server.files:
            self._send_file(*self.server.files[path])
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """Every answer, an error's too, carries the same guards."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Requests are worth a line only to somebody who looks for a fault."""
        log.debug("feedback.request", extra={"fields": {"text": format % args}})

    def _is_meant_for_us(self) -> bool:
        """Whether the browser asked this machine, and no foreign page made it ask.

        A foreign name that resolves to loopback (DNS rebinding) shows in Host; a foreign page
        that opens streams to push the real screen out shows in Sec-Fetch-Site.
        """
        hosts = self.headers.get_all("Host") or []
        name = hosts[0].strip().lower() if len(hosts) == 1 else ""
        head, colon, port = name.rpartition(":")
        host = head if colon and port.isdecimal() else name
        return host in _LOOPBACK_NAMES and self.headers.get("Sec-Fetch-Site") in _OWN_SITES

    def _send_file(self, data: bytes, media_type: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        board = self.server.board
        viewer = board.join()
        try:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self._send_event("hello", self.server.hello)
            while not viewer.ended:
                shown = board.next(viewer, HEARTBEAT_S)
                if shown is not None:
                    self._send_event("notice", _on_screen(board, shown))
                elif not viewer.ended:
                    self._send_event("beat", {})
        finally:
            board.leave(viewer)

    def _send_event(self, name: str, data: dict[str, Any]) -> None:
        # JSON in ASCII holds no line break that would end the event early.
        self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode("ascii"))


def _on_screen(board: Board, shown: Shown) -> dict[str, Any]:
    left_ms = board.left_ms(shown)
    rest = _words(shown.rest)
    if left_ms == 0:
        return rest | {"hold_ms": None, "rest": rest}
    return _words(shown.notice) | {"hold_ms": left_ms, "rest": rest}


def _words(notice: Notice) -> dict[str, Any]:
    return {
        "kind": notice.kind.value,
        "headline": notice.headline,
        "detail": notice.detail,
        "person": notice.person,
    }


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        # The other side was quicker.
        log.debug("feedback.client_left", extra={"fields": {"reason": str(error)}})
