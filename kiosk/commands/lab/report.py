"""`kiosk lab report`: the page that shows what a quantised model is worth."""

from __future__ import annotations

import argparse
from pathlib import Path

from kiosk.commands.console import say
from kiosk.commands.lab.options import require_workshop
from kiosk.errors import UserError


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command of this module."""
    parser = commands.add_parser("report", help="one HTML file from measured figures")
    parser.add_argument("data", type=Path, metavar="DATA.json", help="as `lab build` wrote it")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.html", help="the page to write"
    )
    parser.set_defaults(action=run)


def run(options: argparse.Namespace) -> int:
    """Read the figures, write the page."""
    require_workshop()
    from kiosk.lab.report import render
    from kiosk.lab.report_data import read_report_data

    page = render(read_report_data(options.data)).encode()
    try:
        options.out.write_bytes(page)
    except OSError as error:
        raise UserError(f"{options.out}: cannot be written, {error.strerror}") from error
    say(f"{options.out}: {len(page)} bytes")
    return 0
