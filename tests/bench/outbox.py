"""What a punch costs on disk, and whether that grows with the queue. Asserts nothing.

`python -m bench.outbox`. The queue lengths take turns, so that a noisy moment meets all of them.
"""

import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import backlog, machine
from bench.line import Line

LENGTHS = (1_000, 100_000, 1_000_000)
ROUNDS, PUNCHES = 20, 25


def main() -> None:
    print(f"{machine.name()}: one punch on disk, {ROUNDS * PUNCHES} for each length in turns")
    with ExitStack() as stack:
        where = sys.argv[1] if len(sys.argv) > 1 else None
        lines = []
        for length in LENGTHS:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=where)))
            lines.append(Line(folder, length))
        for _ in range(ROUNDS):
            for line in lines:
                line.measure(PUNCHES)
        base = statistics.median(lines[0].took_ms)
        for line in lines:
            p50 = statistics.median(line.took_ms)
            p95 = statistics.quantiles(line.took_ms, n=20)[-1]
            print(
                f"  {line.length:>9} waiting: p50 {p50:.2f} ms, p95 {p95:.2f} ms,"
                f" p50 / that of {LENGTHS[0]}: {p50 / base:.2f}"
            )
        backlog.tell(lines)


if __name__ == "__main__":
    main()
