"""The report's figures, taken from what a build found out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from kiosk.lab import machine
from kiosk.lab.advice import Advice, Facts, LayerError, advise
from kiosk.lab.agreement import cosines_of
from kiosk.lab.build import NAIVE, Built, Made
from kiosk.lab.gate import JUDGED_FAR, shortfall, unjudged
from kiosk.lab.identities import Identities
from kiosk.lab.margin import GateLine, gate_lines
from kiosk.lab.record import versions
from kiosk.lab.report_data import (
    Curve,
    Entry,
    Judged,
    Layer,
    Layers,
    Record,
    ReportData,
    Role,
    Tar,
    Try,
    agreement_of,
    similarity_of,
    thinned,
)
from kiosk.lab.roc import FARS, Roc
from kiosk.vision.cpu import read_cpu

_LEAST_EDGE, _BINS = 0.975, 50


def report_data(built: Built) -> ReportData:
    """The figures of the report: the chosen variant, or the best where none passes."""
    best = _best(built)
    request, judged = built.request, best.validation
    this = machine.describe()
    gate = gate_lines(best.lines)
    people = Identities.of(request.holdout.faces)
    edges = cosine_edges(judged.agreed.min_cosine if judged else 1.0)
    shown: list[tuple[str, Role, Any, Roc | None]] = [
        ("FP32", "fp32", built.source_matrix, built.source_roc)
    ]
    for name, role, made in (("INT8", "int8", best), (NAIVE, "naive", built.naive)):
        if made.validation is not None:
            role_: Role = "int8" if role == "int8" else "naive"
            shown.append((name, role_, made.validation.matrix, made.validation.roc))
    return ReportData(
        model=best.file,
        against=request.subject.path.name,
        judged=Judged("reference", machine.title(this), this["saturates"]),
        summary=_summary(built, best),
        calibration_faces=len(request.calibration.faces),
        holdout_faces=len(request.holdout.faces),
        genuine_pairs=built.source_roc.genuine if built.source_roc else None,
        impostor_pairs=built.source_roc.impostors if built.source_roc else None,
        bytes_fp32=request.subject.path.stat().st_size,
        bytes_int8=len(best.data),
        int8_layers=best.int8,
        layers_total=best.layers,
        gate=gate,
        not_judged=tuple(Entry(x.name, x.note) for x in unjudged(best.lines)),
        curves=tuple(_curve(name, role, roc) for name, role, _, roc in shown if roc is not None),
        similarities=tuple(
            similarity_of(name, role, scores[same], scores[~same])
            for name, role, matrix, roc in shown
            if roc is not None
            for scores, same in [people.scored(matrix)]
        ),
        agreements=tuple(
            agreement_of(name, role, cosines_of(built.source_matrix, matrix), edges)
            for name, role, matrix, _ in shown[1:]
        ),
        layers=_layers(built, best),
        profile=built.profile,
        tries=_tries(built),
        tar_far=JUDGED_FAR,
        advice=_advice(built, best, gate),
        records=_records(built),
    )


def advice_of(built: Built) -> tuple[Advice, ...]:
    """The advice of the report."""
    best = _best(built)
    return _advice(built, best, gate_lines(best.lines))


def _best(built: Built) -> Made:
    return built.chosen or max(
        built.variants,
        key=lambda made: made.validation.agreed.mean_cosine if made.validation else 0,
    )


def cosine_edges(least: float) -> tuple[float, ...]:
    """Edges of the histogram of cosines to FP32: all of the judged model lies between them."""
    start = min(_LEAST_EDGE, np.floor(least * 40) / 40)
    return tuple(float(f"{edge:.5f}") for edge in np.linspace(start, 1.0, _BINS + 1))


def _summary(built: Built, best: Made) -> str:
    words = f"{best.int8} of {best.layers} layers in 8 bits"
    if built.chosen is None:
        return f"{words}; no variant passes the gate."
    source = built.source_ms()
    return (
        f"{words}, {built.best_ms(best):.2f} ms on one thread where the file given takes"
        f" {source:.2f} ms and its fastest exact rewrite {built.best_ms(built.fp32):.2f} ms."
    )


def _curve(name: str, role: Role, roc: Roc) -> Curve:
    far, tar = thinned([float(f) for f in roc.sweep.far], [float(t) for t in roc.sweep.tar])
    tars = [(each, roc.at(each).tar) for each in FARS]
    return Curve(
        name,
        role,
        far,
        tar,
        roc.auc,
        roc.eer,
        None if roc.accuracy is None else roc.accuracy.mean,
        tars=tuple(Tar(each, got) for each, got in tars if got is not None),
    )


def _layers(built: Built, best: Made) -> Layers:
    errors = {error.name: error.error for error in built.found.layers}
    kept = set(best.plan.recipe.exclude) if best.plan else set()
    model = onnx.load_model_from_string(built.fp32.data)
    order = [node for node in model.graph.node if node.name in errors]
    rows = tuple(Layer(n.name, _kind(n), errors[n.name], n.name in kept) for n in order)
    return Layers("1 − mean cosine to FP32 with this layer alone in 8 bits", rows)


def _kind(node: onnx.NodeProto) -> str:
    if node.op_type != "Conv":
        return node.op_type
    size = next(
        ("x".join(map(str, a.ints)) for a in node.attribute if a.name == "kernel_shape"), ""
    )
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    return f"{size} depthwise" if group > 1 else size


def _tries(built: Built) -> tuple[Try, ...]:
    final = [built.naive, *built.variants]
    ends = [
        Try(
            made.file,
            made.int8,
            made.layers,
            made.validation.agreed.mean_cosine if made.validation else None,
            made.validation.agreed.min_cosine if made.validation else None,
            made.validation.roc.at(JUDGED_FAR).tar
            if made.validation and made.validation.roc
            else None,
            built.best_ms(made),
            len(made.data),
            made.validation.passed if made.validation else None,
            made is built.chosen,
            "held-out faces",
            shortfall(made.lines),
        )
        for made in final
    ]
    searched = [
        Try(t.name, t.int8, t.layers, t.score.mean, t.score.least, note="search, tuning faces")
        for t in built.found.tries
    ]
    return (*ends, *searched)


def _advice(built: Built, best: Made, gate: tuple[GateLine, ...]) -> tuple[Advice, ...]:
    request, cpu, plan = built.request, read_cpu(), best.plan
    agreed = best.validation.agreed if best.validation else None
    return advise(
        Facts(
            calibration_faces=len(request.calibration.faces),
            calibration_people=Identities.of(request.calibration.faces).count(),
            holdout_faces=len(request.holdout.faces),
            gate=gate,
            cosine_mean=agreed.mean_cosine if agreed else None,
            method="static",
            per_channel=plan.recipe.per_channel if plan else None,
            calibration_method=plan.recipe.calibration if plan else None,
            latency_fp32_ms=built.fastest_fp32_ms(),
            prelu_rewritten=True,
            latency_int8_ms=built.best_ms(best),
            layers=tuple(
                LayerError(row.name, row.error, not row.kept_fp32)
                for row in _layers(built, best).rows
            ),
            architecture=cpu.machine,
            saturates=cpu.saturates,
            dot_product=cpu.has_dot_product,
            bytes_fp32=request.subject.path.stat().st_size,
            bytes_int8=len(best.data),
        )
    )


def _records(built: Built) -> tuple[Record, ...]:
    request = built.request
    files = [Entry(made.file, made.sha256) for made in (built.fp32, *built.passing())]
    sets = [
        Entry(f"{what}: {len(faces.faces)} faces", faces.digest)
        for what, faces in (("calibration", request.calibration), ("held out", request.holdout))
    ]
    gave_none = [each for faces in (request.calibration, request.holdout) for each in faces.skipped]
    skipped = [Entry(f"skipped: {each.path.name}", each.reason) for each in gave_none]
    # Without a person's folder at all every face is one: the gate says that once.
    if request.identities:
        pairless = Identities.of(request.holdout.faces).skipped.values()
        skipped += [Entry(f"in no pair: {each.path.name}", each.reason) for each in pairless]
    source = Entry(request.subject.path.name, request.subject.sha256)
    return (
        Record("Files, SHA-256", (source, *files)),
        Record("Pictures, SHA-256 over their own", (*sets, *skipped)),
        Record("Versions", tuple(Entry(name, value) for name, value in versions().items())),
        Record("Machine", (Entry("processor", machine.title(machine.describe())),)),
    )
