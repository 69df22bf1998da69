"""`kiosk lab`: the workshop. Its libraries are loaded when a command runs, never before."""

from __future__ import annotations

import argparse
from types import ModuleType

from kiosk.commands.lab import build, profile, quantize, rebuild, report, roc, validate

# Each has `register`, and actions that call `require_workshop` before anything else.
_COMMANDS: tuple[ModuleType, ...] = (
    build,
    quantize,
    rebuild,
    validate,
    roc,
    profile,
    report,
)


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of the workshop."""
    lab = commands.add_parser("lab", help="quantise, validate and measure models")
    workshop = lab.add_subparsers(dest="what", required=True)
    for module in _COMMANDS:
        module.register(workshop)
