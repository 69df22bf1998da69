"""What a punch writes, how fast a queue drains, how long a start takes. Asserts nothing.

Told by `bench.outbox`, after what a punch takes, on the queues that it has made.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.line import Line, outbox_in
from faults.chaos import THROUGH
from faults.network import network
from faults.serving import server
from kiosk.clock import NS_PER_S, SystemClock

PUNCHES, DRAINED, STARTS = 200, 2_000, 3
_WRITES = "write,pwrite64,writev,pwritev,pwritev2"
_SYNCS = "fsync,fdatasync,sync_file_range,msync,sync,syncfs"
_AS_SETTLED = (
    "UPDATE event SET state = 'settled', body_sha256 = randomblob(32), answer = 'ok'",
    "DELETE FROM waiting",
    "UPDATE epoch SET queued = 0, settled = highest",
)


def life(folder: Path, punches: int) -> tuple[int, int]:
    """Waits for the disk and bytes written in a whole life of a queue with so many punches."""
    told = folder / f"strace.{punches}"
    (folder / f"{punches}").mkdir()
    command = [sys.executable, "-m", "bench.backlog", "punch", str(folder / f"{punches}")]
    traced = ["strace", "-f", "-qq", "-e", f"trace={_SYNCS},{_WRITES}", "-o", str(told)]
    subprocess.run([*traced, *command, str(punches)], check=True, timeout=300)
    # A call that another thread interrupts has two lines; the second is its end.
    calls = [one for one in told.read_text().splitlines() if "unfinished" not in one]
    waits = sum(one.endswith("= 0") for one in calls if _is(one, _SYNCS))
    sizes = (re.search(r"= (\d+)$", one) for one in calls if _is(one, _WRITES))
    return waits, sum(int(size[1]) for size in sizes if size)


def _is(line: str, names: str) -> bool:
    found = re.match(r"\d+ +(?:<\.\.\. )?(\w+)", line)
    return found is not None and found[1] in names.split(",")


def per_punch(folder: Path) -> tuple[float, float]:
    """Waits and bytes for a punch alone: what a queue's making and ending take is taken off."""
    full, empty = life(folder, PUNCHES), life(folder, 0)
    return (full[0] - empty[0]) / PUNCHES, (full[1] - empty[1]) / PUNCHES


def drained(folder: Path) -> float:
    """Events a second from a queue to the reference server on this machine, both with SQLite."""
    with server(folder) as url, network((folder, url), folder) as net:
        station = net.station(timeout_s=5.0)
        for _ in range(DRAINED):
            station.put()
        net.proxy.arm(THROUGH)
        clock = SystemClock()
        began = clock.boottime_ns()
        station.stand(lambda: not station.outbox.status().pending)
        return DRAINED * NS_PER_S / (clock.boottime_ns() - began)


def starts(line: Line) -> tuple[float, float]:
    """Seconds until a queue is open whose events are all settled: after an end, after a kill."""
    for statement in _AS_SETTLED:
        line.sql(statement)
    line.outbox.close(600.0)
    clean, killed = [], []
    for _ in range(STARTS):
        clean.append(_start(line.folder))
        command = [sys.executable, "-m", "bench.backlog", "die", str(line.folder)]
        subprocess.run(command, check=False, timeout=300)
        killed.append(_start(line.folder))
    return statistics.median(clean), statistics.median(killed)


def _start(folder: Path) -> float:
    clock, outbox = SystemClock(), outbox_in(folder)
    began = clock.boottime_ns()
    outbox.start()
    took = (clock.boottime_ns() - began) / NS_PER_S
    outbox.close(600.0)
    return took


def tell(lines: list[Line]) -> None:
    """A line of text for each figure; the queues are closed at the end."""
    with ExitStack() as stack:

        def folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory()))

        if shutil.which("strace"):
            waits, size = per_punch(folder())
            print(f"  a punch waits for the disk {waits:.2f} times and writes {size / 1000:.1f} KB")
        else:
            print("  waits for the disk and bytes of a punch: strace expected, it is absent")
        print(f"  drained: {drained(folder()):.0f} events/s to the reference server")
        for line in lines:
            clean, killed = starts(line)
            print(
                f"  {line.length:>9} settled: open in {clean:.3f} s after an end,"
                f" {killed:.3f} s after a kill (median of {STARTS})"
            )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["punch", name, count]:
            line = Line(Path(name), 1)
            for _ in range(int(count)):
                line.put()
            line.outbox.close(60.0)
        case ["die", name]:
            outbox_in(Path(name)).start()
            os._exit(1)
