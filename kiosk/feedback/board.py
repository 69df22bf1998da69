"""What the screen shows now, and the bounded set of viewers it is handed to."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from kiosk.clock import NS_PER_S, Clock
from kiosk.feedback.notice import Notice, NoticeKind

# A stalled browser misses the oldest of what it has not fetched: the newest is what counts.
_BACKLOG = 16


@dataclass(frozen=True, slots=True)
class Shown:
    """A notice on the screen, since a CLOCK_BOOTTIME in nanoseconds, and what follows it."""

    notice: Notice
    since_ns: int
    rest: Notice


class Viewer:
    """One connected browser: what it has not been handed yet, and whether it is to go."""

    def __init__(self, first: Shown) -> None:
        self.waiting: deque[Shown] = deque([first], maxlen=_BACKLOG)
        self.ended = False


class Board:
    """Hands every notice to every viewer; `show` never waits for one.

    `hold_s` is how long a notice that does not stand stays before the screen rests again, on the
    last notice of a kind that rests, idle to begin with. `max_viewers` is how many browsers are
    served; one more ends the oldest.
    """

    def __init__(self, clock: Clock, *, hold_s: float, max_viewers: int) -> None:
        self._clock = clock
        self._hold_ns = round(hold_s * NS_PER_S)
        self._max_viewers = max_viewers
        self._changed = threading.Condition()
        self._viewers: list[Viewer] = []
        self._closed = False
        self._rest = Notice.of(NoticeKind.IDLE, None, clock.now())
        self._overruled: Notice | None = None
        self._shown = Shown(self._rest, clock.boottime_ns(), self._rest)

    def show(self, notice: Notice) -> None:
        """Put a notice up; returns at once."""
        with self._changed:
            if notice.kind.rests:
                self._rest = notice
            self._put_up(notice)

    def overrule(self, rest: Notice | None) -> None:
        """Rest on this whatever the camera says, and put it up now; None: as the camera says."""
        with self._changed:
            self._overruled = rest
            self._put_up(rest or self._rest)

    def _put_up(self, notice: Notice) -> None:
        rest = self._overruled or self._rest
        if notice.kind.rests:
            notice = rest
        self._shown = Shown(notice, self._clock.boottime_ns(), rest)
        for viewer in self._viewers:
            viewer.waiting.append(self._shown)
        self._changed.notify_all()

    def left_ms(self, shown: Shown) -> int | None:
        """Milliseconds this stays up: 0 when its time is over, None when it stands."""
        if shown.notice.kind.stands:
            return None
        left_ns = shown.since_ns + self._hold_ns - self._clock.boottime_ns()
        return max(0, left_ns // 1_000_000)

    def join(self) -> Viewer:
        """A new viewer, whose first notice is what is up now."""
        with self._changed:
            viewer = Viewer(self._shown)
            viewer.ended = self._closed
            self._viewers.append(viewer)
            if len(self._viewers) > self._max_viewers:
                self._viewers.pop(0).ended = True
                self._changed.notify_all()
            return viewer

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer, which may have been ended already."""
        with self._changed:
            if viewer in self._viewers:
                self._viewers.remove(viewer)

    def next(self, viewer: Viewer, timeout_s: float) -> Shown | None:
        """Wait for the viewer's next notice; None after `timeout_s` or when it is to go."""
        with self._changed:
            self._changed.wait_for(lambda: viewer.ended or viewer.waiting, timeout_s)
            return viewer.waiting.popleft() if viewer.waiting and not viewer.ended else None

    def close(self) -> None:
        """End every viewer, those that come later too."""
        with self._changed:
            self._closed = True
            for viewer in self._viewers:
                viewer.ended = True
            self._changed.notify_all()
