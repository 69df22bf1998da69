"""`kiosk lab build`: from FP32 to INT8 files that pass the gate, their record and report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kiosk.commands.console import add_json, complain, say, say_json, table
from kiosk.commands.lab.options import (
    add_aligned,
    add_feeding,
    add_threads,
    feeding_of,
    require_workshop,
)
from kiosk.commands.lab.telling import tell_advice, tell_skipped
from kiosk.errors import UserError

if TYPE_CHECKING:
    from kiosk.lab.build import Built, Made


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command of this module."""
    parser = commands.add_parser("build", help="rewrite, search, gate, measure and record")
    parser.add_argument("model", type=Path, metavar="FP32", help="the ONNX file to start from")
    parser.add_argument(
        "--calib", type=Path, required=True, metavar="DIR", help="pictures to calibrate with"
    )
    parser.add_argument(
        "--holdout", type=Path, required=True, metavar="DIR", help="other pictures, to judge on"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where models, record and report go"
    )
    parser.add_argument("--name", metavar="NAME", help="begins the files' names; default: FP32's")
    parser.add_argument("--samples", type=int, metavar="N", help="at most so many for calibration")
    parser.add_argument(
        "--percentile",
        type=float,
        metavar="P",
        help="calibrate with this percentile only, instead of choosing; 100 is MinMax",
    )
    add_aligned(parser)
    add_feeding(parser)
    add_threads(parser)
    add_json(parser)
    parser.set_defaults(action=run)


def run(options: argparse.Namespace) -> int:
    """Build; 1 when nothing passes the gate, and then the lines that fail."""
    require_workshop()
    from kiosk.lab.build import Request, build, write_files
    from kiosk.lab.faces import read_folder
    from kiosk.lab.outcome import write_outcome
    from kiosk.lab.subject import read_subject

    request = Request(
        subject=read_subject(options.model, feeding_of(options)),
        calibration=read_folder(options.calib, aligned=options.aligned, samples=options.samples),
        holdout=read_folder(options.holdout, aligned=options.aligned),
        out=options.out,
        name=options.name or options.model.stem.removesuffix("-fp32").removesuffix("_fp32"),
        threads=options.threads,
        **calibrations_of(options.percentile),
    )
    built = build(request)
    if built.chosen is not None:
        write_files(built)
    document = write_outcome(built)
    if options.json:
        say_json(document)
    else:
        _say(built)
    if built.chosen is None:
        for made in built.variants:
            _complain(made)
        return 1
    return 0


def calibrations_of(percentile: float | None) -> dict[str, Any]:
    """The calibrations to choose from, as the command line narrows them."""
    if percentile is None:
        return {}
    if not 50.0 < percentile <= 100.0:
        raise UserError(f"--percentile: more than 50 to 100 expected, got {percentile}")
    method = "MinMax" if percentile == 100.0 else "Percentile"
    return {"calibrations": ((method, percentile),)}


def _say(built: Built) -> None:
    from kiosk.lab.figures import advice_of

    for faces in (built.request.calibration, built.request.holdout):
        count = len(faces.faces)
        say(f"{count} of {count + len(faces.skipped)} pictures in {faces.folder}")
        tell_skipped(faces.skipped)
    rows = []
    for made in (built.naive, *built.variants):
        judged = made.validation
        if judged is None:
            continue
        rows.append(
            (
                made.file,
                f"{made.int8}/{made.layers}",
                f"{judged.agreed.mean_cosine:.4f}",
                f"{judged.agreed.min_cosine:.4f}",
                f"{built.best_ms(made):.2f}",
                "passes" if judged.passed else "fails",
                "fastest that passes" if made is built.chosen else "",
            )
        )
    say(table(("file", "in INT8", "cosine mean", "min", "ms", "gate", ""), rows))
    ms, form = built.best_ms(built.fp32), built.fp32.form
    say(f"\n{built.fp32.file}: {ms:.2f} ms, the fastest exact form here: {form}\n")
    tell_advice(advice_of(built))


def _complain(made: Made) -> None:
    from kiosk.lab.gate import failing

    for line in failing(made.validation.lines if made.validation else ()):
        complain(f"{made.file}: {line.name} {line.limit} expected, got {line.figure}")
