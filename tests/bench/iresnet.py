"""IResNet, the network of ArcFace (Deng et al. 2019, arXiv:1801.07698), with random weights.

What the speed and the size of a 166 MB model can be measured on where nobody may ship one. The
layers, their order and their shapes are those of insightface's `iresnet50`; the weights are drawn
so that activations stay as large as they came in, as they are in a trained network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BLOCKS = (3, 4, 14, 3)
WIDTH = 64
SIDE = 112
DIM = 512
OPSET = 17
EPSILON = 1e-5
# A branch adds to what passes by it: 24 full ones would double the variance 24 times.
_BRANCH = 0.3
# Slopes as they train: about a quarter, some negative, a few above 1.
_SLOPE, _SPREAD = 0.25, 0.3


@dataclass
class Writer:
    """Nodes and constants of a graph in the making; each layer gives the name of its output.

    `power` is the mean square that each tensor should have, so that a normalisation's running
    statistics fit what it is given, as in a trained network.
    """

    random: np.random.Generator
    power: dict[str, float] = field(default_factory=lambda: {"image": 0.3})
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def convolution(self, x: str, name: str, inputs: int, outputs: int, *, side: int, stride: int):
        """A convolution without bias; He et al. 2015 (arXiv:1502.01852) for the spread."""
        spread = np.sqrt(2.0 / (inputs * side * side))
        weights = self.random.normal(0.0, spread, (outputs, inputs, side, side))
        attributes = {"kernel_shape": [side, side], "strides": [stride, stride]}
        pads = [side // 2] * 4
        self.power[name] = 2.0 * self.power[x]
        return self._node(
            "Conv", [x, self._constant(f"{name}_weight", weights)], name, pads=pads, **attributes
        )

    def normalisation(self, x: str, name: str, channels: int, gain: float = 1.0):
        """To a mean square of about `gain` squared."""
        draw, deviation = self.random, np.sqrt(self.power[x])
        self.power[name] = gain**2
        values = {
            "gamma": gain * draw.uniform(0.7, 1.3, channels),
            "beta": gain * draw.normal(0.0, 0.1, channels),
            "mean": deviation * draw.normal(0.0, 0.1, channels),
            "variance": deviation**2 * draw.uniform(0.7, 1.3, channels),
        }
        names = [self._constant(f"{name}_{part}", value) for part, value in values.items()]
        return self._node("BatchNormalization", [x, *names], name, epsilon=EPSILON)

    def prelu(self, x: str, name: str, channels: int):
        slopes = self.random.normal(_SLOPE, _SPREAD, (channels, 1, 1))
        self.power[name] = self.power[x] * (1.0 + _SLOPE**2 + _SPREAD**2) / 2.0
        return self._node("PRelu", [x, self._constant(f"{name}_slope", slopes)], name)

    def add(self, x: str, y: str, name: str):
        self.power[name] = self.power[x] + self.power[y]
        return self._node("Add", [x, y], name)

    def dense(self, x: str, name: str, inputs: int, outputs: int):
        flat = self._node("Flatten", [x], f"{name}_flat", axis=1)
        self.power[name] = self.power[x]
        weights = self.random.normal(0.0, np.sqrt(1.0 / inputs), (outputs, inputs))
        constants = [
            self._constant(f"{name}_weight", weights),
            self._constant(f"{name}_bias", self.random.normal(0.0, 0.1, outputs)),
        ]
        return self._node("Gemm", [flat, *constants], name, transB=1)

    def _constant(self, name: str, values: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def iresnet50(seed: int = 0) -> onnx.ModelProto:
    """ArcFace's R50: image (1, 3, 112, 112) to embedding (1, 512), 166 MB."""
    return iresnet(BLOCKS, width=WIDTH, seed=seed)


def iresnet(
    blocks: Sequence[int] = (1, 1, 1, 1), *, width: int = 8, dim: int = DIM, seed: int = 0
) -> onnx.ModelProto:
    """One of the family: blocks of each stage, channels of the first (doubled at each next)."""
    write = Writer(np.random.default_rng(seed))
    x = write.convolution("image", "stem", 3, width, side=3, stride=1)
    x = write.prelu(write.normalisation(x, "stem_bn", width), "stem_prelu", width)
    channels = width
    for stage, count in enumerate(blocks):
        outputs = width * 2**stage
        for number in range(count):
            x = _block(write, x, f"s{stage}b{number}", channels, outputs, 1 if number else 2)
            channels = outputs
    side = SIDE // 2 ** len(blocks)
    x = write.normalisation(x, "last_bn", channels)
    x = write.dense(x, "features", channels * side * side, dim)
    write.normalisation(x, "embedding", dim)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, dim])
    graph = helper.make_graph(write.nodes, "iresnet", [image], [embedding], write.constants)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)


def _block(write: Writer, x: str, name: str, inputs: int, outputs: int, stride: int) -> str:
    """BN, conv, BN, PReLU, conv, BN and the way past them."""
    y = write.normalisation(x, f"{name}_bn1", inputs)
    y = write.convolution(y, f"{name}_conv1", inputs, outputs, side=3, stride=1)
    y = write.prelu(write.normalisation(y, f"{name}_bn2", outputs), f"{name}_prelu", outputs)
    y = write.convolution(y, f"{name}_conv2", outputs, outputs, side=3, stride=stride)
    y = write.normalisation(y, f"{name}_bn3", outputs, _BRANCH)
    past = x
    if stride > 1:
        past = write.convolution(x, f"{name}_past", inputs, outputs, side=1, stride=stride)
        past = write.normalisation(past, f"{name}_past_bn", outputs, 0.7)
    return write.add(y, past, f"{name}_sum")
