"""What a build leaves beside its files: the record, the ranges, the report and its figures."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kiosk.lab import machine
from kiosk.lab.build import Built, Made, Validation, write_files
from kiosk.lab.earlier import Aside, models_of, set_aside
from kiosk.lab.figures import report_data
from kiosk.lab.files import staged, write_bytes
from kiosk.lab.gate import failing, not_judged, passes
from kiosk.lab.identities import Identities
from kiosk.lab.quantise import recipe_ranges_name
from kiosk.lab.record import CONFIG_NAME, RANGES_NAME, as_yaml, ranges_document, versions
from kiosk.lab.report import render
from kiosk.lab.report_data import as_json
from kiosk.lab.roc import FARS, far_name

REPORT_NAME, DATA_NAME = "report.html", "report_data.json"
_TYPES = {"S8": "INT8", "U8": "UINT8"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The record of a build, and what was set aside of an earlier one, None for nothing."""

    document: dict[str, Any]
    aside: Aside | None


def write_outcome(built: Built) -> Outcome:
    """Write models, record, ranges, report and figures into the build's folder.

    Without a variant that passes there is no model and no record, only the report. What an
    earlier build left there and this one does not replace is set aside. KioskError when the
    folder cannot be written.
    """
    request, aside = built.request, None
    beside = (CONFIG_NAME, RANGES_NAME, DATA_NAME, REPORT_NAME)

    def make_way(new: Collection[str]) -> None:
        nonlocal aside
        models = models_of(request.out, request.name, request.subject.path)
        aside = set_aside(request.out, models, beside, new)

    with staged(request.out, last=CONFIG_NAME, before=make_way) as folder:
        document = _write(built, folder)
    return Outcome(document, aside)


def _write(built: Built, out: Path) -> dict[str, Any]:
    document: dict[str, Any] = {"quantized_model": None, "judged": _judged(built)}
    if built.chosen is not None:
        write_files(built, out)
        plans = tuple(made.plan for made in built.variants if made.plan is not None)
        beside = ranges_document(built.found.factors, plans, built.ranges)
        document = record_document(built, built.chosen, hashlib.sha256(beside).hexdigest())
        write_bytes(out / RANGES_NAME, beside)
        write_bytes(out / CONFIG_NAME, as_yaml(document))
    data = report_data(built)
    write_bytes(out / DATA_NAME, as_json(data))
    write_bytes(out / REPORT_NAME, render(data).encode("utf-8"))
    return document


def record_document(built: Built, chosen: Made, ranges_sha256: str) -> dict[str, Any]:
    """The record: the guide's keys for the chosen file, then all that remakes every file."""
    request, subject = built.request, built.request.subject
    plan = chosen.plan
    assert plan is not None  # noqa: S101 - only FP32 has none, and it is never chosen
    calibration = request.calibration
    return {
        "model": subject.path.name,
        "quantized_model": chosen.file,
        "quantization": {
            "method": plan.recipe.method,
            "format": "QDQ" if plan.form == "qdq" else "integer operators, NHWC",
            "weight_type": _TYPES[plan.recipe.weights],
            "activation_type": _TYPES[plan.recipe.activations],
            "per_channel": plan.recipe.per_channel,
            "layers_int8": chosen.int8,
            "layers": chosen.layers,
        },
        "calibration": {
            "num_samples": len(calibration.faces),
            "dataset": calibration.folder.name,
            "people": Identities.of(calibration.faces).count(),
            "method": plan.recipe.calibration,
            "percentile": plan.recipe.percentile,
            "digest": calibration.digest,
            "files": sorted(face.sha256 for face in calibration.faces),
        },
        "validation": _validation(built, chosen.validation),
        "performance": _performance(built, chosen),
        "source": {
            "file": subject.path.name,
            "sha256": subject.sha256,
            "opset": subject.opset,
            "channels": subject.input.channels,
            "mean": subject.input.mean,
            "scale": subject.input.scale,
            "layout": subject.input.layout,
        },
        "files": [_float_file(built), *(_int8_file(built, made) for made in built.passing())],
        "ranges": {"file": RANGES_NAME, "sha256": ranges_sha256},
        "tries": [_tried_document(tried) for tried in built.found.tries],
        "judged": _judged(built),
        "versions": versions(),
        "machine": dict(machine.describe()),
    }


def _float_file(built: Built) -> dict[str, Any]:
    made = built.fp32
    return {
        "file": made.file,
        "sha256": made.sha256,
        "bytes": len(made.data),
        "form": made.form,
        "best_ms": round(built.best_ms(made), 3),
    }


def _int8_file(built: Built, made: Made) -> dict[str, Any]:
    plan = made.plan
    assert plan is not None  # noqa: S101 - only FP32 and the naive recipe have none
    return {
        "file": made.file,
        "sha256": made.sha256,
        "bytes": len(made.data),
        "form": made.form,
        "recipe": plan.recipe.document(),
        "biases_corrected": bool(plan.corrections),
        "ranges": recipe_ranges_name(plan.recipe),
        "layers_int8": made.int8,
        "layers": made.layers,
        "validation": _validation(built, made.validation),
        "native": _agreed(made.native),
        "performance": _performance(built, made),
    }


def _validation(built: Built, judged: Validation | None) -> dict[str, Any]:
    if judged is None:
        return {}
    document: dict[str, Any] = {
        "test_samples": judged.agreed.faces,
        "dataset": built.request.holdout.folder.name,
        "digest": built.request.holdout.digest,
        "arithmetic": "reference",
        "passed": judged.passed,
        "not_judged": not_judged(judged.lines),
        **_agreed(judged),
    }
    if judged.roc is not None and built.source_roc is not None:
        document["auc_fp32"] = built.source_roc.auc
        document["auc_int8"] = judged.roc.auc
        document["auc_difference"] = built.source_roc.auc - judged.roc.auc
        for far in FARS:
            document[f"tar_fp32@{far_name(far)}"] = built.source_roc.at(far).tar
            document[f"tar_int8@{far_name(far)}"] = judged.roc.at(far).tar
    return document


def _judged(built: Built) -> list[dict[str, Any]]:
    """Every form that was judged on held-out faces, the ones that fail too, and on which line."""
    return [
        {
            "file": made.file,
            "passed": passes(made.lines),
            "failing": [
                {"line": line.name, "limit": line.limit, "got": line.got}
                for line in failing(made.lines)
            ],
            "not_judged": not_judged(made.lines),
            **_agreed(made.validation),
            "best_ms": round(built.best_ms(made), 3),
        }
        for made in (built.naive, *built.variants)
    ]


def _agreed(judged: Validation | None) -> dict[str, float]:
    if judged is None:
        return {}
    agreed = judged.agreed
    return {
        "mean_similarity": agreed.mean_cosine,
        "min_similarity": agreed.min_cosine,
        "mean_mae": agreed.mean_mae,
        "max_mae": agreed.max_mae,
        "max_absolute_error": agreed.max_absolute_error,
    }


def _performance(built: Built, made: Made) -> dict[str, Any]:
    source = built.request.subject
    fp32 = built.source_ms()
    int8 = built.best_ms(made)
    size = source.path.stat().st_size
    return {
        "inference_time_fp32": f"{fp32:.2f}ms",
        "inference_time_int8": f"{int8:.2f}ms",
        "inference_time_fp32_rewritten": f"{built.best_ms(built.fp32):.2f}ms",
        "speedup": f"{built.fastest_fp32_ms() / int8:.2f}x",
        "speedup_over_file_given": f"{fp32 / int8:.2f}x",
        "model_size_reduction": f"{100 * (1 - len(made.data) / size):.1f}%",
        "threads": 1,
    }


def _tried_document(tried: Any) -> dict[str, Any]:
    return {
        "name": tried.name,
        "layers_int8": tried.int8,
        "layers": tried.layers,
        "mean_similarity": round(tried.score.mean, 6),
        "min_similarity": round(tried.score.least, 6),
        "tar_drop": None if tried.score.tar_drop is None else round(tried.score.tar_drop, 6),
    }
