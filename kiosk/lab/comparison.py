"""One or two models over the same pictures: whether they go together, and their embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kiosk.errors import PictureError, UserError
from kiosk.lab.faces import Face, Skipped, crop_reader
from kiosk.lab.machine import describe, has_integer_kernels, remark
from kiosk.lab.progress import track
from kiosk.lab.runner import Arithmetic, embeddings, inputs_of, session_of
from kiosk.lab.subject import Feeding, Subject, read_subject
from kiosk.types import FloatArray
from kiosk.vision.manifest import InputSpec, Manifest
from kiosk.wire import f2

_CHUNK = 32
_NO_DIGEST = ""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """`matrices` has one of unit rows (paths, dim) for each model, in the order of `paths`."""

    paths: tuple[Path, ...]
    matrices: tuple[FloatArray, ...]
    skipped: tuple[Skipped, ...]


def read_models(
    fp32: Path, int8: Path | None, feeding: Feeding | None, manifest: Manifest | None = None
) -> tuple[Subject, ...]:
    """The model, or both of them, fed alike.

    The manifest is the shipped one unless another is given. An INT8 file that it does not know is
    fed as its FP32 original. Raises UserError that names both for two dimensions or two ways of
    feeding, and for a quantised FP32 before a plain INT8.
    """
    first = read_subject(fp32, feeding, manifest)
    if int8 is None:
        return (first,)
    given = first.input
    second = read_subject(int8, Feeding(given.channels, given.mean, given.scale), manifest)
    if first.dim != second.dim:
        raise UserError(
            f"two models of one dimension expected, {fp32} gives {first.dim} values"
            f" and {int8} {second.dim}"
        )
    if _fed(first.input) != _fed(second.input):
        raise UserError(
            f"two models fed alike expected, {fp32} takes {_fed(first.input)}"
            f" and {int8} {_fed(second.input)}",
            hint="--channels, --mean and --scale say how a model that no manifest knows is fed",
        )
    if first.is_quantised and not second.is_quantised:
        raise UserError(
            f"FP32 first and INT8 second expected, {fp32} is quantised and {int8} is not",
            hint="swap them",
        )
    return first, second


def _fed(spec: InputSpec) -> str:
    """How a model is fed; the layout is only how the same numbers lie."""
    return f"{spec.channels} {spec.width}x{spec.height} less {spec.mean:.6g} times {spec.scale:.6g}"


def embed(
    paths: Sequence[Path],
    subjects: Sequence[Subject],
    *,
    aligned: bool,
    threads: int = 2,
    arithmetic: Arithmetic = "native",
) -> Embedded:
    """Each picture's largest face by each model, read once and kept for no longer than needed.

    What gives no face is skipped with its reason; UserError when nothing is left. The reference
    arithmetic is for quantised models; a plain one gives the same in both.
    """
    sessions = [
        session_of(s.proto, threads=threads, arithmetic=arithmetic if s.is_quantised else "native")
        for s in subjects
    ]
    skipped: list[Skipped] = []
    kept: list[Path] = []
    parts: list[list[FloatArray]] = [[] for _ in subjects]
    for faces in _chunks(paths, skipped, aligned=aligned):
        kept += [face.path for face in faces]
        for subject, session, rows in zip(subjects, sessions, parts, strict=True):
            rows.append(embeddings(session, inputs_of(faces, subject.input), subject.output_name))
    if not kept:
        first = f", the first: {skipped[0].reason}" if skipped else ""
        raise UserError(
            f"faces expected, none in {len(skipped)} pictures{first}",
            hint="" if aligned else "--aligned takes 112x112 crops as they are",
        )
    return Embedded(tuple(kept), tuple(np.concatenate(rows) for rows in parts), tuple(skipped))


def _chunks(
    paths: Sequence[Path], skipped: list[Skipped], *, aligned: bool
) -> Iterator[list[Face]]:
    read = crop_reader(aligned=aligned)
    faces: list[Face] = []
    for path in track(paths, "embedding"):
        try:
            faces.append(Face(path, _NO_DIGEST, read(path)))
        except PictureError as error:
            skipped.append(Skipped(path, error.message))
        if len(faces) == _CHUNK:
            yield faces
            faces = []
    if faces:
        yield faces


def arithmetic_remark(subjects: Sequence[Subject], arithmetic: Arithmetic) -> str:
    """What is to be known about the 8-bit figures of these models on this machine, or ""."""
    quantised = [subject for subject in subjects if subject.is_quantised]
    if not quantised:
        return ""
    return remark(
        describe(),
        reference=arithmetic == "reference",
        integer_kernels=any(has_integer_kernels(subject.proto) for subject in quantised),
    )


def through_tokens(matrix: FloatArray) -> FloatArray:
    """Every row written as an F2 token and read again, its length made 1 as a server does.

    Raises UserError for a dimension that a token cannot hold.
    """
    if not f2.MIN_DIM <= matrix.shape[1] <= f2.MAX_DIM:
        raise UserError(
            f"embeddings of {f2.MIN_DIM} to {f2.MAX_DIM} values expected for F2 tokens,"
            f" the model gives {matrix.shape[1]}",
            hint="leave --f2 out",
        )
    rows = np.stack([f2.decode(f2.encode(row).fields()) for row in matrix])
    unit: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit
