"""One process that has loaded everything and forks a kiosk for each order: 10 ms instead of 500."""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faults import worker

_PR_SET_PDEATHSIG = 1
# Some ten events of an account, and a few milliseconds of looks at it.
_LITTLE, _LOOKS = 6_000, 1_000


class Nursery:
    """The nursery as a test sees it; use as a context. One kiosk lives at a time."""

    def __enter__(self) -> "Nursery":
        inside = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "faults.nursery"],
            env=inside,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, order: worker.Order) -> int:
        """Fork a kiosk; returns its pid."""
        self._write(json.dumps(asdict(order)).encode() + b"\n")
        return int(self._read()["pid"])

    def events(self) -> Iterator[dict[str, Any]]:
        """What the kiosk says until it has ended: the last is {"ended": status}."""
        while "ended" not in (event := self._read()):
            yield event
        yield event

    def open_gate(self) -> None:
        """Let a kiosk at a gate go on."""
        self._write(b"\n")

    def finish(self) -> int:
        """Wait for the end of a kiosk that has no gates; returns its status."""
        *_, last = self.events()
        return int(last["ended"])

    def some_moment(self, pid: int, account: Path, chance: random.Random) -> None:
        """Let a kiosk under load say a little more, and then let a moment of no meaning come.

        ProcessLookupError when it has ended, which it never does by itself.
        """
        end = _size(account) + chance.randrange(_LITTLE)
        while _size(account) <= end:
            os.kill(pid, 0)
        for _ in range(chance.randrange(_LOOKS)):
            _size(account)

    def kill(self, pid: int) -> None:
        """End the kiosk by SIGKILL."""
        os.kill(pid, signal.SIGKILL)
        if self.finish() != -signal.SIGKILL:
            raise AssertionError("expected the kiosk to run until it was killed; see its last word")

    def _write(self, data: bytes) -> None:
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError("expected a word of the nursery, it has ended; see its last word")
        return json.loads(line)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else -1


def main() -> None:
    """Read orders, fork, wait."""
    _end_with_the_parent()
    worker.warm_up()
    while line := _line():
        pid = os.fork()
        if pid == 0:
            # Whatever it raises is shown, and ends this fork only.
            status = 70
            _end_with_the_parent()
            try:
                worker.say({"pid": os.getpid()})
                status = worker.run(worker.order_of(line))
            except BaseException:  # noqa: BLE001 - the top of a process
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        worker.say({"ended": os.waitstatus_to_exitcode(status)})


def _end_with_the_parent() -> None:
    """A test run that is broken off leaves no kiosk behind that works for ever."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _line() -> bytes:
    # Byte by byte: what comes after the line is for the kiosk's gates.
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


if __name__ == "__main__":
    main()
