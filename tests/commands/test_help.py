"""`--help`: whoever asks for it is told what each argument is."""

import argparse
import subprocess
import sys

import pytest

from kiosk.commands import line
from kiosk.server import __main__ as server


def unexplained(parser):
    """The arguments of a parser and of every command below it that have no help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from unexplained(command)
        elif not (action.help or "").strip():
            yield f"{parser.prog} {'/'.join(action.option_strings) or action.dest}"


@pytest.mark.parametrize("tree", [line.parser, server.parser, server.import_parser])
def test_every_argument_has_a_help_text(tree):
    """A metavar alone tells nobody what is to be given."""
    assert list(unexplained(tree())) == []


def commands(parser):
    """A parser and every one below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from commands(command)


def test_every_help_can_be_printed():
    """A per cent sign in a text would be taken for a format, at the moment somebody asks."""
    for parser in commands(line.parser()):
        assert parser.prog in parser.format_help()


def test_an_argument_without_help_is_found():
    """The walk goes into commands of commands: the test above can fail."""
    parser = argparse.ArgumentParser(prog="top")
    inner = parser.add_subparsers().add_parser("inner")
    inner.add_subparsers().add_parser("most").add_argument("--bare")
    assert list(unexplained(parser)) == ["top inner most --bare"]


def test_who_asks_the_daemon_waits_for_no_library():
    """A deploy asks once a second, on the Pi: what embeds and seals is not loaded for that."""
    script = (
        "import sys; from kiosk.commands import line; line.parse(['status']); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "kiosk.control" in loaded
    assert not {"numpy", "cv2", "onnxruntime", "requests"} & set(loaded)
