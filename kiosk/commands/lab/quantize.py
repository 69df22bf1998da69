"""`kiosk lab quantize`: one recipe of ONNX Runtime's quantiser, on one file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kiosk.commands.console import add_json, say, say_json
from kiosk.commands.lab.options import add_aligned, add_feeding, feeding_of, require_workshop
from kiosk.commands.lab.telling import tell_advice, tell_skipped
from kiosk.errors import UserError

if TYPE_CHECKING:
    from kiosk.lab.quantise import Recipe

_MIB = 1024 * 1024
_OP_TYPES = "Conv,Gemm,MatMul,Add"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command of this module."""
    parser = commands.add_parser("quantize", help="one recipe of onnxruntime's quantiser")
    parser.add_argument("model", type=Path, metavar="FP32", help="the ONNX file to start from")
    parser.add_argument("--out", type=Path, required=True, metavar="INT8", help="the file to write")
    parser.add_argument(
        "--method",
        choices=("static", "dynamic"),
        default="static",
        help="static calibrates with --calib; default: static",
    )
    parser.add_argument("--calib", type=Path, metavar="DIR", help="pictures to calibrate with")
    parser.add_argument("--samples", type=int, metavar="N", help="at most so many of them")
    parser.add_argument(
        "--format",
        choices=("QDQ", "QOperator"),
        default="QDQ",
        help="how 8-bit operators are written; default: QDQ",
    )
    parser.add_argument(
        "--activations", choices=("S8", "U8"), default="S8", help="signed or unsigned; default: S8"
    )
    parser.add_argument(
        "--weights", choices=("S8", "U8"), default="S8", help="signed or unsigned; default: S8"
    )
    parser.add_argument("--per-tensor", action="store_true", help="one scale for all channels")
    parser.add_argument("--reduce-range", action="store_true", help="weights of 7 bits")
    parser.add_argument(
        "--calibration",
        choices=("MinMax", "Entropy", "Percentile"),
        default="MinMax",
        help="how ranges are found; default: MinMax",
    )
    parser.add_argument(
        "--percentile",
        type=float,
        metavar="P",
        help="for --calibration Percentile; default: 99.9999",
    )
    parser.add_argument("--op-types", default=_OP_TYPES, metavar="A,B", help=f"default {_OP_TYPES}")
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="NODE", help="stays FP32; may be repeated"
    )
    parser.add_argument(
        "--as-it-is", action="store_true", help="leave out quant_pre_process and exact folding"
    )
    add_aligned(parser)
    add_feeding(parser)
    add_json(parser)
    parser.set_defaults(action=run)


def run(options: argparse.Namespace) -> int:
    """Quantise and write; the file gets its name once it has been loaded and run."""
    require_workshop()
    from kiosk.lab.plain import quantise_file
    from kiosk.lab.quantise import PERCENTILE
    from kiosk.lab.subject import read_subject

    if options.method == "static" and options.calib is None:
        raise UserError("--calib: a folder of pictures expected for the static method")
    if options.samples is not None and options.samples < 1:
        raise UserError(f"--samples: a number from 1 on expected, got {options.samples}")
    if options.percentile is None:
        options.percentile = PERCENTILE
    elif options.calibration != "Percentile" or options.method == "dynamic":
        raise UserError(
            "--percentile: --calibration Percentile and the static method expected with it, got"
            f" {options.calibration}, {options.method}"
        )
    if not 50.0 < options.percentile <= 100.0:
        raise UserError(f"--percentile: more than 50 to 100 expected, got {options.percentile}")
    if options.out.resolve() == options.model.resolve():
        raise UserError(f"--out: another file than {options.model} expected, it is the source")
    if not options.out.parent.is_dir():
        raise UserError(f"--out: a folder expected at {options.out.parent}, there is none")
    done = quantise_file(
        read_subject(options.model, feeding_of(options)),
        options.out,
        recipe_of(options),
        calibration=options.calib,
        aligned=options.aligned,
        samples=options.samples,
        as_it_is=options.as_it_is,
    )
    if options.json:
        say_json(done.document())
        return 0
    if done.faces:
        say(f"{done.faces} of {done.faces + len(done.skipped)} pictures in {options.calib}")
    tell_skipped(done.skipped)
    tell_advice(done.advice)
    say(
        f"{options.out}: {done.int8} of {done.layers} layers in INT8,"
        f" {done.bytes / _MIB:.2f} MiB, {100 * done.bytes / done.source_bytes:.1f} % of FP32"
    )
    return 0


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe that the command line names."""
    from kiosk.lab.quantise import KNOWN_OP_TYPES, Recipe

    types = tuple(name.strip() for name in options.op_types.split(",") if name.strip())
    unknown = [name for name in types if name not in KNOWN_OP_TYPES]
    if unknown or not types:
        raise UserError(
            f"--op-types: operators that onnxruntime quantises expected, got {options.op_types!r}",
            hint=f"any of {', '.join(sorted(KNOWN_OP_TYPES))}",
        )
    return Recipe(
        method=options.method,
        format=options.format,
        activations=options.activations,
        weights=options.weights,
        per_channel=not options.per_tensor,
        reduce_range=options.reduce_range,
        calibration=options.calibration,
        percentile=options.percentile,
        op_types=types,
        exclude=tuple(options.exclude),
    )
