"""Tiny networks for the workshop's tests: graphs in the making, a mobile net, an IResNet block."""

from collections import Counter
from dataclasses import dataclass, field

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kiosk.lab.subject import read_subject


@dataclass
class Sketch:
    """Nodes and constants of a graph in the making; each layer gives its output's name."""

    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        self.random = np.random.default_rng(self.seed)

    def const(self, name, values):
        self.constants[name] = np.asarray(values)
        return name

    def node(self, kind, inputs, output, **attributes):
        name = f"{kind}_{output}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def conv(
        self, x, name, channels, *, side=3, stride=1, pad=None, group=1, bias=True, weights=None
    ):
        """`channels` is (outputs, inputs); padded to keep the size unless `pad` says otherwise."""
        outputs, inputs = channels
        shape = (outputs, inputs // group, side, side)
        if weights is None:
            drawn = self.random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
            weights = self.const(f"{name}_weight", drawn)
        names = [x, weights]
        if bias:
            names.append(self.const(f"{name}_bias", self.random.normal(0, 0.3, outputs)))
        pad = side // 2 if pad is None else pad
        attributes = {"kernel_shape": [side, side], "strides": [stride, stride]}
        return self.node("Conv", names, name, pads=[pad] * 4, group=group, **attributes)

    def norm(self, x, name, channels):
        draw = self.random
        values = {
            "gamma": draw.uniform(0.5, 1.5, channels),
            "beta": draw.normal(0, 0.5, channels),
            "mean": draw.normal(0, 0.5, channels),
            "variance": draw.uniform(0.3, 2.0, channels),
        }
        names = [self.const(f"{name}_{part}", value) for part, value in values.items()]
        return self.node("BatchNormalization", [x, *names], name, epsilon=1e-3)

    def prelu(self, x, name, channels, slopes=None):
        drawn = self.random.normal(0.4, 0.5, channels) if slopes is None else slopes
        slope = self.const(f"{name}_slope", np.reshape(drawn, (-1, 1, 1)))
        return self.node("PRelu", [x, slope], name)

    def gemm(self, x, name, outputs, inputs, *, transposed=True, bias=True):
        drawn = self.random.normal(0, 1 / np.sqrt(inputs), (inputs, outputs))
        names = [x, self.const(f"{name}_weight", drawn.T if transposed else drawn)]
        if bias:
            names.append(self.const(f"{name}_bias", self.random.normal(0, 0.3, outputs)))
        return self.node("Gemm", names, name, transB=int(transposed))

    def model(self, output, image, *, opset=17, shape=None, ir_version=8, listed=False):
        """Image shape (N, C, H, W); with `listed` constants stand among the inputs too (IR 3)."""
        tensors = [
            numpy_helper.from_array(v if v.dtype == np.int64 else v.astype(np.float32), name)
            for name, v in self.constants.items()
        ]
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)]
        if listed:
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, "sketch", inputs, outputs, tensors)
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        return model if shape else onnx.shape_inference.infer_shapes(model)


def mobile_sketch(seed=0, dim=64, *, biggest=1.0):
    """1x1, depthwise and 3x3 layers, PReLU, a residual Add, Flatten and Gemm; 64 values.

    `biggest` spreads the channels of each layer up to so much apart.
    """
    sketch = Sketch(seed)
    x = sketch.conv("image", "stem", (8, 3), stride=8)
    x = first = sketch.prelu(x, "stem_p", 8)
    x = sketch.prelu(sketch.conv(x, "wide", (16, 8), side=1), "wide_p", 16)
    x = sketch.prelu(sketch.conv(x, "deep", (16, 16), group=16), "deep_p", 16)
    x = sketch.conv(x, "narrow", (8, 16), side=1)
    x = sketch.node("Add", [x, first], "sum")
    x = sketch.prelu(sketch.conv(x, "down", (16, 8), stride=2), "down_p", 16)
    x = sketch.conv(x, "last", (16, 16), side=1)
    x = sketch.node("Flatten", [x], "flat", axis=1)
    sketch.gemm(x, "embedding", dim, 16 * 7 * 7)
    if biggest != 1.0:
        for name in ("stem", "wide", "deep", "down"):
            _spread(sketch, name, biggest)
    return sketch


def _spread(sketch, name, biggest):
    weights = sketch.constants[f"{name}_weight"]
    factor = np.geomspace(1, biggest, len(weights)) / np.sqrt(biggest)
    sketch.constants[f"{name}_weight"] = weights * factor.reshape(-1, 1, 1, 1)
    sketch.constants[f"{name}_bias"] = sketch.constants[f"{name}_bias"] * factor


def mobile(seed=0, dim=64, **options):
    return mobile_sketch(seed, dim, **options).model("embedding", [1, 3, 112, 112], shape=[1, dim])


def ires_sketch(seed=0, side=8, dim=32):
    """An IResNet block between a stem and a Flatten, Gemm, BN: every place a BN stands in."""
    sketch = Sketch(seed)
    x = sketch.conv("image", "stem", (6, 3), bias=False)
    x = shortcut = sketch.prelu(sketch.norm(x, "stem_n", 6), "stem_p", 6)
    x = sketch.conv(sketch.norm(x, "first_n", 6), "first", (6, 6), bias=False)
    x = sketch.prelu(sketch.norm(x, "second_n", 6), "second_p", 6)
    x = sketch.norm(sketch.conv(x, "second", (6, 6), stride=2, bias=False), "third_n", 6)
    y = sketch.conv(shortcut, "short", (6, 6), side=1, stride=2, bias=False)
    x = sketch.node("Add", [x, sketch.norm(y, "short_n", 6)], "sum")
    x = sketch.node("Flatten", [sketch.norm(x, "last_n", 6)], "flat", axis=1)
    x = sketch.gemm(x, "features", dim, 6 * (side // 2) ** 2)
    sketch.norm(x, "embedding", dim)
    return sketch


def ires(seed=0, side=8, dim=32, **options):
    sketch = ires_sketch(seed, side, dim)
    return sketch.model("embedding", [1, 3, side, side], shape=[1, dim], **options)


def kinds(model):
    return Counter(node.op_type for node in model.graph.node)


def values_of(model, name):
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


def noise(model, count=1, seed=3):
    """Random pictures of a model's input shape."""
    shape = [d.dim_value or 1 for d in model.graph.input[0].type.tensor_type.shape.dim]
    random = np.random.default_rng(seed)
    return [random.uniform(-1, 1, shape).astype(np.float32) for _ in range(count)]


def subject_of(model, path):
    """The model written to a file and read as a subject."""
    onnx.save(model, path)
    return read_subject(path)


def write_crops(folder, *, people=4, each=6, seed=0):
    """Smooth 112x112 pictures in a folder for each person."""
    random = np.random.default_rng(seed)
    for person in range(people):
        (folder / f"p{person}").mkdir(parents=True)
        base = random.uniform(0, 255, (7, 7, 3))
        for number in range(each):
            small = np.clip(base + random.normal(0, 20, base.shape), 0, 255).astype(np.uint8)
            picture = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"p{person}" / f"{number}.png"), picture)
    return folder
