"""SIGTERM, Ctrl-C and SIGHUP set Events, never from within the thread that they interrupt."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)
RELOADING = signal.SIGHUP


def stop_at_signals(stop: threading.Event, reload: threading.Event) -> None:
    """Set `stop` at the first SIGTERM or SIGINT, `reload` at each SIGHUP.

    Once for a process, from its main thread.

    A handler runs in the main thread between any two of its steps. If it set the Event itself
    while that thread is inside `stop.wait()`, which holds the same lock for a moment, both would
    wait for ever. So the interpreter writes the signal's number into a pipe (signal.set_wakeup_fd),
    and a thread reads it there.
    """
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    thread = threading.Thread(
        target=_pass_on, args=(receiving, stop, reload), name="signals", daemon=True
    )
    thread.start()
    for number in (*ENDING, RELOADING):
        signal.signal(number, _noted)


def _pass_on(receiving: int, stop: threading.Event, reload: threading.Event) -> None:
    while not stop.is_set():
        numbers = os.read(receiving, 64)
        if any(number in ENDING for number in numbers):
            stop.set()
        if RELOADING in numbers:
            reload.set()


def _noted(_: int, __: FrameType | None) -> None:
    """The pipe has it; the default would end the process, or raise in the middle of anything."""
