"""What advice stands on: facts read from a graph, a profile, or a pair that fails the gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from kiosk.errors import ModelError
from kiosk.lab.advice import Advice, Facts, LayerError, advise
from kiosk.lab.graph import Net
from kiosk.lab.prelu import slope_of
from kiosk.lab.prepare import base_of, ready
from kiosk.lab.quantise import preprocessed, size_of
from kiosk.lab.sensitivity import layer_errors, same_layers
from kiosk.lab.subject import Subject, is_quantised
from kiosk.lab.timing import Profile
from kiosk.types import FloatArray
from kiosk.vision.cpu import Cpu

_DYNAMIC = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "ConvInteger", "MatMulInteger"}
_OPERATORS = {"QLinearConv", "QLinearMatMul", "QGemm"}
# Operator and place of its 8-bit weights: the place of their scale. ConvInteger and MatMulInteger
# have it in a node of their own, under the name that onnxruntime's quantiser gives.
_SCALES = {
    ("DequantizeLinear", 0): 1,
    ("QLinearConv", 3): 4,
    ("QLinearMatMul", 3): 4,
    ("QGemm", 3): 4,
    ("DynamicQuantizeMatMul", 1): 2,
    ("MatMulIntegerToFloat", 1): 3,
}
# Two products of a U8 value and a weight of 7 bits fit into 16 bits: 2 * 255 * 64 < 2 ** 15.
_MOST_OF_7_BITS = 64


def graph_facts(model: onnx.ModelProto, cpu: Cpu | None = None) -> Facts:
    """What a graph tells about itself, and what `cpu` makes of it."""
    net = Net(model)
    kinds = {node.op_type for node in net.nodes}
    weights = list(_weights(net))
    slopes = _slopes(net)
    facts = Facts(
        method=_method(kinds),
        format=_format(kinds),
        per_channel=_per_channel(weights),
        fewest_steps=_fewest_steps(weights),
        prelu_nodes=sum(node.op_type == "PRelu" for node in net.nodes),
        slopes=slopes.size,
        slopes_above_one=int((slopes > 1.0).sum()),
    )
    if cpu is None or not is_quantised(model):
        return facts
    return replace(
        facts,
        architecture=cpu.machine,
        saturates=cpu.saturates and _reaches_beyond_7_bits(weights) and not _is_exact(net),
        dot_product=cpu.has_dot_product,
    )


def _method(kinds: set[str]) -> Literal["static", "dynamic"] | None:
    if kinds & _DYNAMIC:
        return "dynamic"
    return "static" if kinds & {"QuantizeLinear", "DequantizeLinear", *_OPERATORS} else None


def _format(kinds: set[str]) -> Literal["QDQ", "QOperator"] | None:
    if kinds & _DYNAMIC:
        return None
    if kinds & _OPERATORS:
        return "QOperator"
    return "QDQ" if "DequantizeLinear" in kinds else None


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    name: str
    values: NDArray[Any]
    scales: int


def _weights(net: Net) -> Iterator[_Weights]:
    """Every 8-bit weight of two dimensions or more, with the number of its scales."""
    for tensor in net.graph.initializer:
        is_8_bit = tensor.data_type in {TensorProto.INT8, TensorProto.UINT8}
        if not is_8_bit or len(tensor.dims) < 2:
            continue
        name = tensor.name.removesuffix("_quantized")
        scale = f"{name}_scale"
        for node in net.read.get(tensor.name, []):
            place = _SCALES.get((node.op_type, list(node.input).index(tensor.name)))
            scale = scale if place is None else node.input[place]
        if net.is_constant(scale):
            yield _Weights(name, net.value(tensor.name), net.value(scale).size)


def _per_channel(weights: Sequence[_Weights]) -> bool | None:
    # One layer left out counts: the dynamic method does convolutions per tensor, always.
    return all(each.scales > 1 for each in weights) if weights else None


def _fewest_steps(weights: Sequence[_Weights]) -> tuple[str, int] | None:
    """Of convolutions with one scale for all channels: where a channel has least of it.

    Unsigned weights are asymmetric, which is not counted in steps of 127; a channel without any
    weight is nothing that rounding could lose.
    """
    found = []
    for each in weights:
        if each.values.ndim == 4 and each.scales == 1 and each.values.dtype == np.int8:
            steps = np.abs(each.values.astype(np.int64)).reshape(len(each.values), -1).max(axis=1)
            found += [(each.name, int(steps[steps > 0].min()))] if (steps > 0).any() else []
    return min(found, key=lambda pair: pair[1], default=None)


def _slopes(net: Net) -> NDArray[np.floating]:
    found = [
        slope_of(net, node)
        for node in net.nodes
        if node.op_type == "PRelu" and net.is_constant(node.input[1])
    ]
    return np.concatenate(found) if found else np.zeros(0)


def _reaches_beyond_7_bits(weights: Sequence[_Weights]) -> bool:
    return any(
        each.values.dtype == np.int8
        and int(np.abs(each.values.astype(np.int64)).max(initial=0)) > _MOST_OF_7_BITS
        for each in weights
    )


def _is_exact(net: Net) -> bool:
    """Signed activations alone, whose 8-bit kernel does not saturate on x86.

    Quantised there by QuantizeLinear (unsigned where it names no zero point) or in the operator.
    """
    zeros = [
        node.input[2] if len(node.input) > 2 else ""
        for node in net.nodes
        if node.op_type in {"QuantizeLinear", *_OPERATORS}
    ]
    return bool(zeros) and all(
        net.is_constant(name) and net.value(name).dtype == np.int8 for name in zeros
    )


def layers_of(
    fp32: Subject, int8: onnx.ModelProto, inputs: Sequence[FloatArray]
) -> tuple[LayerError, ...]:
    """The error of each 8-bit layer of a QDQ graph; () where its layers are not those of FP32.

    They are when onnxruntime's quantiser made it, of the file as it is or as `kiosk lab quantize`
    prepares it, but not after equalisation.
    """
    try:
        for prepare in (ready, lambda subject: preprocessed(base_of(subject))):
            plain = prepare(fp32)
            if same_layers(plain, int8):
                return tuple(layer_errors(plain, int8, inputs))
    except ModelError:
        # The gate was judged without it: that a layer cannot be told is no reason to fail.
        return ()
    return ()


@dataclass(frozen=True, slots=True)
class Told:
    """Advice about one of several models; `threads` where it hangs on their number."""

    model: str
    threads: int | None
    advice: Advice

    def document(self) -> dict[str, Any]:
        """The JSON form: the advice's own keys after these."""
        return {"model": self.model, "threads": self.threads, **asdict(self.advice)}


def profile_advice(
    found: Profile, graphs: Mapping[str, onnx.ModelProto], cpu: Cpu
) -> tuple[Told, ...]:
    """What a profile shows of each model. FP32 is `against`, else the fastest that is no INT8."""
    plain = [name for name, graph in graphs.items() if not is_quantised(graph)]
    told = []
    for model in found.models:
        graph = graphs[model.name]
        shares = {row.kind: row.share for row in model.timings[0].operators}
        facts = replace(graph_facts(graph, cpu), prelu_share=shares.get("PRelu"))
        if facts.format == "QDQ":
            # The daemon's sessions, which are what is timed, do not saturate in such a graph.
            facts = replace(facts, saturates=None)
        if plain and model.name not in plain:
            first = found.against if found.against in plain else plain[0]
            facts = replace(facts, bytes_fp32=size_of(graphs[first]), bytes_int8=size_of(graph))
        told += [Told(model.name, None, each) for each in advise(facts)]
        if model.name not in plain:
            told += _slower_than(found, model.name, plain, facts)
    return tuple(told)


def _slower_than(found: Profile, name: str, plain: Sequence[str], facts: Facts) -> list[Told]:
    told = []
    yardsticks = [found.against] if found.against in plain else plain
    for timing in next(model.timings for model in found.models if model.name == name):
        others = [found.timing(str(each), timing.threads).warm.median_ms for each in yardsticks]
        if not others:
            continue
        known = Facts(
            method=facts.method,
            format=facts.format,
            latency_fp32_ms=min(others),
            latency_int8_ms=timing.warm.median_ms,
            latency_figure="medians",
            prelu_rewritten=facts.prelu_nodes == 0,
            costliest=next(((row.kind, row.share) for row in timing.operators), None),
        )
        told += [Told(name, timing.threads, each) for each in advise(known)]
    return told
