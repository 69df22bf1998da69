"""The page for the person in front, from start to close."""

from __future__ import annotations

import dataclasses
import logging
import threading

from kiosk.clock import Clock
from kiosk.config import Feedback
from kiosk.errors import UserError
from kiosk.feedback.board import Board
from kiosk.feedback.notice import Notice, NoticeKind
from kiosk.feedback.web import HOST, WebServer

log = logging.getLogger(__name__)

MAX_VIEWERS = 8
_POLL_S = 0.05
_END_S = 0.4


class Page:
    """Serves what the person in front sees, on loopback; nothing with `page_port = 0`."""

    def __init__(self, settings: Feedback, label: str, *, clock: Clock) -> None:
        self._settings = settings
        self._label = label
        self._clock = clock
        self._board = Board(clock, hold_s=settings.hold_s, max_viewers=MAX_VIEWERS)
        self._web: WebServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve from now on; UserError when the port cannot be had."""
        port = self._settings.page_port
        if port == 0:
            return
        try:
            web = WebServer(port, self._board, label=self._label)
        except OSError as error:
            raise UserError(
                f"feedback.page_port = {port}: expected a free port on {HOST},"
                f" got: {error.strerror}",
                hint="end the other program that listens there, or choose another port (0: none)",
            ) from error
        self._web = web
        self._thread = threading.Thread(
            target=web.serve_forever, args=(_POLL_S,), name="feedback-page", daemon=True
        )
        self._thread.start()
        log.info("feedback.serving", extra={"fields": {"url": f"http://{HOST}:{port}/"}})

    def show(self, notice: Notice) -> None:
        """Put a notice on the screen; returns at once, whatever the browsers do."""
        if not self._settings.show_names:
            notice = dataclasses.replace(notice, person=None)
        self._board.show(notice)
        log.debug("feedback.shown", extra={"fields": {"kind": notice.kind.value}})

    def cannot_record(self, cannot: bool) -> None:
        """While it is so the screen says so whenever it has nothing else to say."""
        notice = Notice.of(NoticeKind.CANNOT_RECORD, None, self._clock.now())
        self._board.overrule(notice if cannot else None)

    def close(self) -> None:
        """End the threads and sockets, within a second; a second call does nothing."""
        if self._web is None or self._thread is None:
            return
        self._board.close()
        self._web.shutdown()
        self._web.server_close()
        if not self._web.end_connections(_END_S):
            log.warning("feedback.connections_left", extra={"fields": {"waited_s": _END_S}})
        self._thread.join(_END_S)
        self._web = None
