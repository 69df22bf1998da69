"""`make bench`: measurements, interleaved, best of many, with the machine's name. Asserts nothing.

Figures that have a number to reach come as one table before the daemon's own. What cannot be
measured here (without ../shared, npm or PyPI) is told and left out.
"""

import logging
import subprocess
import sys

from bench import accuracy, decision, embedders, large, machine, table


def main() -> None:
    # The quantiser recommends a step that `folded` has done already.
    logging.disable(logging.WARNING)
    print(machine.name())
    rows = [*embedders.rows(), *accuracy.rows(), *large.rows()]
    decision.tell()
    print(f"\n{machine.name()}, one thread, best of many in turns\n")
    print("\n".join(table.lines(rows)), "\n", flush=True)
    # A process of its own: the daemon has no LiteRT and no scikit-learn.
    for part in ("bench.memory", "bench.outbox", "bench.idle"):
        subprocess.run([sys.executable, "-m", part], check=True)


if __name__ == "__main__":
    main()
