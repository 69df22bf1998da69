"""Tells the server now and then how this kiosk stands, beside what the queue sends."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Protocol

from kiosk.clock import Clock
from kiosk.errors import LinkDownError, UplinkPausedError
from kiosk.types import Envelope
from kiosk.uplink.answer import Reply

log = logging.getLogger(__name__)

PATH = "/toon/heartbeat"
# A server without this route says so, and is asked again after the next start only.
_UNKNOWN = {404, 405, 501}
_SLACK_S = 60.0


class Post(Protocol):
    """What the heart asks of the network."""

    def post(self, letter: Callable[[], tuple[Envelope, ...]], *, is_batch: bool) -> Reply | None:
        """As `Poster.post`."""
        ...


class Heart:
    """Beats every `period_s`, a tenth earlier or later, so that fifty kiosks do not beat as one.

    `body` writes what is sent, at the moment at which it can be sent.
    """

    def __init__(
        self,
        post: Post,
        body: Callable[[], bytes],
        *,
        period_s: float,
        clock: Clock,
        rng: random.Random,
        beat: Callable[[str, float], None],
    ) -> None:
        self._post, self._body, self._period_s = post, body, period_s
        self._clock, self._rng, self._beat = clock, rng, beat
        self._failing = False
        self.last_ms: int | None = None
        """When the server took one last."""

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set, or the server has no such route: then it waits for `stop`."""
        wait_s = self._rng.uniform(0.0, min(self._period_s, 10.0))
        while True:
            self._beat("waits for the next heartbeat", wait_s + _SLACK_S)
            if self._clock.wait(stop, wait_s):
                return
            self._beat("sends a heartbeat", 2 * _SLACK_S)
            if not self._told(stop):
                break
            wait_s = self._period_s * self._rng.uniform(0.9, 1.1)
        while not stop.is_set():
            self._beat("beats no more: the server knows no heartbeats", self._period_s + _SLACK_S)
            self._clock.wait(stop, self._period_s)

    def _told(self, stop: threading.Event) -> bool:
        """Send one; whether there is any sense in the next."""

        def letter() -> tuple[Envelope, ...]:
            return (Envelope("", "", self._body(), 1),)

        try:
            self._post.post(letter, is_batch=False)
        except UplinkPausedError as error:
            if error.status in _UNKNOWN:
                log.info("heartbeat.unknown", extra={"fields": {"status": error.status}})
                return False
            self._fails(str(error), stop)
        except LinkDownError as error:
            self._fails(str(error), stop)
        else:
            self.last_ms = self._clock.now().utc_ms
            self._failing = False
        return True

    def _fails(self, reason: str, stop: threading.Event) -> None:
        """Told once in a row: the queue's own sender tells the rest."""
        if not self._failing and not stop.is_set():
            log.warning("heartbeat.failing", extra={"fields": {"reason": reason}})
        self._failing = True
