"""What this program may be asked for: a session with the sender, a trial, and going back."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from board import session, trial
from board.channel import Channel
from board.layout import Layout
from board.refusal import RefusedError


def main(arguments: list[str]) -> int:
    """`serve`: a session over standard input and output. `trial`, `settle`: run by systemd."""
    layout = Layout()
    program = Path(sys.argv[0]).resolve()
    # Neither what lies in somebody's home, where Python would look for modules first, nor how
    # that person likes new files to be is the release's business: its user reads all of it.
    os.chdir("/")
    os.umask(0o022)
    try:
        if arguments == ["serve"]:
            return session.serve(Channel(0), sys.stdout, layout, program)
        if arguments == ["trial"]:
            return trial.run_trial(layout)
        if arguments == ["settle"]:
            return trial.settle(layout)
    except RefusedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write("serve, trial or settle expected\n")
    return 2
