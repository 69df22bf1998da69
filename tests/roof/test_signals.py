"""Signals: quiet from the first moment on, and never in the way of the thread they interrupt."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

HANG_S = 60
SCRIPT = Path(sys.executable).parent / "kiosk"


class Start:
    """A start of the program that tells on standard error of each module once it is imported."""

    def __init__(self, *command):
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
        )
        self.said = []

    @contextmanager
    def _no_longer(self):
        """Whatever hangs is killed, and then fails by how it ended."""
        hang = threading.Timer(HANG_S, self.process.kill)
        hang.start()
        try:
            yield
        finally:
            hang.cancel()

    def read_until(self, module):
        with self._no_longer():
            for line in self.process.stderr:
                self.said.append(line)
                if line.startswith("import time:") and line.split("|")[-1].strip() == module:
                    return
        raise AssertionError(f"{module} was never imported")

    def end(self, number):
        self.process.send_signal(number)
        with self._no_longer():
            # Not communicate(), which reads past the half line that is in the buffer already.
            lines = [*self.said, *self.process.stderr.read().splitlines()]
            self.process.wait(HANG_S)
        return [line for line in lines if not line.startswith("import time:")]


@pytest.fixture
def start():
    """A function that starts the program; it is ended after the test."""
    started = []

    def begin(*command):
        started.append(Start(*command))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(HANG_S)
        one.process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "module", ["argparse", "msgspec", "kiosk.config", "numpy", "cryptography", "requests", "cv2"]
)
def test_a_signal_while_it_loads_ends_it_without_a_word(daemon, start, module, number):
    """From the program's first import on; before it, Python's own start speaks for itself."""
    program = start(sys.executable, "-m", "kiosk", "run", "--config", daemon.path)
    program.read_until(module)
    assert program.end(number) == []
    assert program.process.returncode == -number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_installed_script_is_as_quiet(start, number):
    """`kiosk` is started by its own script, not by -m."""
    program = start(sys.executable, SCRIPT, "run", "--config", "/nowhere")
    program.read_until("argparse")
    assert program.end(number) == []


HOLDING = """
import argparse, os, signal, sys, threading
import kiosk.app
from kiosk.commands import daemon

class Holding:
    def __init__(self, settings, *, clock, origin): pass
    def run(self, stop):
        # For a moment of every wait the waiting thread holds this lock: here comes the signal.
        with stop._cond:
            os.kill(os.getpid(), int(sys.argv[2]))
            for _ in range(1000): pass
        return 0 if stop.wait(60) else 1

kiosk.app.Kiosk = Holding
sys.exit(daemon.run_daemon(argparse.Namespace(config=__import__("pathlib").Path(sys.argv[1]))))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_does_not_wait_for_the_thread_it_interrupts(daemon, number):
    """It comes while the main thread holds the Event's own lock; the Event is set all the same."""
    done = subprocess.run(
        [sys.executable, "-c", HOLDING, str(daemon.path), str(int(number))],
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0


def test_a_second_signal_at_the_end_is_harmless(daemon):
    """Ctrl-C twice: the end goes on, with its status and without a trace."""
    daemon.start()
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.stop(signal.SIGINT) == 0
    assert "Traceback" not in "".join(daemon.said)
