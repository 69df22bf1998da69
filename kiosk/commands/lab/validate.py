"""`kiosk lab validate`: does a quantised model pass the gate, on faces it was not fitted to?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kiosk.commands.console import add_json, complain, say, say_json, table
from kiosk.commands.lab.options import (
    add_aligned,
    add_arithmetic,
    add_feeding,
    add_no_identities,
    add_threads,
    feeding_of,
    require_workshop,
)
from kiosk.commands.lab.telling import label, listed, origin, tell_models, tell_skipped
from kiosk.errors import UserError

if TYPE_CHECKING:
    from kiosk.lab.comparison import Embedded
    from kiosk.lab.gate import Line
    from kiosk.lab.study import Study

_FEW_FACES = 50
_UNCHECKED = "overlap with the calibration pictures not checked: --calibration or --record does"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command of this module."""
    parser = commands.add_parser(
        "validate", help="an INT8 model against its FP32 original: agreement, curves, the gate"
    )
    parser.add_argument("fp32", type=Path, metavar="FP32", help="the original")
    parser.add_argument("int8", type=Path, metavar="INT8", help="what was made of it")
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="pictures to judge on; with a folder for each person the curves are judged too",
    )
    known = parser.add_mutually_exclusive_group()
    known.add_argument(
        "--calibration", type=Path, metavar="DIR", help="the calibration pictures: no overlap"
    )
    known.add_argument(
        "--record", type=Path, metavar="YAML", help="the same from a quantization_config.yaml"
    )
    add_no_identities(parser)
    add_aligned(parser)
    add_threads(parser)
    add_arithmetic(parser)
    add_feeding(parser)
    add_json(parser)
    parser.set_defaults(action=validate)


def validate(options: argparse.Namespace) -> int:
    """Judge the pair of models; 1, with the failing lines named, when the gate is not passed."""
    require_workshop()
    from kiosk.lab.agreement import agreement
    from kiosk.lab.comparison import embed, read_models
    from kiosk.lab.faces import pictures_of
    from kiosk.lab.gate import judge, not_judged, passes

    subjects = read_models(options.fp32, options.int8, feeding_of(options))
    pictures = pictures_of(options.images)
    checked = _check_overlap(options, pictures)
    embedded = embed(
        pictures,
        subjects,
        aligned=options.aligned,
        threads=options.threads,
        arithmetic=options.arithmetic,
    )
    found = agreement(*embedded.matrices)
    curves, why_not = _curves(options, embedded)
    rocs = (None, None) if curves is None else curves.rocs[:2]
    lines = judge(found, *rocs, why_no_roc=why_not, identities=not options.no_identities)
    if options.json:
        document: dict[str, object] = {"auc": None, "tar@1e-3": None, "tar@1e-4": None}
        document |= {} if curves is None else curves.document()
        document |= found.document()
        document |= {
            "passed": passes(lines),
            "not_judged": not_judged(lines),
            "identities": not options.no_identities,
            "gate": [line.document() for line in lines],
            "overlap_checked": checked,
            "skipped_in_curves": [] if curves is None else listed(curves.pairs.skipped),
            **origin(subjects, options.arithmetic, embedded.skipped),
        }
        say_json(document)
    else:
        tell_models(subjects, options.arithmetic)
        say(f"faces    {len(embedded.paths)} of {len(pictures)} pictures in {options.images}")
        tell_skipped(embedded.skipped)
        if len(embedded.paths) < _FEW_FACES:
            say(f"note     {_FEW_FACES} faces or more make a sound judgement")
        say("\n" + _agreement_table(found.document()))
        if curves is not None:
            tell_skipped(curves.pairs.skipped, "not in the curves:")
            say("\n" + _curves_table(curves))
        say("\n" + _gate_table(lines) + "\n")
        _tell_verdict(lines, checked=checked)
    return _end(lines)


def _check_overlap(options: argparse.Namespace, pictures: Sequence[Path]) -> bool:
    from kiosk.lab.calibrated import hashes_of_folder, hashes_of_record, refuse_overlap

    if options.calibration is not None:
        hashes = hashes_of_folder(options.calibration)
        refuse_overlap(pictures, hashes, options.calibration)
    elif options.record is not None:
        refuse_overlap(pictures, hashes_of_record(options.record), options.record)
    else:
        return False
    return True


def _curves(options: argparse.Namespace, embedded: Embedded) -> tuple[Study | None, str]:
    """The curves of both models over all pairs of the pictures, or None and why there are none."""
    from kiosk.lab.pairs import from_folders
    from kiosk.lab.study import study

    if options.no_identities:
        return None, ""
    try:
        pairs = from_folders(options.images).among(embedded.paths)
    except UserError as error:
        return None, f"no identities: {error.message}"
    return study(pairs, embedded.matrices), ""


def _agreement_table(figures: dict[str, float]) -> str:
    names = {
        "mean cosine": "mean_cosine",
        "p50 cosine": "p50_cosine",
        "p5 cosine": "p5_cosine",
        "p1 cosine": "p1_cosine",
        "min cosine": "min_cosine",
        "mean MAE of a face": "mean_mae",
        "largest MAE of a face": "max_mae",
        "largest error of a value": "max_absolute_error",
    }
    return table(("FP32 to INT8", ""), [(n, f"{figures[key]:.6f}") for n, key in names.items()])


def _curves_table(curves: Study) -> str:
    from kiosk.lab.study import figures

    before, after = (figures(roc) for roc in curves.rocs)
    rows = [
        (label(name), *("-" if v is None else f"{v:.6f}" for v in (value, after[name])))
        for name, value in before.items()
        if not name.startswith("threshold")
    ]
    head = f"{curves.rocs[0].genuine} genuine, {curves.rocs[0].impostors} impostor pairs"
    return table((head, "FP32", "INT8"), rows)


def _gate_table(lines: Sequence[Line]) -> str:
    verdicts = {True: "passes", False: "FAILS", None: "not judged"}
    rows = []
    for line in lines:
        verdict = verdicts[line.passed] if line.limit else "told only"
        verdict = "left out" if line.left_out else verdict
        note = "" if line.note == verdict else line.note
        rows.append((line.name, line.limit or "-", line.figure, verdict, note))
    return table(("gate", "limit", "got", "verdict", ""), rows)


def _tell_verdict(lines: Sequence[Line], *, checked: bool) -> None:
    from kiosk.lab.gate import passes, unjudged

    left = [line.name for line in unjudged(lines)]
    passed = passes(lines)
    verdict = "the gate is passed" if passed else "the gate is NOT passed"
    if left:
        verdict += " by cosine and MAE alone" if passed else ""
        verdict += f"; not judged: {', '.join(left)}"
    say(verdict)
    if not checked:
        say(f"note: {_UNCHECKED}")


def _end(lines: Sequence[Line]) -> int:
    from kiosk.lab.gate import failing, passes, shortfall

    if passes(lines):
        return 0
    verdict = "fails" if failing(lines) else "is not passed"
    hint = "" if failing(lines) else "; --no-identities judges cosine and MAE alone"
    complain(f"kiosk: the gate {verdict}: {shortfall(lines)}{hint}")
    return 1
