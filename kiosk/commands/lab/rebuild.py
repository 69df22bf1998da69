"""`kiosk lab rebuild`: the files of a build from its record, the same bytes, without a face."""

from __future__ import annotations

import argparse
from pathlib import Path

from kiosk.commands.console import add_json, complain, say, say_json
from kiosk.commands.lab.options import add_state, known_models, require_workshop

_SOURCE = "default: found by its hash, beside the record, here, or among the models that are known"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command of this module."""
    parser = commands.add_parser("rebuild", help="remake the files of a build from its record")
    parser.add_argument(
        "record", type=Path, metavar="quantization_config.yaml", help="what a build recorded"
    )
    parser.add_argument("--source", type=Path, metavar="FP32", help=_SOURCE)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the files there")
    add_state(parser, reads=True)
    add_json(parser)
    parser.set_defaults(action=run)


def run(options: argparse.Namespace) -> int:
    """Remake and compare; 1 when a file differs from the record."""
    require_workshop()
    from kiosk.lab.rebuild import rebuild

    made = rebuild(options.record, options.source, options.out, known_models(options))
    if options.json:
        say_json(
            [
                {
                    "file": m.file,
                    "expected": m.expected,
                    "sha256": m.sha256,
                    "beside": m.beside,
                    "same": m.same,
                }
                for m in made
            ]
        )
    for each in made if not options.json else ():
        if each.same:
            say(f"{each.file}: the same bytes, SHA-256 {each.sha256}")
        elif each.expected != each.sha256:
            left = "" if options.out is None else "; it was not written"
            complain(f"{each.file}: SHA-256 {each.expected} expected, got {each.sha256}{left}")
        else:
            complain(
                f"{each.file}: SHA-256 {each.expected} expected, the file beside the record has"
                f" {each.beside}"
            )
    return 0 if all(each.same for each in made) else 1
