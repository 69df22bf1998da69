"""`kiosk check-config` and `kiosk doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path

from kiosk.commands.console import add_config, add_json, say, say_json
from kiosk.config import load


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    check = commands.add_parser("check-config", help="tell every mistake in a configuration")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(action=check_config)
    doctor = commands.add_parser("doctor", help="check what the kiosk needs")
    add_config(doctor)
    add_json(doctor)
    doctor.set_defaults(action=run_doctor)


def check_config(options: argparse.Namespace) -> int:
    """0 when it checks; every problem on a line of its own otherwise."""
    load(options.file, files=True)
    say(f"{options.file}: checks")
    return 0


def run_doctor(options: argparse.Namespace) -> int:
    """A line for each check; 1 when any failed, warnings do not count."""
    from kiosk.health import examine

    findings = examine(options.config)
    if options.json:
        say_json([finding.document() for finding in findings])
    else:
        for finding in findings:
            say(f"{finding.verdict:7} {finding.what}: {finding.found}")
            if finding.advice:
                say(f"        {finding.advice}")
    return 1 if any(finding.verdict == "failed" for finding in findings) else 0
