"""The search: which calibration, which layers in FP32, which biases; the smallest loss that passes.

Only calibration faces are looked at. A quarter of them, whole people where they are known, never
enters a range: the search judges on these. Held-out faces are for the gate, once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import onnx

from kiosk.errors import ModelError
from kiosk.lab.advice import LayerError
from kiosk.lab.agreement import agreement
from kiosk.lab.assemble import Form, Plan, judged_graph, shipped_graph
from kiosk.lab.bias import Corrections, corrections
from kiosk.lab.calibrate import Method, channel_ranges, widen, without_place, write_ranges
from kiosk.lab.equalise import factors_of, streams
from kiosk.lab.faces import Face
from kiosk.lab.graph import Net
from kiosk.lab.identities import Identities
from kiosk.lab.prelu import PART
from kiosk.lab.prepare import float_graph
from kiosk.lab.progress import say
from kiosk.lab.quantise import Kind, Recipe, in_int8, quantised, recipe_ranges_name
from kiosk.lab.runner import embeddings, inputs_of, session_of
from kiosk.lab.sensitivity import layer_errors
from kiosk.lab.subject import Subject
from kiosk.types import FloatArray

Item = TypeVar("Item")
Ranges = Literal["fit", "all"]
"""Of which faces: those that are not judged on, or all of them."""

# From the widest range to the narrowest.
CALIBRATIONS: tuple[tuple[Method, float], ...] = (
    ("MinMax", 100.0),
    ("Percentile", 99.9999),
    ("Percentile", 99.999),
    ("Entropy", 100.0),
)
# Of calibrations that differ by less, the one that clips least is taken: the next face may reach
# beyond all that were calibrated with.
_LIKE = 0.0003
# Above the gate's own limits: held-out faces may be harder than those searched on.
LEAST_MEAN, LEAST_MIN = 0.9957, 0.984
MOST_TAR_DROP = 0.005
# Where a tensor holds one value of each channel for a face, a few hundred faces say little of its
# range, and equalisation has made its channels alike on those very faces: others reach further.
SCARCE_FACTOR = 2.0
_OP_TYPES = ("Conv", "Gemm", "MatMul", "Add")
_TUNING_SHARE = 4
_TUNING_MOST, _SENSITIVITY_MOST, _BIAS_MOST = 48, 12, 32
# A model that needs more of its layers in FP32 than this is not worth its 8 bits.
_MOST_FP32_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement with FP32 on faces that no range was taken from; TAR drop at FAR 1e-3 over all.

    `tar_drop` is None where the faces make too few pairs.
    """

    mean: float
    least: float
    tar_drop: float | None

    @property
    def passes(self) -> bool:
        """Whether the gate would pass, with the search's margin."""
        kept = self.tar_drop is None or self.tar_drop <= MOST_TAR_DROP
        return self.mean >= LEAST_MEAN and self.least >= LEAST_MIN and kept


@dataclass(frozen=True, slots=True)
class Tried:
    """One candidate of the search; no other one has its name."""

    name: str
    int8: int
    layers: int
    score: Score


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search ends with: plans that pass, and all that was looked at on the way."""

    factors: dict[str, list[float]]
    plans: tuple[Plan, ...]
    tries: tuple[Tried, ...]
    layers: tuple[LayerError, ...]


class Search:
    """One search over one model.

    `ranges` is a folder for files of calibrated ranges; `calibrations`, from the widest range to
    the narrowest, are those to choose from.
    """

    def __init__(
        self,
        subject: Subject,
        base: onnx.ModelProto,
        faces: Sequence[Face],
        ranges: Path,
        *,
        threads: int,
        calibrations: Sequence[tuple[Method, float]] = CALIBRATIONS,
    ) -> None:
        self._calibrations = calibrations
        self._base, self._ranges, self._threads = base, ranges, threads
        self._inputs = inputs_of(faces, subject.input)
        self._output = subject.output_name
        people = Identities.of(faces)
        self._people = people
        joined = [name for stream in streams(Net(base)) for name in stream.tensors]
        self._scarce = without_place(base, self._inputs[0], joined)
        held = people.every(_TUNING_SHARE)
        self._tuning = _thinned([i for i in range(len(faces)) if i in held], _TUNING_MOST)
        self._fit = [values for i, values in enumerate(self._inputs) if i not in held]
        if not self._fit:
            raise ModelError(
                "two faces or more expected to calibrate and to judge with, got one",
                hint="better 100 to 1000, in a folder for each person",
            )
        self._reference = self._embed(base, reference=False)
        self._tries: dict[str, Tried] = {}

    def run(self) -> Found:
        """Search, and calibrate what was found on all faces.

        Raises ModelError when no candidate passes with a quarter of its layers in FP32.
        """
        say("step 2 of 5: choosing calibrations")
        graph = self._equalised(self._fit)[1]
        chosen = {kind: self._calibration(graph, kind) for kind in ("S8", "U8")}
        recipe = chosen["S8"]
        say("step 3 of 5: measuring each layer, and how few must stay in FP32")
        errors = layer_errors(
            graph,
            quantised(graph, recipe, self._range_file(graph, self._fit, recipe)),
            _thinned(self._inputs, _SENSITIVITY_MOST),
        )
        plans = [
            plan
            for kind in ("S8", "U8")
            for form in ("qdq", "nhwc")
            if (plan := self._smallest(graph, chosen[kind], form, errors)) is not None
        ]
        if not plans:
            best = max(self._tries.values(), key=lambda tried: tried.score.mean)
            raise ModelError(
                f"a candidate of mean cosine {LEAST_MEAN} expected, the best of"
                f" {len(self._tries)} has {best.score.mean:.4f} ({best.name})",
                hint="calibrate with more faces, like those of the site",
            )
        factors, graph = self._equalised(self._inputs)
        final = tuple(self._calibrated(graph, plan) for plan in plans)
        return Found(factors, final, tuple(self._tries.values()), tuple(errors))

    def range_file(self, plan: Plan) -> Path:
        """The ranges of a plan that `run` gave."""
        return self._ranges / f"all-{recipe_ranges_name(plan.recipe)}.json"

    def _equalised(
        self, inputs: Sequence[FloatArray]
    ) -> tuple[dict[str, list[float]], onnx.ModelProto]:
        names = [name for stream in streams(Net(self._base)) for name in stream.tensors]
        factors = factors_of(self._base, channel_ranges(self._base, inputs, names))
        return factors, float_graph(self._base, factors)

    def _range_file(
        self, graph: onnx.ModelProto, inputs: Sequence[FloatArray], recipe: Recipe
    ) -> Path:
        which = "all" if inputs is self._inputs else "fit"
        path = self._ranges / f"{which}-{recipe_ranges_name(recipe)}.json"
        if not path.is_file():
            write_ranges(
                graph,
                inputs,
                path,
                method=recipe.calibration,
                percentile=recipe.percentile,
                op_types=recipe.op_types,
            )
            widen(path, self._scarce, SCARCE_FACTOR)
        return path

    def _calibration(self, graph: onnx.ModelProto, kind: Kind) -> Recipe:
        """The widest calibration of those that serve best, with every layer in 8 bits."""
        exclude = tuple(
            node.name
            for node in graph.graph.node
            if node.name.startswith(PART) and node.op_type in _OP_TYPES
        )
        plain = Recipe(activations=kind, op_types=_OP_TYPES, exclude=exclude, tie_free_sums=True)
        recipes = [
            replace(plain, calibration=method, percentile=percentile)
            for method, percentile in self._calibrations
        ]
        scores = [self._try(graph, Plan("qdq", recipe, {}), "fit") for recipe in recipes]
        if kind == "U8":
            # Told for comparison: never better than signed weights, and slow on ARM.
            for other in (replace(plain, weights="U8"), replace(plain, reduce_range=True)):
                self._try(graph, Plan("qdq", other, {}), "fit")
        pairs = list(zip(recipes, scores, strict=True))
        kept = [p for p in pairs if (p[1].tar_drop or 0.0) <= MOST_TAR_DROP] or pairs
        best = max(score.mean for _, score in kept)
        return next(recipe for recipe, score in kept if score.mean >= best - _LIKE)

    def _smallest(
        self, graph: onnx.ModelProto, recipe: Recipe, form: Form, errors: Sequence[LayerError]
    ) -> Plan | None:
        """The plan with the fewest layers in FP32 that passes, None when too many would be."""
        most = max(1, int(len(errors) * _MOST_FP32_SHARE))
        for count in range(most + 1):
            kept = tuple(error.name for error in errors[:count])
            plan = Plan(form, replace(recipe, exclude=(*recipe.exclude, *kept)), {})
            if self._try(graph, plan, "fit").passes:
                found = self._pruned(graph, plan, kept)
                return found if self._has_form(graph, found) else None
        return None

    def _has_form(self, graph: onnx.ModelProto, plan: Plan) -> bool:
        """Whether the plan's file can be made: not every graph has an integer form."""
        try:
            shipped_graph(graph, plan, self._range_file(graph, self._fit, plan.recipe))
        except ModelError as error:
            say(f"{_name(plan, 'fit')}: left out, {error.message}")
            return False
        return True

    def _pruned(self, graph: onnx.ModelProto, plan: Plan, kept: Sequence[str]) -> Plan:
        """Without those layers in FP32 that the gate does not need after all."""
        for layer in kept[:-1]:
            names = tuple(name for name in plan.recipe.exclude if name != layer)
            fewer = replace(plan, recipe=replace(plan.recipe, exclude=names))
            if self._try(graph, fewer, "fit").passes:
                plan = fewer
        return plan

    def _calibrated(self, graph: onnx.ModelProto, plan: Plan) -> Plan:
        """The plan with biases corrected on all faces, if that brings it nearer to FP32."""
        ranges = self._range_file(graph, self._inputs, plan.recipe)
        before = self._try(graph, plan, "all")
        moves = self._moves(graph, plan, ranges)
        better = replace(plan, corrections=moves)
        after = self._try(graph, better, "all")
        return better if after.mean > before.mean else plan

    def _moves(self, graph: onnx.ModelProto, plan: Plan, ranges: Path) -> Corrections:
        judged = judged_graph(graph, plan, ranges)
        found = corrections(graph, judged, _thinned(self._inputs, _BIAS_MOST))
        return {name: [float(f"{move:.6g}") for move in row] for name, row in found.items()}

    def _try(self, graph: onnx.ModelProto, plan: Plan, which: Ranges) -> Score:
        name = _name(plan, which)
        if name in self._tries:
            # The search comes back to where it was.
            return self._tries[name].score
        inputs = self._inputs if which == "all" else self._fit
        judged = judged_graph(graph, plan, self._range_file(graph, inputs, plan.recipe))
        got = self._embed(judged, reference=True)
        agreed = agreement(self._reference[self._tuning], got[self._tuning])
        score = Score(
            agreed.mean_cosine, agreed.min_cosine, self._people.tar_drop(self._reference, got)
        )
        eight, layers = in_int8(judged)
        self._tries[name] = Tried(name, eight, layers, score)
        say(f"{name}: {eight} of {layers} in INT8, cosine {score.mean:.4f} {score.least:.4f}")
        return score

    def _embed(self, model: onnx.ModelProto, *, reference: bool) -> FloatArray:
        session = session_of(
            model, threads=self._threads, arithmetic="reference" if reference else "native"
        )
        return embeddings(session, self._inputs, self._output)


def _name(plan: Plan, which: Ranges) -> str:
    """What tells a try from every other one of its search."""
    recipe = plan.recipe
    words = [plan.form, f"{recipe.activations}{recipe.weights}", recipe.calibration]
    words += [f"{recipe.percentile:g}"] if recipe.calibration == "Percentile" else []
    words += ["7-bit weights"] if recipe.reduce_range else []
    kept = [name for name in recipe.exclude if not name.startswith(PART)]
    words += [f"but {', '.join(kept)}"] if kept else []
    words += ["ranges of all faces"] if which == "all" else []
    words += ["biases corrected"] if plan.corrections else []
    return " ".join(words)


def _thinned(items: Sequence[Item], most: int) -> list[Item]:
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]
