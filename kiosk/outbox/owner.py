"""The one thread that owns the database; every other thread hands it work and waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from kiosk.errors import OutboxBrokenError, OutboxError

T = TypeVar("T")


class Owner:
    """Runs what it is handed in one thread, in the order in which it came.

    `deadline_s` detects a disk that hangs: a commit on a worn card may take seconds, not more.
    A thread of its own rather than an executor's, which would keep a process with a hanging disk
    from ending.
    """

    def __init__(self, name: str, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()
        self._open = False

    def start(self) -> None:
        """Begin to take work; once only."""
        self._thread.start()
        self._open = True

    def ask(self, function: Callable[[], T], *, deadline_s: float | None = None) -> T:
        """Run `function` in the owner's thread; returns its value or raises its error.

        `deadline_s` is for what takes longer than any other.
        OutboxError: closed, nothing was run. OutboxBrokenError: no answer within the deadline.
        """
        with self._lock:
            if not self._open:
                raise OutboxError(
                    "expected an open outbox, it is closed", hint="nothing was recorded"
                )
            future = self._hand_in(function)
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        if not wait((future,), limit_s).done:
            begun = not future.cancel()
            raise OutboxBrokenError(
                f"expected an answer of the disk within {limit_s:g} s, got none",
                hint="it is uncertain whether this was recorded; restart"
                if begun
                else "this was not recorded; restart",
            )
        return future.result()

    def give_way(self) -> None:
        """Run what was handed in meanwhile: for work that takes long, now and then from inside it.

        OutboxError: it is being closed, and that work has to end.
        """
        while True:
            with self._lock:
                if not self._open:
                    raise OutboxError("expected an open outbox, it is being closed")
                try:
                    work = self._work.get_nowait()
                except queue.Empty:
                    return
            if work is not None:
                work()

    def close(self, last: Callable[[], None], timeout_s: float) -> None:
        """Finish everything handed in, then run `last`, then end. Closing again only waits.

        OutboxBrokenError when that takes longer than `timeout_s`; what was committed is on disk.
        """
        final: Future[None] | None = None
        with self._lock:
            if self._open:
                self._open = False
                final = self._hand_in(last)
                self._work.put(None)
        if self._thread.ident is None:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise OutboxBrokenError(
                f"expected the outbox to end within {timeout_s:g} s, it is still at work",
                hint="what was committed is on disk and is read at the next start",
            )
        if final is not None:
            final.result()

    def _hand_in(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
                future.set_exception(error)

        self._work.put(run)
        return future

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
