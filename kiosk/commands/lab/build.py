"""`kiosk lab build`: from FP32 to INT8 files that pass the gate, their record and report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kiosk.commands.console import add_json, complain, say, say_json, table
from kiosk.commands.lab.options import (
    add_aligned,
    add_feeding,
    add_no_identities,
    add_threads,
    feeding_of,
    require_workshop,
)
from kiosk.commands.lab.telling import tell_advice, tell_skipped
from kiosk.errors import ModelError, UserError

if TYPE_CHECKING:
    from kiosk.lab.build import Built, Made, Request


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
    add_no_identities(parser)
    add_aligned(parser)
    add_feeding(parser)
    add_threads(parser)
    add_json(parser)
    parser.set_defaults(action=run)


def run(options: argparse.Namespace) -> int:
    """Build; 1 when nothing passes the gate, and then the lines that fail."""
    require_workshop()
    from kiosk.lab.build import Request, build
    from kiosk.lab.faces import read_folder
    from kiosk.lab.files import claimed
    from kiosk.lab.outcome import write_outcome
    from kiosk.lab.subject import read_subject

    name = options.name or options.model.stem.removesuffix("-fp32").removesuffix("_fp32")
    if (options.out / f"{name}-fp32.onnx").resolve() == options.model.resolve():
        raise UserError(
            f"--out: a folder where {name}-fp32.onnx is not the source itself expected,"
            f" got {options.out}",
            hint="name another --out or --name",
        )
    request = Request(
        subject=read_subject(options.model, feeding_of(options)),
        calibration=read_folder(options.calib, aligned=options.aligned, samples=options.samples),
        holdout=read_folder(options.holdout, aligned=options.aligned),
        out=options.out,
        name=name,
        threads=options.threads,
        identities=not options.no_identities,
        **calibrations_of(options.percentile),
    )
    with claimed(options.out):
        try:
            built = build(request)
        except ModelError:
            _tell_untouched(request)
            raise
        outcome = write_outcome(built)
    aside = outcome.aside
    if options.json:
        told = {} if aside is None else {"set_aside": [str(aside.folder), *aside.files]}
        say_json(outcome.document | told)
    else:
        _say(built)
    for made in built.variants if built.chosen is None else ():
        _complain(made)
    if aside is not None:
        complain(f"of an earlier build, now in {aside.folder}: {', '.join(aside.files)}")
    return 1 if built.chosen is None else 0


def _tell_untouched(request: Request) -> None:
    from kiosk.lab.earlier import models_of

    there = models_of(request.out, request.name, request.subject.path)
    if there:
        complain(
            f"{request.out}: nothing was written; of an earlier build, as they were:"
            f" {', '.join(there)}"
        )


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
    from kiosk.lab.gate import LEFT_OUT, passes, shortfall, unjudged

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
                *(line.told(4) for line in judged.lines[:2]),
                f"{built.best_ms(made):.2f}",
                "passes" if judged.passed else "fails",
                "fastest that passes" if made is built.chosen else "",
            )
        )
    say(table(("file", "in INT8", "cosine mean", "min", "ms", "gate", ""), rows))
    for made in (built.naive, *built.variants):
        if not passes(made.lines):
            say(f"{made.file} fails: {shortfall(made.lines)}")
    left = ", ".join(line.name for line in unjudged(built.naive.lines))
    if left:
        say(f"\nnot judged: {left} ({LEFT_OUT}); cosine and MAE alone decide")
    ms, form = built.best_ms(built.fp32), built.fp32.form
    say(f"\n{built.fp32.file}: {ms:.2f} ms, the fastest exact form here: {form}")
    if built.chosen is not None:
        say(f"{built.chosen.file}: {_speed_words(built, built.chosen)}")
    say()
    tell_advice(advice_of(built))


def _speed_words(built: Built, made: Made) -> str:
    ms = built.best_ms(made)
    return (
        f"{ms:.2f} ms, {built.fastest_fp32_ms() / ms:.2f} times as fast as the fastest FP32 file,"
        f" {built.source_ms() / ms:.2f} times as fast as the file given"
    )


def _complain(made: Made) -> None:
    from kiosk.lab.gate import failing

    for line in failing(made.lines):
        complain(f"{made.file}: {line.name} {line.limit} expected, got {line.figure}")
