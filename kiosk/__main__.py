"""`kiosk`: the command line. Parsing and running are two functions."""

from __future__ import annotations

import argparse
import sys
import traceback
from typing import NoReturn

from kiosk import __version__
from kiosk.commands import checks, daemon, demo, faces, gallery, lab, models, outbox
from kiosk.commands.console import complain
from kiosk.errors import KioskError, UserError


class _Parser(argparse.ArgumentParser):
    """Usage mistakes are one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(UserError.exit_status, f"{self.prog}: {message}; see {self.prog} --help\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line as options; exits with 2 for a mistake in it."""
    parser = _Parser(prog="kiosk", description="Face-attendance kiosk.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show traces of errors")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for module in (daemon, outbox, demo, checks, faces, gallery, models, lab):
        module.register(commands)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status is 0, 1 for a failure, 2 for a mistake of the user's."""
    options = parse(arguments)
    try:
        return int(options.action(options))
    except KioskError as error:
        if options.debug:
            traceback.print_exc()
        problems = getattr(error, "problems", ()) or (str(error),)
        for problem in problems:
            complain(f"kiosk: {problem}")
        return error.exit_status
    except KeyboardInterrupt:
        complain("kiosk: interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
