"""The plain path: one recipe, one file, for any size of model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from kiosk.errors import UserError
from kiosk.lab.advice import Advice, advise
from kiosk.lab.calibrate import write_ranges
from kiosk.lab.faces import FaceSet, Skipped, read_folder
from kiosk.lab.files import write_model
from kiosk.lab.grounds import graph_facts
from kiosk.lab.identities import Identities
from kiosk.lab.prelu import PART
from kiosk.lab.prepare import base_of, ready
from kiosk.lab.progress import say
from kiosk.lab.quantise import Recipe, in_int8, preprocessed, quantised, size_of
from kiosk.lab.runner import inputs_of
from kiosk.lab.subject import Subject
from kiosk.types import FloatArray
from kiosk.vision.cpu import read_cpu


@dataclass(frozen=True, slots=True)
class Done:
    """What came out: layers in 8 bits and in all, bytes, faces used and files skipped."""

    int8: int
    layers: int
    bytes: int
    source_bytes: int
    faces: int
    skipped: tuple[Skipped, ...]
    advice: tuple[Advice, ...]

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        skipped = [{"file": str(s.path), "reason": s.reason} for s in self.skipped]
        return {**asdict(self), "skipped": skipped}


def quantise_file(
    subject: Subject,
    out: Path,
    recipe: Recipe,
    *,
    calibration: Path | None,
    aligned: bool,
    samples: int | None,
    as_it_is: bool,
) -> Done:
    """Quantise one file by one recipe.

    Raises UserError for a folder without faces, ModelError when the quantiser or the runtime
    refuses, KioskError when the file cannot be written.
    """
    faces = None
    if recipe.method == "static" and calibration is not None:
        faces = read_folder(calibration, aligned=aligned, samples=samples)
    model = ready(subject) if as_it_is else preprocessed(base_of(subject))
    _check_excluded(model, recipe)
    inputs = inputs_of(faces.faces, subject.input) if faces else [_noise(subject)]
    with tempfile.TemporaryDirectory() as scratch:
        ranges = None
        if faces is not None:
            ranges = Path(scratch) / "ranges.json"
            write_ranges(
                model,
                inputs,
                ranges,
                method=recipe.calibration,
                percentile=recipe.percentile,
                op_types=recipe.op_types,
            )
        say("quantising")
        result = quantised(model, recipe, ranges)
    data = write_model(out, result, inputs[:2])
    eight, layers = in_int8(result)
    return Done(
        int8=eight,
        layers=layers,
        bytes=len(data),
        source_bytes=size_of(subject.proto),
        faces=len(faces.faces) if faces else 0,
        skipped=faces.skipped if faces else (),
        advice=_advice(result, faces, subject),
    )


def _check_excluded(model: onnx.ModelProto, recipe: Recipe) -> None:
    names = {node.name for node in model.graph.node}
    unknown = [name for name in recipe.exclude if name not in names]
    if unknown:
        raise UserError(
            f"--exclude: names of nodes expected, {unknown[0]!r} is none"
            f" ({PART}... and folded nodes exist only after a rewrite)",
            hint=f"such as {', '.join(sorted(names)[:3])}",
        )


def _noise(subject: Subject) -> FloatArray:
    """Something to run a model on that was quantised without a face."""
    spec = subject.input
    picture: Sequence[int] = (3, spec.height, spec.width)
    if spec.layout == "NHWC":
        picture = (spec.height, spec.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (spec.batch or 1, *picture))
    values: FloatArray = ((pixels - spec.mean) * spec.scale).astype(np.float32)
    return values


def _advice(model: onnx.ModelProto, faces: FaceSet | None, subject: Subject) -> tuple[Advice, ...]:
    facts = replace(
        graph_facts(model, read_cpu()),
        bytes_fp32=size_of(subject.proto),
        bytes_int8=size_of(model),
    )
    if faces is not None:
        facts = replace(
            facts,
            calibration_faces=len(faces.faces),
            calibration_people=Identities.of(faces.faces).count(),
        )
    return advise(facts)
