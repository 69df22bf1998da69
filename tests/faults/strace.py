"""Takes hold of one thread of a kiosk with strace: counts its system calls, or fails the n-th one.

strace counts `when=N` for each system call and each traced thread. So one thread is traced at a
time; it stands at a gate until strace has it, and its calls are counted from there.
"""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.nursery import Nursery
from faults.worker import Order

_CALL = re.compile(r"^(\w+)\(")
_INJECTED = "(INJECTED"
# Their number depends on who came first, not on what is done; none of them touches a file, so that
# a kill there leaves what a kill at the next call leaves. readv is how a kiosk stands at a gate.
_OF_THE_MOMENT = {
    *("readv", "futex", "sched_yield", "restart_syscall", "clone", "clone3", "rseq"),
    *("brk", "mmap", "munmap", "mprotect", "madvise", "mremap", "set_robust_list"),
    *("rt_sigreturn", "rt_sigprocmask", "rt_sigaction", "gettid", "getpid"),
}


@dataclass(frozen=True)
class Grip:
    """Which thread is held, and from which gate on."""

    gate: str
    thread: str


@dataclass(frozen=True)
class Watched:
    """How a watched kiosk ended: its status, the calls that strace saw, and where one could hold.

    `grips`: for each thread the first gate, from the watched one on, at which it stood.
    """

    status: int
    lines: tuple[str, ...]
    grips: tuple[Grip, ...]

    @property
    def injected(self) -> int:
        """How many calls were failed."""
        return sum(_INJECTED in line for line in self.lines)


def watch(nursery: Nursery, order: Order, grip: Grip, log: Path, *options: str) -> Watched:
    """Run a kiosk with one of its threads held by strace, with these further options."""
    log.unlink(missing_ok=True)
    nursery.start(order)
    tracer = None
    grips: dict[str, Grip] = {}
    for event in nursery.events():
        if "gate" not in event:
            continue
        if tracer is None and event["gate"] == grip.gate and grip.thread in event["threads"]:
            tracer = _attached(event["threads"][grip.thread], log, options)
        if tracer is not None:
            grips = {name: Grip(event["gate"], name) for name in event["threads"]} | grips
        nursery.open_gate()
    if tracer is None:
        raise AssertionError(f"expected {grip} to be reached; the kiosk ended before: {event}")
    with tracer:
        tracer.wait()
    lines = log.read_text(errors="replace").splitlines()
    return Watched(event["ended"], tuple(lines), tuple(grips.values()))


def calls(watched: Watched) -> Counter[str]:
    """How often each system call was made that does not depend on the moment."""
    names = (found[1] for line in watched.lines if (found := _CALL.match(line)))
    return Counter(name for name in names if name not in _OF_THE_MOMENT)


def _attached(tid: int, log: Path, options: Sequence[str]) -> "subprocess.Popen[str]":
    command = ["strace", "-y", "-o", str(log), *options, "-p", str(tid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = tracer.stderr.readline()
    if "attached" not in said:
        tracer.kill()
        tracer.wait()
        raise OSError(f"strace could not take hold: {said.strip()}")
    return tracer


def each(counted: Counter[str]) -> Iterator[tuple[str, int]]:
    """Every (call, n)."""
    for name, number in sorted(counted.items()):
        yield from ((name, n) for n in range(1, number + 1))
