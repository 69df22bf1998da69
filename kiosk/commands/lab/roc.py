"""`kiosk lab roc`: verification figures of one model, or of two side by side, over pairs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kiosk.commands.console import DEFAULT_CONFIG, add_json, say, say_json, table
from kiosk.commands.lab.options import (
    add_aligned,
    add_arithmetic,
    add_feeding,
    add_state,
    add_threads,
    feeding_of,
    known_models,
    model_file,
    require_workshop,
)
from kiosk.commands.lab.telling import label, origin, tell_models, tell_skipped
from kiosk.commands.lab.threshold import check_wish, set_threshold, tell_set
from kiosk.errors import UserError

if TYPE_CHECKING:
    from kiosk.lab.bootstrap import Interval
    from kiosk.lab.pairs import Pairs
    from kiosk.lab.study import Study

_FEW_PEOPLE = 20
_MOST_RESAMPLES = 100_000


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command of this module."""
    parser = commands.add_parser(
        "roc",
        help="AUC, EER, TAR at a FAR, thresholds, over pairs of pictures",
        description="A pair is accepted when its cosine is at or above the threshold.",
    )
    parser.add_argument("fp32", type=Path, metavar="FP32", help="a file, or the id of a model")
    parser.add_argument(
        "int8", type=Path, nargs="?", metavar="INT8", help="another one, to compare with it"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--pairs",
        type=Path,
        metavar="CSV",
        help="rows of two paths, from the CSV's own folder, and a label (1/0, same/different);"
        " a header may stand above",
    )
    source.add_argument("--lfw", type=Path, metavar="TXT", help="LFW's pairs.txt, with --images")
    source.add_argument(
        "--folders", type=Path, metavar="DIR", help="a folder for each person: all pairs"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="LFW's pictures")
    parser.add_argument(
        "--f2", action="store_true", help="also with one and both sides as F2 tokens"
    )
    parser.add_argument("--far", type=_rate, metavar="X", help="the threshold for this FAR")
    parser.add_argument(
        "--set-threshold",
        metavar="ID",
        help="let a model that `kiosk models add` added go by the upper bound for --far",
    )
    parser.add_argument(
        "--resamples", type=_count, default=1000, metavar="N", help="bootstrap; 0: no intervals"
    )
    parser.add_argument(
        "--seed", type=_count, default=0, metavar="N", help="of the bootstrap; default: 0"
    )
    add_aligned(parser)
    add_threads(parser)
    add_arithmetic(parser)
    add_state(parser)
    add_feeding(parser)
    add_json(parser)
    parser.set_defaults(action=roc)


def _rate(text: str) -> float:
    value = float(text)
    if not 1e-9 <= value < 1:
        raise argparse.ArgumentTypeError(f"a rate of 1e-9 to below 1 expected, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _MOST_RESAMPLES:
        raise argparse.ArgumentTypeError(f"0 to {_MOST_RESAMPLES} expected, got {text}")
    return value


def roc(options: argparse.Namespace) -> int:
    """Measure and tell."""
    require_workshop()
    from kiosk.lab.comparison import embed, read_models
    from kiosk.lab.roc import FARS
    from kiosk.lab.study import study
    from kiosk.lab.subject import require_fit

    pairs = _pairs(options)
    if options.set_threshold and options.config is None and options.state_dir is None:
        options.config = DEFAULT_CONFIG
    manifest = known_models(options)
    int8 = None if options.int8 is None else model_file(options.int8, manifest)
    fp32 = model_file(options.fp32, manifest)
    subjects = read_models(fp32, int8, feeding_of(options), manifest)
    for subject in subjects:
        require_fit(subject)
    if options.set_threshold:
        check_wish(options, subjects, pairs)
    embedded = embed(
        pairs.pictures,
        subjects,
        aligned=options.aligned,
        threads=options.threads,
        arithmetic=options.arithmetic,
    )
    extra = () if options.far is None else (options.far,)
    found = study(
        pairs.among(embedded.paths),
        embedded.matrices,
        fars=sorted({*FARS, *extra}, reverse=True),
        resamples=options.resamples,
        seed=options.seed,
        tokens=options.f2,
    )
    skipped = (*pairs.skipped, *embedded.skipped)
    new = set_threshold(options, subjects, found) if options.set_threshold else None
    if options.json:
        document = found.document()
        document["pairs_left_out"] = len(pairs) - len(found.pairs)
        document["pairs_repeated"] = pairs.repeated
        if options.far is not None:
            document["wanted"] = _wanted_document(found, options.far)
        if new is not None:
            document["set"] = new
        say_json(document | origin(subjects, options.arithmetic, skipped))
        return 0
    tell_models(subjects, options.arithmetic)
    _tell_pairs(found, pairs)
    tell_skipped(skipped)
    say("\n" + _figures_table(found))
    _tell_notes(found)
    if options.far is not None:
        _tell_wanted(found, options.far)
    if options.f2:
        _tell_tokens(found)
    if new is not None:
        tell_set(new)
    return 0


def _pairs(options: argparse.Namespace) -> Pairs:
    from kiosk.lab.pairs import from_csv, from_folders, from_lfw

    if options.images is not None and options.lfw is None:
        raise UserError(
            "--images: --lfw TXT expected with it, got another source of pairs",
            hint="leave it out: paths in a CSV are absolute, or from the CSV's own folder",
        )
    if options.lfw is not None and options.images is None:
        raise UserError("--lfw: --images DIR expected with it, the folder of LFW's pictures")
    if options.lfw is not None:
        return from_lfw(options.lfw, options.images)
    return from_csv(options.pairs) if options.pairs is not None else from_folders(options.folders)


def _wanted_document(found: Study, far: float) -> list[dict[str, object]]:
    from dataclasses import asdict

    return [asdict(found.wanted(far, model)) for model in range(len(found.rocs))]


def _tell_pairs(found: Study, asked: Pairs) -> None:
    first = found.rocs[0]
    out = len(asked) - len(found.pairs)
    say(
        f"pairs    {first.genuine} genuine, {first.impostors} impostor,"
        f" of {len(found.pictures)} pictures"
        + (f"; {out} pairs left out" if out else "")
        + (f"; {asked.repeated} repeated pairs counted once" if asked.repeated else "")
    )


def _figures_table(found: Study) -> str:
    from kiosk.lab.study import drops, figures

    by_model = [figures(measured) for measured in found.rocs]
    lost = drops(*found.rocs) if len(by_model) == 2 else {}
    rows = []
    for name in by_model[0]:
        cells = [label(name)]
        for model, values in enumerate(by_model):
            cells += [_cell(name, values[name]), _range(found.interval(name, model))]
        if lost:
            span = _range(found.drop_interval(name)) if name in lost else ""
            cells += [_cell("drop", lost[name]) if name in lost else "", span]
        rows.append(cells)
    heads = ["", "FP32", "95 %"]
    heads += ["INT8", "95 %", "drop", "95 %"] if len(by_model) == 2 else []
    return table(heads, rows)


def _cell(name: str, value: float | None) -> str:
    from kiosk.lab.roc import rounded_up

    if value is None:
        return "-"
    return f"{rounded_up(value) if name.startswith('threshold') else value:.6f}"


def _points(loss: float | None) -> str:
    # Adding 0 turns a minus zero into a plain one.
    return "-" if loss is None else f"{round(loss, 4) + 0.0:.4f}"


def _range(span: Interval | None) -> str:
    return "-" if span is None else f"{span[0]:.5f} to {span[1]:.5f}"


def _tell_notes(found: Study) -> None:
    from kiosk.lab.roc import far_name

    first = found.rocs[0]
    for point in first.operating:
        if point.tar is None:
            say(
                f"FAR {far_name(point.wanted_far)} is not resolvable:"
                f" {point.impostors_needed} impostor pairs needed, {first.impostors} here"
            )
    if first.accuracy is None:
        say("accuracy: not told, too few pairs to be split into ten")
    elif first.accuracy.given:
        say(
            f"accuracy: mean of the {len(first.accuracy.by_fold)} folds given,"
            " each at the threshold that is best on the others, standard error"
            f" {first.accuracy.standard_error:.6f}"
        )
    else:
        say(
            "accuracy: mean of TAR and 1 - FAR over ten folds; the pairs have none, so these are a"
            f" seeded split of the pairs, standard error {first.accuracy.standard_error:.6f}"
        )
    if found.boot is not None:
        say(
            f"95 %: {found.boot.resamples} resamples, {found.boot.unit} drawn of {found.boot.units}"
        )
        if found.boot.unit == "pairs":
            say("95 %: too narrow where a face stands in several pairs; who is who is not known")
        elif found.boot.units < _FEW_PEOPLE:
            say(f"95 %: rough, {_FEW_PEOPLE} people or more make a sound interval")


def _tell_wanted(found: Study, far: float) -> None:
    from kiosk.lab.roc import far_name

    for model, name in enumerate(("FP32", "INT8")[: len(found.rocs)]):
        wanted = found.wanted(far, model)
        if wanted.threshold is None or wanted.tar is None:
            say(
                f"{name}: no threshold for FAR {far_name(far)}: {wanted.impostors_needed} impostor"
                f" pairs needed, {found.rocs[model].impostors} here"
            )
            continue
        text = (
            f"{name}: FAR {far_name(far)} at threshold {_cell('threshold', wanted.threshold)},"
            f" TAR {wanted.tar:.6f}"
        )
        if wanted.upper is not None and wanted.tar_at_upper is not None:
            text += (
                f"; upper 95 % bound {_cell('threshold', wanted.upper)},"
                f" TAR {wanted.tar_at_upper:.6f}"
            )
        say(text)


def _tell_tokens(found: Study) -> None:
    from kiosk.lab.study import MOST_TOKEN_LOSS_PP, figures, losses_pp

    for model, name in enumerate(("FP32", "INT8")[: len(found.rocs)]):
        plain, tokens = found.rocs[model], found.tokens[model]
        sides = (tokens.one_side, tokens.both_sides)
        values = [figures(measured) for measured in (plain, *sides)]
        losses = [losses_pp(plain, side) for side in sides]
        rows = [
            [
                label(figure),
                *(_cell(figure, each[figure]) for each in values),
                *(_points(each[figure]) for each in losses),
            ]
            for figure in losses[0]
        ]
        heads = (f"{name}, F2 tokens", "none", "one side", "both", "loss pp, one", "loss pp, both")
        say("\n" + table(heads, rows))
        worst = found.worst_token_loss(model)
        verdict = "holds" if worst < MOST_TOKEN_LOSS_PP else "does NOT hold"
        say(
            f"matching loss: {worst:.4f} pp at most in AUC, TAR@1e-3 and accuracy; the limit of"
            f" {MOST_TOKEN_LOSS_PP} pp {verdict}"
        )
