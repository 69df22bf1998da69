"""An ONNX graph of convolutions and PReLUs as ncnn's two files, weight for weight.

The format is ncnn's own (docs/developer-guide/param-and-model-file-structure.md there): a text of
layers and numbered parameters, and a file of weights in the order of the layers. Written here it
needs neither pnnx nor torch, which are 5.8 GB for a dozen layer kinds.
"""

import struct
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

MAGIC = 7767517
FLOAT32 = struct.pack("<I", 0)
"""The tag before a convolution's weights: 32-bit floats follow as they are."""
ADD = 0


def write(model: onnx.ModelProto, folder: Path, name: str) -> None:
    """`name`.param and `name`.bin; ValueError for an operator that has no counterpart here."""
    made = _Layers(model)
    head = [str(MAGIC), f"{len(made.lines)} {len(made.names)}"]
    (folder / f"{name}.param").write_text("\n".join([*head, *made.lines]) + "\n")
    (folder / f"{name}.bin").write_bytes(b"".join(made.blob))


class _Layers:
    """Layers in order; a tensor that several layers read is split, as ncnn wants it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.weights = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        self.lines: list[str] = []
        self.blob: list[bytes] = []
        self.names: set[str] = set()
        self.copies: dict[str, list[str]] = {}
        image = self.graph.input[0]
        _, channels, height, width = (d.dim_value for d in image.type.tensor_type.shape.dim)
        self._layer("Input", image.name, (), image.name, {0: width, 1: height, 2: channels})
        for node in self.graph.node:
            self._node(node)

    def _node(self, node: onnx.NodeProto) -> None:
        kinds = {
            "Conv": self._convolution,
            "PRelu": self._prelu,
            "Relu": lambda n: self._plain("ReLU", n, {}),
            "Add": lambda n: self._plain("BinaryOp", n, {0: ADD}),
            "Reshape": lambda n: self._plain("Reshape", n, {0: -1}),
        }
        if node.op_type not in kinds:
            raise ValueError(f"{node.op_type}: no ncnn layer is written for it")
        kinds[node.op_type](node)

    def _convolution(self, node: onnx.NodeProto) -> None:
        given = {a.name: list(a.ints) or a.i for a in node.attribute}
        weights = self.weights[node.input[1]]
        group = given.get("group", 1)
        top, left, bottom, right = given.get("pads", [0, 0, 0, 0])
        down, along = given.get("strides", [1, 1])
        bias = len(node.input) > 2
        parameters = {0: weights.shape[0], 1: weights.shape[3], 11: weights.shape[2]}
        parameters |= {3: along, 13: down, 4: left, 15: right, 14: top, 16: bottom}
        parameters |= {5: int(bias), 6: weights.size} | ({7: group} if group > 1 else {})
        kind = "ConvolutionDepthWise" if group > 1 else "Convolution"
        self._plain(kind, node, parameters)
        self.blob += [FLOAT32, self._bytes(node.input[1])]
        if bias:
            self.blob.append(self._bytes(node.input[2]))

    def _prelu(self, node: onnx.NodeProto) -> None:
        self._plain("PReLU", node, {0: self.weights[node.input[1]].size})
        self.blob.append(self._bytes(node.input[1]))

    def _bytes(self, name: str) -> bytes:
        return np.ascontiguousarray(self.weights[name], "<f4").tobytes()

    def _plain(self, kind: str, node: onnx.NodeProto, parameters: dict[int, int]) -> None:
        inputs = [self._take(name) for name in node.input if name not in self.weights]
        self._layer(kind, node.output[0], inputs, node.output[0], parameters)

    def _take(self, name: str) -> str:
        """The tensor itself, or the next of its copies."""
        return self.copies[name].pop(0) if name in self.copies else name

    def _layer(self, kind, name, inputs, output, parameters) -> None:
        values = " ".join(f"{key}={value}" for key, value in parameters.items())
        self.lines.append(f"{kind} {name} {len(inputs)} 1 {' '.join((*inputs, output))} {values}")
        self.names.add(output)
        readers = sum(list(node.input).count(output) for node in self.graph.node)
        if readers > 1:
            self.copies[output] = [f"{output}_copy{n}" for n in range(readers)]
            outputs = " ".join(self.copies[output])
            self.lines.append(f"Split {output}_split 1 {readers} {output} {outputs}")
            self.names.update(self.copies[output])
