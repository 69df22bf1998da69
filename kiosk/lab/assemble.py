"""From a base graph and a plan to files: the same plan gives the same bytes, with no face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx

from kiosk.lab.bias import Corrections, corrected
from kiosk.lab.integer import in_integers, with_float_sums
from kiosk.lab.prepare import float_graph
from kiosk.lab.quantise import Recipe, quantised

Form = Literal["qdq", "nhwc"]
"""qdq: operators of the standard. nhwc: ONNX Runtime's integer operators, channels last."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One quantised file. `recipe.format` is always QDQ: the form decides what is written."""

    form: Form
    recipe: Recipe
    corrections: Corrections

    @property
    def variant(self) -> str:
        """What tells the files of one build apart, such as qdq-s8."""
        return f"{self.form}-{self.recipe.activations.lower()}"


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """`judged` is the QDQ graph that reference arithmetic can run, `shipped` what is written."""

    judged: onnx.ModelProto
    shipped: onnx.ModelProto


def judged_graph(graph: onnx.ModelProto, plan: Plan, ranges: Path) -> onnx.ModelProto:
    """The QDQ graph that computes what the plan's file computes."""
    result = quantised(corrected(graph, plan.corrections), plan.recipe, ranges)
    return with_float_sums(result) if plan.form == "nhwc" else result


def shipped_graph(graph: onnx.ModelProto, plan: Plan, ranges: Path) -> onnx.ModelProto:
    """The graph that the plan's file holds; ModelError when this one has no such form."""
    if plan.form == "qdq":
        return judged_graph(graph, plan, ranges)
    recipe = replace(plan.recipe, format="QOperator")
    return in_integers(quantised(corrected(graph, plan.corrections), recipe, ranges))


def assemble(
    base: onnx.ModelProto, factors: Mapping[str, Sequence[float]], plan: Plan, ranges: Path
) -> Assembled:
    """Quantise by the plan; ModelError when the graph has no such form."""
    graph = float_graph(base, factors)
    judged = judged_graph(graph, plan, ranges)
    shipped = judged if plan.form == "qdq" else shipped_graph(graph, plan, ranges)
    return Assembled(judged, shipped)
