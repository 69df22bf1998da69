"""How commands speak: one JSON document, or lines for a person."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kiosk.config import Settings

DEFAULT_CONFIG = Path("/etc/kiosk/kiosk.toml")


def say(text: str = "") -> None:
    """A line on standard output."""
    print(text)  # noqa: T201 - this is the one place that prints


def complain(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr)  # noqa: T201 - this is the one place that prints


def say_json(document: Any) -> None:
    """One JSON document on one line."""
    say(json.dumps(document, ensure_ascii=False))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, under their heads and a rule."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = [heads, ["─" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """The option that names the configuration."""
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help=f"configuration file; default: {DEFAULT_CONFIG}",
    )


def add_models_dir(parser: argparse.ArgumentParser) -> None:
    """The option that names folders of models beside the shipped ones."""
    parser.add_argument(
        "--models-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder with a manifest.toml and models of your own; may be repeated",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option that asks for JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON for a program")


def settings_of(options: argparse.Namespace) -> Settings:
    """The configuration that the command line names; the last good one if it does not check.

    The daemon goes on with that one too, and must still be asked what is wrong.
    """
    from kiosk.lastgood import load_or_last

    loaded = load_or_last(options.config)
    if loaded.refused:
        complain(f"{loaded.refused}; the last configuration that checked is used instead")
    return loaded.settings
