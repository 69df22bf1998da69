"""The one thread that touches the database; everybody else hands it work and waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from kiosk.errors import OutboxBrokenError, OutboxError

T = TypeVar("T")

# A commit on a worn card may take seconds; beyond this the disk hangs.
_DEADLINE_S = 20.0


class Owner:
    """Runs functions one after the other in its own thread, in the order they were handed in."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()
        self._open = False

    def start(self) -> None:
        """Begin to work."""
        self._open = True
        self._thread.start()

    def ask(self, function: Callable[[], T]) -> T:
        """Run `function` in the owner's thread and return what it returns, or raise its error.

        OutboxError when it is closed; OutboxBrokenError when the disk does not answer: then it is
        not known whether the work was done.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - handed to whoever asked
                future.set_exception(error)

        with self._lock:
            if not self._open:
                raise OutboxError("an open outbox expected, it is closed", hint="start it first")
            self._work.put(run)
        try:
            return future.result(_DEADLINE_S)
        except FutureTimeoutError as error:
            raise OutboxBrokenError(
                f"an answer of the disk within {_DEADLINE_S:.0f} s expected, none came",
                hint="the process must be restarted; what was committed is on disk",
            ) from error

    def close(self, timeout_s: float) -> None:
        """Finish what was handed in, then end; OutboxError when that takes too long."""
        with self._lock:
            was_open, self._open = self._open, False
        if not was_open:
            return
        self._work.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise OutboxError(
                f"the outbox's thread did not end within {timeout_s:g} s",
                hint="what was committed is on disk; the log is replayed at the next start",
            )

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
