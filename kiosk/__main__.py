"""`kiosk`: the entrance. Nothing is imported up here that takes time: see `main`."""

from __future__ import annotations

import signal
import sys


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run it; see `kiosk.commands.line`."""
    # Python's own handler would show a trace of whatever is being imported when Ctrl-C comes. Until
    # the command runs there is nothing to end cleanly: the signal ends the process, without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kiosk.commands import line

    return line.run(line.parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
