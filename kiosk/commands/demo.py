"""`kiosk demo`: the main job on a replayed walk-up with the reference server."""

from __future__ import annotations

import argparse
import importlib.util

from kiosk.commands.console import add_models_dir
from kiosk.errors import UserError


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    demo = commands.add_parser("demo", help="the whole product on a replayed walk-up")
    demo.add_argument("--stay", action="store_true", help="leave kiosk and server running")
    demo.add_argument("--model", metavar="ID", help="exactly this file; default: the best one")
    add_models_dir(demo)
    demo.set_defaults(action=run_demo)


def run_demo(options: argparse.Namespace) -> int:
    """Run it; 1 when a visit did not come out as it must."""
    if importlib.util.find_spec("fastapi") is None:
        raise UserError(
            "the reference server's libraries expected, not installed",
            hint="pip install '.[server]' in a checkout of this project",
        )
    from kiosk.demo.show import perform

    return perform(stay=options.stay, model=options.model, models_dirs=options.models_dir)
