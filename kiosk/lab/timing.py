"""The figures of a profile: what models cost, at which number of threads, on which machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Warm:
    """Milliseconds of a run, over all rounds after the warm-up."""

    mean_ms: float
    median_ms: float
    p95_ms: float
    min_ms: float
    runs: int


@dataclass(frozen=True, slots=True)
class Cold:
    """A fresh process, median over some: creating the session, and the first run after it.

    `before_bytes` is what was resident at most before the model was loaded (Python, numpy and
    onnxruntime), `peak_bytes` after it was loaded and run.
    """

    session_ms: float
    first_run_ms: float
    before_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Operator:
    """All nodes of one kind in the graph as onnxruntime runs it; `total_ms` of one run."""

    kind: str
    count: int
    total_ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Timing:
    """One model at one number of threads.

    `ratio` is its best time over that of the model compared with, `ratio_median` the median over
    the rounds of one time over the other; None without such a model.
    """

    threads: int
    warm: Warm
    cold: Cold
    operators: tuple[Operator, ...]
    ratio: float | None = None
    ratio_median: float | None = None


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """One model: bytes of the file, its further session entries, a timing for each thread count."""

    name: str
    bytes: int
    entries: dict[str, str]
    timings: tuple[Timing, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """What was measured, on which machine. `against` names the model that ratios refer to."""

    machine: str
    runtime: str
    rounds: int
    against: str | None
    models: tuple[ModelProfile, ...]

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)

    def timing(self, name: str, threads: int) -> Timing:
        """One model at one number of threads; KeyError when it was not measured."""
        for model in self.models:
            for timing in model.timings:
                if (model.name, timing.threads) == (name, threads):
                    return timing
        raise KeyError(name, threads)


def warm_of(milliseconds: Sequence[float]) -> Warm:
    """The figures of a series of runs."""
    values = np.asarray(milliseconds, dtype=np.float64)
    return Warm(
        float(values.mean()),
        float(np.median(values)),
        float(np.percentile(values, 95)),
        float(values.min()),
        values.size,
    )
