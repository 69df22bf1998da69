"""What a model costs on this machine: time warm and cold, by operator, memory and bytes.

The models take turns within one run, so that a machine that slows down slows all of them. Sessions
are the daemon's own (`kiosk.vision.session`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort

from kiosk.clock import Clock, SystemClock
from kiosk.errors import ModelError, UserError
from kiosk.lab.coldstart import daemon_session
from kiosk.lab.machine import describe, machine_line
from kiosk.lab.progress import track
from kiosk.lab.timing import Cold, ModelProfile, Operator, Profile, Timing, warm_of
from kiosk.types import FloatArray

_WARM_UP = 3
_OPERATOR_RUNS = 10
_CHILD_RUNS = 5
_CHILD_TIMEOUT_S = 300

Entries = Mapping[str, Mapping[str, str]]
Inputs = Sequence[FloatArray] | Mapping[str, Sequence[FloatArray]]


def profile(
    models: Mapping[str, bytes],
    inputs: Inputs,
    *,
    threads: Sequence[int],
    rounds: int,
    against: str | None = None,
    entries: Entries | None = None,
    starts: int = 3,
    clock: Clock | None = None,
) -> Profile:
    """Measure models, given as the bytes of ONNX files, by name.

    `inputs` are shared by all, or given for each by name; they take turns. `against` names the
    model that ratios refer to. `entries` holds further session entries by name of the model.
    `starts` fresh processes give the cold figures. Raises ModelError, naming the model, for one
    that onnxruntime does not take, and UserError for a name that is not among the models.
    """
    _check(models, threads, rounds, against, entries or {})
    given = {name: list(inputs[name] if isinstance(inputs, Mapping) else inputs) for name in models}
    ticking = clock or SystemClock()
    extra = {name: dict((entries or {}).get(name, {})) for name in models}
    timings: dict[str, list[Timing]] = {name: [] for name in models}
    for count in threads:
        with TemporaryDirectory(prefix="kiosk-profile-") as folder:
            bench = _Bench(
                Path(folder),
                models=models,
                inputs=given,
                entries=extra,
                threads=count,
                clock=ticking,
            )
            spent = bench.interleaved(rounds)
            yardstick = spent[against] if against is not None else None
            for name in track(list(models), f"starts and operators, threads: {count}"):
                timings[name].append(
                    Timing(
                        count,
                        warm_of(spent[name]),
                        bench.cold(name, starts),
                        bench.operators(name),
                        *_ratios(spent[name], yardstick),
                    )
                )
    measured = tuple(
        ModelProfile(name, len(data), extra[name], tuple(timings[name]))
        for name, data in models.items()
    )
    return Profile(
        machine_line(describe()), f"onnxruntime {ort.__version__}", rounds, against, measured
    )


def _check(
    models: Mapping[str, bytes],
    threads: Sequence[int],
    rounds: int,
    against: str | None,
    entries: Entries,
) -> None:
    if not models or not threads or rounds < 1 or min(threads) < 1:
        raise UserError("at least one model, one number of threads and one round expected")
    strangers = sorted({*entries, *([against] if against else [])} - set(models))
    if strangers:
        raise UserError(f"one of {', '.join(models)} expected, got {', '.join(strangers)}")


def _ratios(
    spent: Sequence[float], yardstick: Sequence[float] | None
) -> tuple[float | None, float | None]:
    if yardstick is None:
        return None, None
    pairs = [mine / its for mine, its in zip(spent, yardstick, strict=True)]
    return min(spent) / min(yardstick), float(median(pairs))


class _Bench:
    """The models at one number of threads, with a folder for what children and profiling write."""

    def __init__(
        self,
        folder: Path,
        *,
        models: Mapping[str, bytes],
        inputs: Mapping[str, list[FloatArray]],
        entries: Mapping[str, Mapping[str, str]],
        threads: int,
        clock: Clock,
    ) -> None:
        self._folder, self._models, self._inputs = folder, models, inputs
        self._entries, self._threads, self._clock = entries, threads, clock

    def _session(self, name: str, prefix: str | None = None) -> ort.InferenceSession:
        try:
            return daemon_session(self._models[name], self._threads, self._entries[name], prefix)
        except ModelError as error:
            raise ModelError(f"{name}: {error.message}", hint=error.hint) from error

    def interleaved(self, rounds: int) -> dict[str, list[float]]:
        """Milliseconds of every run: in each round every model runs once, in turn."""
        sessions = {name: self._session(name) for name in self._models}
        feeds = {
            name: [{session.get_inputs()[0].name: values} for values in self._inputs[name]]
            for name, session in sessions.items()
        }
        spent: dict[str, list[float]] = {name: [] for name in self._models}
        for turn in track(range(_WARM_UP + rounds), f"timing, threads: {self._threads}"):
            for name, session in sessions.items():
                feed = feeds[name][turn % len(feeds[name])]
                began = self._clock.boottime_ns()
                session.run(None, feed)
                ended = self._clock.boottime_ns()
                if turn >= _WARM_UP:
                    spent[name].append((ended - began) / 1e6)
        return spent

    def operators(self, name: str) -> tuple[Operator, ...]:
        """What onnxruntime's own profiling tells, the costliest kind first."""
        session = self._session(name, str(self._folder / "operators"))
        feed = {session.get_inputs()[0].name: self._inputs[name][0]}
        for _ in range(1 + _OPERATOR_RUNS):
            session.run(None, feed)
        written = Path(session.end_profiling())
        events = json.loads(written.read_text(encoding="utf-8"))
        written.unlink()
        return operators_of(events)

    def cold(self, name: str, starts: int) -> Cold:
        """The median over fresh processes, one after the other."""
        model, values = self._folder / "model.onnx", self._folder / "input.npy"
        model.write_bytes(self._models[name])
        np.save(values, self._inputs[name][0])
        request = {
            "model": str(model),
            "input": str(values),
            "threads": self._threads,
            "entries": dict(self._entries[name]),
            "runs": _CHILD_RUNS,
        }
        told = [_child(name, request) for _ in range(starts)]
        session, first, before, peak = (
            median(reply[key] for reply in told)
            for key in ("session_ms", "first_run_ms", "before_bytes", "peak_bytes")
        )
        return Cold(session, first, int(before), int(peak))


def _child(name: str, request: Mapping[str, Any]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "kiosk.lab.coldstart"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        timeout=_CHILD_TIMEOUT_S,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise ModelError(f"{name}: a process of its own ended with {done.returncode}: {last}")
    reply: dict[str, float] = json.loads(done.stdout)
    return reply


def operators_of(events: Sequence[Mapping[str, Any]]) -> tuple[Operator, ...]:
    """Kinds of nodes from the events of an onnxruntime profile, without its first run.

    An event of a node tells microseconds as `dur`; profiling itself adds a little to each.
    """
    runs = sorted(e["ts"] + e["dur"] for e in events if e.get("name") == "model_run")
    if len(runs) < 2:
        raise ModelError(f"a profile of two runs or more expected, got {len(runs)}")
    spent: dict[str, float] = {}
    nodes: dict[str, set[str]] = {}
    for event in events:
        is_kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        if not is_kernel or event["ts"] < runs[0]:
            continue
        kind = event["args"]["op_name"]
        spent[kind] = spent.get(kind, 0.0) + event["dur"] / 1000 / (len(runs) - 1)
        nodes.setdefault(kind, set()).add(event["name"])
    total = sum(spent.values()) or 1.0
    rows = [Operator(kind, len(nodes[kind]), ms, ms / total) for kind, ms in spent.items()]
    return tuple(sorted(rows, key=lambda row: (-row.total_ms, row.kind)))
