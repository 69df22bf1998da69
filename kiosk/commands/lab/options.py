"""Options that several commands of the workshop share."""

from __future__ import annotations

import argparse
import importlib.util
from typing import TYPE_CHECKING

from kiosk.errors import UserError

_NEEDED = ("onnx", "sklearn", "matplotlib", "rich", "yaml", "jinja2")

if TYPE_CHECKING:
    from kiosk.lab.subject import Feeding


def add_feeding(parser: argparse.ArgumentParser) -> None:
    """How a model that no manifest knows is fed; a known one is fed as the manifest says."""
    group = parser.add_argument_group("feeding of a model that no manifest knows")
    group.add_argument("--channels", choices=("RGB", "BGR"), default="RGB")
    group.add_argument("--mean", type=float, default=127.5, metavar="M")
    group.add_argument(
        "--scale", type=float, default=1 / 127.5, metavar="S", help="input is (pixel - mean)*scale"
    )


def feeding_of(options: argparse.Namespace) -> Feeding:
    """The feeding that the command line names."""
    from kiosk.lab.subject import Feeding

    if options.scale == 0:
        raise UserError("--scale: a number other than 0 expected")
    return Feeding(options.channels, options.mean, options.scale)


def add_aligned(parser: argparse.ArgumentParser) -> None:
    """Photographs, or crops that are aligned already."""
    parser.add_argument(
        "--aligned", action="store_true", help="pictures are aligned 112x112 crops already"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """How many threads onnxruntime may use."""
    parser.add_argument("--threads", type=int, default=2, choices=range(1, 17), metavar="1..16")


def add_arithmetic(parser: argparse.ArgumentParser) -> None:
    """How 8-bit operators are computed."""
    parser.add_argument(
        "--arithmetic",
        choices=("native", "reference"),
        default="native",
        help="native: this machine's kernels; reference: QDQ as ONNX defines it, as on ARM, slower",
    )


def require_workshop() -> None:
    """UserError when the workshop's libraries are not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the workshop's libraries expected, not installed: {', '.join(missing)}",
            hint="pip install 'face-kiosk[lab]'",
        )
