"""Bias correction: quantisation moves the mean of each channel; the bias takes the move back.

Layer by layer in the order of the graph, so that each correction sees the inputs that the layers
before it, already corrected, really give: b += E[y in FP32] - E[y in the quantised net so far]
(Nagel et al. 2019, arXiv:1906.04721, section 4.2, with measured means). All at once it hurts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from kiosk.lab.calibrate import channel_means
from kiosk.lab.graph import Net, up_to
from kiosk.lab.progress import track
from kiosk.types import FloatArray

Corrections = dict[str, list[float]]
"""What is added to the bias of each layer, by the name of the tensor that the layer gives."""


def corrections(
    model: onnx.ModelProto, quantised: onnx.ModelProto, inputs: Sequence[FloatArray]
) -> Corrections:
    """The corrections of every 8-bit convolution of a QDQ graph; `model` is what it was made of."""
    work = onnx.ModelProto()
    work.CopyFrom(quantised)
    net = Net(work)
    plain = _layers(model, net)
    layers = [node for node in net.convolutions() if node.name in plain]
    expected = channel_means(model, inputs, [plain[node.name] for node in layers])
    weights = {tensor.name: tensor for tensor in work.graph.initializer}
    found: Corrections = {}
    for node in track(layers, "correcting biases"):
        name, result = plain[node.name], node.output[0]
        part = up_to(work, result)
        move = expected[name] - channel_means(part, inputs, [result])[result]
        source = _bias_source(net, node)
        if source is None:
            continue
        stored = numpy_helper.to_array(weights[source[0]]).astype(np.int64)
        step = net.value(source[1]).astype(np.float64)
        moved = stored + np.round(move / step).astype(np.int64)
        weights[source[0]].CopyFrom(numpy_helper.from_array(moved.astype(np.int32), source[0]))
        found[name] = [float(value) for value in move]
    return found


def corrected(model: onnx.ModelProto, moves: Mapping[str, Sequence[float]]) -> onnx.ModelProto:
    """The FP32 graph with the corrections added: what the quantiser is given next."""
    net = Net(model)
    for node in net.convolutions():
        if node.output[0] in moves and len(node.input) > 2:
            bias = net.value(node.input[2]).astype(np.float64)
            moved = bias + np.array(moves[node.output[0]])
            if len(net.read[node.input[2]]) == 1:
                net.replace(node.input[2], moved)
            else:
                node.input[2] = net.add(f"{node.output[0]}_corrected_bias", moved)
                net.index()
    return net.finish()


def _layers(model: onnx.ModelProto, quantised: Net) -> dict[str, str]:
    """What each layer with an 8-bit bias gives in FP32, by the name of its node.

    The quantiser renames the result of a layer that is the graph's own output. A layer that it
    made one with the Relu after it is left out: what it gives before that cannot be seen.
    """
    net = Net(model)
    given = {node.name: node.output[0] for node in net.convolutions()}
    return {
        node.name: given[node.name]
        for node in quantised.convolutions()
        if node.name in given
        and _bias_source(quantised, node) is not None
        and (given[node.name] == node.output[0] or given[node.name] in net.outputs)
    }


def _bias_source(net: Net, node: onnx.NodeProto) -> tuple[str, str] | None:
    """Names of the 32-bit bias of a layer and of its step; None for a layer in FP32."""
    if len(node.input) < 3:
        return None
    maker = net.made.get(node.input[2])
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    return str(maker.input[0]), str(maker.input[1])
