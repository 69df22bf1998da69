"""Options that several commands of the workshop share."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from kiosk.commands.console import DEFAULT_CONFIG
from kiosk.config import load
from kiosk.errors import UserError

_NEEDED = ("onnx", "sklearn", "matplotlib", "rich", "yaml", "jinja2")

if TYPE_CHECKING:
    from kiosk.lab.subject import Feeding
    from kiosk.vision.manifest import Manifest
    from kiosk.vision.own_models import OwnModels


def add_feeding(parser: argparse.ArgumentParser) -> None:
    """How a model that no manifest knows is fed; a known one is fed as the manifest says."""
    group = parser.add_argument_group("feeding of a model that no manifest knows")
    group.add_argument(
        "--channels",
        choices=("RGB", "BGR"),
        default="RGB",
        help="order of the colours; default: RGB",
    )
    add_mean_and_scale(group)


def add_mean_and_scale(parser: argparse._ActionsContainer) -> None:
    """Add the two numbers by which pixels become a model's input."""
    parser.add_argument(
        "--mean", type=float, metavar="M", help="default: 127.5, 0 where the graph normalises"
    )
    parser.add_argument(
        "--scale",
        type=float,
        metavar="S",
        help="input is (pixel - mean)*scale; default: 1/127.5, 1 where the graph normalises",
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


def add_no_identities(parser: argparse.ArgumentParser) -> None:
    """The word without which a folder that names nobody does not pass."""
    parser.add_argument(
        "--no-identities",
        action="store_true",
        help="judge cosine and MAE alone, not AUC and TAR, and say so",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """How many threads onnxruntime may use."""
    parser.add_argument(
        "--threads",
        type=int,
        default=2,
        choices=range(1, 17),
        metavar="1..16",
        help="of onnxruntime; default: 2",
    )


def add_arithmetic(parser: argparse.ArgumentParser) -> None:
    """How 8-bit operators are computed."""
    parser.add_argument(
        "--arithmetic",
        choices=("native", "reference"),
        default="native",
        help="native: this machine's kernels; reference: QDQ as ONNX defines it, as on ARM, slower",
    )


def add_state(parser: argparse.ArgumentParser, *, reads: bool = False) -> None:
    """Whose models of one's own are meant: those of a configuration or of a state folder.

    A command that only `reads` does without either.
    """
    group = parser.add_mutually_exclusive_group()
    default = "none" if reads else f"{DEFAULT_CONFIG} to write to"
    group.add_argument(
        "--config", type=Path, metavar="FILE", help=f"whose models count; default: {default}"
    )
    group.add_argument("--state-dir", type=Path, metavar="DIR", help="the same without one")


def state_folder(options: argparse.Namespace) -> Path | None:
    """The folder that --state-dir names, to be read; UserError when it is not there."""
    folder: Path | None = options.state_dir
    if folder is not None and not folder.is_dir():
        raise UserError(
            f"--state-dir: a state folder expected, {folder} is none",
            hint="`kiosk models add` makes one",
        )
    return folder


def known_models(options: argparse.Namespace) -> Manifest:
    """All models that the named configuration or state folder knows; the shipped ones without."""
    from kiosk.vision.manifest import load_manifest, manifest_of

    if options.config is not None:
        return manifest_of(load(options.config))
    return load_manifest(state_dir=options.state_dir)


def model_file(name: Path, manifest: Manifest) -> Path:
    """A file as it is named, or the file of a model's id; UserError for an id that is none.

    What is neither and looks like a file is left to whoever reads it.
    """
    known = {e.id: e.path for e in manifest.entries if e.kind == "embedder"}
    if name.exists() or name.suffix == ".onnx" or len(name.parts) > 1:
        return name
    if str(name) not in known:
        raise UserError(
            f"a file or the id of a model expected, got {name}; known are {', '.join(known)}",
            hint="--config or --state-dir names the kiosk that it was added to",
        )
    return known[str(name)]


def own_models(options: argparse.Namespace) -> OwnModels:
    """The models of one's own of the named configuration or state folder, to be written to."""
    from kiosk.vision.own_models import OwnModels

    if options.state_dir is not None:
        return OwnModels(options.state_dir)
    if options.config is None:
        options.config = DEFAULT_CONFIG
    return OwnModels(Path(load(options.config).paths.state_dir))


def require_workshop() -> None:
    """UserError when the workshop's libraries are not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the workshop's libraries expected, not installed: {', '.join(missing)}",
            hint="pip install '.[lab]' in a checkout of this project",
        )
