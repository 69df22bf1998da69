"""Calls into drivers that may never return, given a deadline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from kiosk.errors import CameraStuckError

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Call(Generic[T]):
    """One call in a thread of its own: either its result is taken, or it is disposed of."""

    def __init__(self, work: Callable[[], T], discard: Callable[[T], None]) -> None:
        self._work, self._discard = work, discard
        self._lock = threading.Lock()
        self._abandoned = False
        self._results: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """The thread's body. Whatever is raised goes to the caller, or to the thread's hook."""
        try:
            result = self._work()
        except BaseException as error:
            with self._lock:
                if self._abandoned:
                    raise
                self._error = error
            return
        with self._lock:
            if not self._abandoned:
                self._results.append(result)
                return
        self._discard(result)

    def outcome(self) -> list[T]:
        """The result in a list, empty when the call has not returned: it is then given up."""
        with self._lock:
            if self._error is not None:
                raise self._error
            self._abandoned = not self._results
            return self._results


def within(
    timeout_s: float, what: str, work: Callable[[], T], *, discard: Callable[[T], None]
) -> T:
    """What `work` returns or raises, run in a daemon thread.

    Raises CameraStuckError when it has not returned after `timeout_s`; what it returns later goes
    to `discard`, so that a device which opens too late is let go again. `what` names the call in
    the error and in the journal.
    """
    call = _Call(work, discard)
    thread = threading.Thread(target=call.run, name=what, daemon=True)
    thread.start()
    thread.join(timeout_s)
    outcome = call.outcome()
    if not outcome:
        log.error("camera.stuck", extra={"fields": {"call": what, "waited_s": timeout_s}})
        raise CameraStuckError(
            f"{what}: expected to be done within {timeout_s:g} s, the driver still hangs",
            hint="if this repeats, unplug the camera and plug it in again, or restart the machine",
        )
    return outcome[0]
