"""The same figures on a port of loopback, for whoever scrapes on the kiosk itself.

One connection at a time, each within seconds: a scrape needs no more, and none keeps a thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from kiosk.address import is_loopback
from kiosk.clock import Clock
from kiosk.config import Metrics
from kiosk.control import shut
from kiosk.errors import UserError
from kiosk.metrics import MetricsFile, exposition

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_LOOK_S = 1.0
_CLIENT_S = 2.0
_WHOLE_S = 5.0
_SLACK_S = 30.0
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Server(HTTPServer):
    status: Callable[[], Mapping[str, Any]]
    timeout = _LOOK_S

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer within seconds as a whole, however slowly the other side drips."""
        deadline = threading.Timer(_WHOLE_S, shut, (request,))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request(request, client_address)
        finally:
            deadline.cancel()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A client that goes away in the middle is no fault of the kiosk's."""
        log.debug("metrics.client_gone")


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CLIENT_S
    server_version = "kiosk"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer /metrics, to who asks this machine by a name of its own."""
        if not is_loopback(f"http://{self.headers.get('Host', '')}"):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        if self.path != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = exposition(self.server.status()).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", _TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Requests are worth a line only to somebody who looks for a fault."""
        log.debug("metrics.request", extra={"fields": {"text": format % args}})


class MetricsPort:
    """Serves until it is told to stop. UserError when the port cannot be had."""

    def __init__(
        self,
        port: int,
        status: Callable[[], Mapping[str, Any]],
        *,
        beat: Callable[[str, float], None],
    ) -> None:
        self._beat = beat
        try:
            self._server = _Server((_HOST, port), _Handler)
        except OSError as error:
            raise UserError(
                f"metrics.port = {port}: expected a free port on {_HOST}, got: {error.strerror}",
                hint="end the other program that listens there, or choose another port (0: none)",
            ) from error
        self._server.status = status
        self.port = int(self._server.server_address[1])

    def run(self, stop: threading.Event) -> None:
        """One request after the other until `stop`."""
        with self._server:
            while not stop.is_set():
                self._beat("waits for a scrape", _LOOK_S + _SLACK_S)
                self._server.handle_request()


def figures(
    settings: Metrics,
    status: Callable[[], Mapping[str, Any]],
    clock: Clock,
    beat: Callable[[str, float], None],
) -> list[tuple[str, Callable[[threading.Event], None]]]:
    """What the configuration asks for: a name and a body for each thread."""
    asked: list[tuple[str, Callable[[threading.Event], None]]] = []
    if settings.file:
        asked.append(("metrics", MetricsFile(Path(settings.file), status, clock, beat=beat).run))
    if settings.port:
        asked.append(("metrics port", MetricsPort(settings.port, status, beat=beat).run))
    return asked
