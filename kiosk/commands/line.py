"""Parsing the command line and running what it asks for, as two functions."""

from __future__ import annotations

import argparse
import errno
import os
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn, TextIO

from kiosk.commands import checks, daemon, demo, faces, gallery, key, lab, models, outbox
from kiosk.commands.console import complain, say
from kiosk.errors import KioskError, UserError

_UNREAD = 128 + signal.SIGPIPE


class _Parser(argparse.ArgumentParser):
    """Usage mistakes are one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(UserError.exit_status, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from kiosk import __version__

        say(__version__)
        parser.exit()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line as options; exits with 2 for a mistake in it."""
    return parser().parse_args(arguments)


def parser() -> argparse.ArgumentParser:
    """The whole tree of commands."""
    tree = _Parser(prog="kiosk", description="Face-attendance kiosk.")
    tree.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    tree.add_argument("--debug", action="store_true", help="show traces of errors")
    commands = tree.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for module in (daemon, outbox, demo, checks, faces, gallery, key, models, lab):
        module.register(commands)
    return tree


def run(options: argparse.Namespace) -> int:
    """Run one command; its exit status is 0, 1 for a failure, 2 for a mistake of the user's.

    141, without a word, when whoever read the output has gone: `kiosk ... | head`.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = _run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go()
        return _UNREAD
    return status


def _run(options: argparse.Namespace) -> int:
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
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _unread(sys.stdout):
            raise
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            where = f" ({error.filename})" if error.filename else ""
            complain(
                f"kiosk: room on the disk expected, got: {error.strerror}{where}; make room, or"
                " name a folder that has some for temporary files in TMPDIR"
            )
            return KioskError.exit_status
        # The top of the main thread. What is on disk is whole: every change of it is.
        if options.debug:
            traceback.print_exc()
        complain(f"kiosk: a fault of its own, {_told(error)}; kiosk --debug ... shows the trace")
        return KioskError.exit_status


def _unread(stream: TextIO) -> bool:
    """Whether it is a pipe or the like whose reader has gone."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(happened & select.POLLERR for _, happened in poll.poll(0))


def _let_go() -> None:
    """Nothing more can be written, and the interpreter's own flush at the end must not fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if _unread(stream):
            os.dup2(null, stream.fileno())
    os.close(null)


def _told(error: Exception) -> str:
    """A fault in one line, with the place where it happened."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words} ({Path(frame.filename).name}:{frame.lineno})"
