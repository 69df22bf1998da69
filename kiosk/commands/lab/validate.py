"""`kiosk lab validate`: does a quantised model pass the gate, on faces it was not fitted to?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
from kiosk.commands.lab.telling import (
    label,
    listed,
    origin,
    tell_advice,
    tell_models,
    tell_skipped,
)
from kiosk.errors import UserError

if TYPE_CHECKING:
    from kiosk.lab.advice import Advice, LayerError
    from kiosk.lab.agreement import Agreement
    from kiosk.lab.calibrated import Calibrated
    from kiosk.lab.comparison import Embedded
    from kiosk.lab.gate import Line
    from kiosk.lab.study import Study
    from kiosk.lab.subject import Subject

# Enough to tell which layers hurt; each costs a run of the whole graph for every layer.
_LAYER_FACES = 4


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
    from kiosk.lab.gate import judge, weights_line
    from kiosk.lab.subject import unfit_weights

    subjects = read_models(options.fp32, options.int8, feeding_of(options))
    pictures = pictures_of(options.images)
    calibrated = _calibrated(options, pictures, subjects[1])
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
    lines += weights_line(unfit_weights(subjects[1]))
    advice = _advice(options, subjects, embedded, lines, calibrated)
    judged = _Judged(options, subjects, embedded, found, curves, lines, advice, len(pictures))
    if options.json:
        say_json(judged.document() | {"overlap_checked": calibrated is not None})
    else:
        judged.tell()
    return _end(lines)


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    options: argparse.Namespace
    subjects: Sequence[Subject]
    embedded: Embedded
    found: Agreement
    curves: Study | None
    lines: Sequence[Line]
    advice: Sequence[Advice]
    pictures: int

    def document(self) -> dict[str, object]:
        from kiosk.lab.gate import not_judged, passes

        document: dict[str, object] = {"auc": None, "tar@1e-3": None, "tar@1e-4": None}
        document |= {} if self.curves is None else self.curves.document()
        skipped = [] if self.curves is None else listed(self.curves.pairs.skipped)
        return {
            **document,
            **self.found.document(),
            "passed": passes(self.lines),
            "quantised": self.subjects[1].is_quantised,
            "not_judged": not_judged(self.lines),
            "identities": not self.options.no_identities,
            "gate": [line.document() for line in self.lines],
            "skipped_in_curves": skipped,
            "advice": [asdict(each) for each in self.advice],
            **origin(self.subjects, self.options.arithmetic, self.embedded.skipped),
        }

    def tell(self) -> None:
        tell_models(self.subjects, self.options.arithmetic)
        if not self.subjects[1].is_quantised:
            what = "the same file" if len({s.sha256 for s in self.subjects}) == 1 else "FP32 files"
            say(f"note     {what} twice: neither is INT8, so nothing quantised is judged")
        faces = len(self.embedded.paths)
        say(f"faces    {faces} of {self.pictures} pictures in {self.options.images}")
        tell_skipped(self.embedded.skipped)
        say("\n" + _agreement_table(self.found.document()))
        if self.curves is not None:
            tell_skipped(self.curves.pairs.skipped, "not in the curves:")
            say("\n" + _curves_table(self.curves))
        say("\n" + _gate_table(self.lines) + "\n")
        _tell_verdict(self.lines)
        tell_advice(self.advice)


def _calibrated(
    options: argparse.Namespace, pictures: Sequence[Path], int8: Subject
) -> Calibrated | None:
    """What calibration has seen, None when that was not given.

    UserError when one of the pictures is among it, or the record is another file's.
    """
    from kiosk.lab.calibrated import Calibrated, hashes_of_folder, of_record, refuse_overlap

    if options.calibration is not None:
        source, seen = options.calibration, Calibrated(hashes_of_folder(options.calibration))
    elif options.record is not None:
        source, seen = options.record, of_record(options.record, int8.path, int8.sha256)
    else:
        return None
    refuse_overlap(pictures, seen.hashes, source)
    return seen


def _advice(
    options: argparse.Namespace,
    subjects: Sequence[Subject],
    embedded: Embedded,
    lines: Sequence[Line],
    calibrated: Calibrated | None,
) -> Sequence[Advice]:
    from kiosk.lab.advice import advise
    from kiosk.lab.faces import read_files
    from kiosk.lab.gate import failing
    from kiosk.lab.grounds import graph_facts, layers_of
    from kiosk.lab.margin import gate_lines
    from kiosk.lab.runner import inputs_of

    fp32, int8 = subjects
    layers: Sequence[LayerError] = ()
    if failing(lines) and int8.is_quantised:
        some = embedded.paths[:: max(1, len(embedded.paths) // _LAYER_FACES)][:_LAYER_FACES]
        faces = read_files(options.images, some, aligned=options.aligned).faces
        layers = layers_of(fp32, int8.proto, inputs_of(faces, fp32.input))
    return advise(
        replace(
            # What the CPU does to the figures is told with the machine.
            graph_facts(int8.proto),
            calibration_faces=None if calibrated is None else len(calibrated.hashes),
            calibration_people=None if calibrated is None else calibrated.people,
            calibration_method=None if calibrated is None else calibrated.method,
            holdout_faces=len(embedded.paths),
            overlap_checked=calibrated is not None,
            gate=gate_lines(lines),
            cosine_mean=next(line.got for line in lines if line.name == "mean cosine"),
            layers=tuple(layers),
            bytes_fp32=fp32.path.stat().st_size if int8.is_quantised else None,
            bytes_int8=int8.path.stat().st_size,
        )
    )


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


def _tell_verdict(lines: Sequence[Line]) -> None:
    from kiosk.lab.gate import passes, unjudged

    left = [line.name for line in unjudged(lines)]
    passed = passes(lines)
    verdict = "the gate is passed" if passed else "the gate is NOT passed"
    if left:
        verdict += " by cosine and MAE alone" if passed else ""
        verdict += f"; not judged: {', '.join(left)}"
    say(verdict)


def _end(lines: Sequence[Line]) -> int:
    from kiosk.lab.gate import failing, passes, shortfall

    if passes(lines):
        return 0
    verdict = "fails" if failing(lines) else "is not passed"
    hint = "" if failing(lines) else "; --no-identities judges cosine and MAE alone"
    complain(f"kiosk: the gate {verdict}: {shortfall(lines)}{hint}")
    return 1
