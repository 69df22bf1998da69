"""Everything a report shows, as plain figures that can be written to JSON and read back.

An empty tuple or None is a part that was not measured; the page says so in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from kiosk.errors import UserError
from kiosk.lab.advice import Advice
from kiosk.lab.margin import GateLine
from kiosk.lab.timing import Profile

Role = Literal["fp32", "int8", "naive"]
"""fp32: the model compared with; int8: the one judged; naive: the plain recipe, for contrast."""


@dataclass(frozen=True, slots=True)
class Judged:
    """In which arithmetic the figures of accuracy were made, and where.

    native: by the kernels of `machine`; `saturates` when it sums 8-bit products in 16 bits.
    reference: every 8-bit step as ONNX defines it, which is what ARM and VNNI give.
    """

    arithmetic: Literal["native", "reference"]
    machine: str
    saturates: bool | None = None


@dataclass(frozen=True, slots=True)
class Tar:
    """True accept rate at a false accept rate, with its confidence interval if known; 0..1."""

    far: float
    tar: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A ROC. `far` and `tar` are points of the curve in rising order, 0..1."""

    name: str
    role: Role
    far: tuple[float, ...]
    tar: tuple[float, ...]
    auc: float
    eer: float | None = None
    accuracy: float | None = None
    threshold: float | None = None
    tars: tuple[Tar, ...] = ()


@dataclass(frozen=True, slots=True)
class Similarity:
    """How alike pairs are: counts between `edges` (one more than counts)."""

    name: str
    role: Role
    edges: tuple[float, ...]
    genuine: tuple[int, ...]
    impostor: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cosine of a model to FP32 over held-out faces, as counts between `edges`."""

    name: str
    role: Role
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    mean: float
    least: float


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer in the order of the graph, and what quantising it alone does."""

    name: str
    kind: str
    error: float
    kept_fp32: bool


@dataclass(frozen=True, slots=True)
class Layers:
    """`measure` says in words what `error` is."""

    measure: str
    rows: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class Try:
    """A candidate of the search; None for what was not measured of it.

    `failing` names the lines of the gate that it fails, with figures and limits.
    """

    name: str
    int8_layers: int
    layers: int
    cosine_mean: float | None = None
    cosine_min: float | None = None
    tar: float | None = None
    ms: float | None = None
    bytes: int | None = None
    passed: bool | None = None
    chosen: bool = False
    note: str = ""
    failing: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the record."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Record:
    """Lines of the record that belong together: choices, versions, hashes, machine."""

    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class ReportData:
    """One report. `model` is the file judged, `against` the FP32 file; `made` a date as text.

    `not_judged` are the lines of the gate that were left out by word, and why.
    `tar_far` is the false accept rate at which the tries' TAR was taken. `profile` names its
    models as `model` and `against` do where it measured them.
    """

    model: str
    against: str
    judged: Judged
    made: str = ""
    summary: str = ""
    calibration_faces: int | None = None
    holdout_faces: int | None = None
    genuine_pairs: int | None = None
    impostor_pairs: int | None = None
    bytes_fp32: int | None = None
    bytes_int8: int | None = None
    int8_layers: int | None = None
    layers_total: int | None = None
    gate: tuple[GateLine, ...] = ()
    not_judged: tuple[Entry, ...] = ()
    curves: tuple[Curve, ...] = ()
    similarities: tuple[Similarity, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    layers: Layers | None = None
    profile: Profile | None = None
    tries: tuple[Try, ...] = ()
    tar_far: float = 1e-3
    advice: tuple[Advice, ...] = ()
    records: tuple[Record, ...] = ()


def as_json(data: ReportData) -> bytes:
    """The JSON form, indented, the same bytes for the same data."""
    return msgspec.json.format(msgspec.json.encode(data), indent=1) + b"\n"


def read_report_data(path: Path) -> ReportData:
    """The figures of a file that `as_json` wrote; UserError, naming the field, for others."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ReportData)
    except OSError as error:
        raise UserError(f"{path}: report data expected, {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: report data expected, {error}") from error


def counted(values: ArrayLike, edges: ArrayLike) -> tuple[int, ...]:
    """Counts between edges; what lies beyond them is counted in the outermost."""
    bounds = np.asarray(edges, dtype=np.float64)
    inside = np.clip(np.asarray(values, dtype=np.float64), bounds[0], bounds[-1])
    return tuple(int(count) for count in np.histogram(inside, bounds)[0])


def similarity_of(
    name: str, role: Role, genuine: ArrayLike, impostor: ArrayLike, bins: int = 56
) -> Similarity:
    """Histograms over cosines from -0.4 to 1."""
    edges = np.round(np.linspace(-0.4, 1.0, bins + 1), 6)
    return Similarity(name, role, _floats(edges), counted(genuine, edges), counted(impostor, edges))


def agreement_of(name: str, role: Role, cosines: ArrayLike, edges: ArrayLike) -> Agreement:
    """The histogram of cosines to FP32; give models that are compared the same edges."""
    values = np.asarray(cosines, dtype=np.float64)
    bounds = np.asarray(edges, dtype=np.float64)
    least = float(values.min())
    return Agreement(
        name, role, _floats(bounds), counted(values, bounds), float(values.mean()), least
    )


def thinned(
    far: Sequence[float], tar: Sequence[float], points: int = 200
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As many points of a ROC as a picture needs, evenly spread over the logarithm of the FAR."""
    fars, tars = np.asarray(far, dtype=np.float64), np.asarray(tar, dtype=np.float64)
    positive = fars > 0
    fars, tars = fars[positive], tars[positive]
    if fars.size == 0:
        return (), ()
    wanted = np.geomspace(fars[0], fars[-1], points)
    # The last point of a FAR has its highest TAR: a ROC is a staircase.
    at = np.unique(np.searchsorted(fars, wanted * (1 + 1e-9), side="right") - 1)
    return _floats(np.round(fars[at], 9)), _floats(np.round(tars[at], 6))


def _floats(values: ArrayLike) -> tuple[float, ...]:
    return tuple(float(value) for value in np.asarray(values))
