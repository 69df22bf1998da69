"""Small ONNX files as foreign tools may write them, pictures of made-up people, a configuration."""

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from command_line import run


@dataclass
class Foreign:
    """Pooled patches times a random matrix: an embedder of 147 numbers, written as one likes."""

    seed: int = 0
    dim: int = 64
    opset: int = 17
    shape: tuple = (1, 3, 112, 112)
    batch_out: object = 1
    extra_output: bool = False
    ir_version: int = 8
    nan: bool = False
    mix_up: bool = False
    """Looks at the mean brightness only, up to a whiff: everybody looks alike."""

    def write(self, path):
        weights = np.random.default_rng(self.seed).normal(size=(147, self.dim)).astype(np.float32)
        if self.nan:
            weights[:] = np.nan
        if self.mix_up:
            weights = np.tile(weights[:1], (147, 1)) + 1e-9 * weights
        nodes = [
            helper.make_node(
                "AveragePool", ["input"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]
            ),
            helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
        ]
        outputs = ["embedding"]
        if self.extra_output:
            nodes.append(helper.make_node("Neg", ["embedding"], ["other"]))
            outputs.append("other")
        graph = helper.make_graph(
            nodes,
            "foreign",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, self.shape)],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [self.batch_out, self.dim])
                for name in outputs
            ],
            [numpy_helper.from_array(weights, "weights")],
        )
        opset = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=self.ir_version)
        path.write_bytes(model.SerializeToString())
        return path


@pytest.fixture
def foreign(tmp_path):
    """A function that writes such a file."""
    return lambda name="foreign.onnx", **what: Foreign(**what).write(tmp_path / name)


@pytest.fixture
def quantised(tmp_path):
    """A function that quantises a file dynamically."""

    def write(path, name="quantised.onnx"):
        quantize_dynamic(path, tmp_path / name, weight_type=QuantType.QInt8)
        return tmp_path / name

    return write


@pytest.fixture
def config(tmp_path):
    """A function that writes a configuration whose state lies in the test's own folder."""

    def write(models=""):
        path = tmp_path / "kiosk.toml"
        path.write_text(
            f'[server]\nurl = "http://127.0.0.1:9"\n[paths]\nstate_dir = "{tmp_path}/state"\n'
            f'runtime_dir = "{tmp_path}/run"\n[models]\nthreads = 1\n{models}'
        )
        return path

    return write


@pytest.fixture
def made_up(tmp_path):
    """A folder of 112x112 pictures, a folder for each of 12 people: blocks under noise."""
    generator = np.random.default_rng(0)
    for person in range(12):
        folder = tmp_path / "people" / f"p{person:02}"
        folder.mkdir(parents=True)
        blocks = generator.integers(0, 256, (7, 7, 3))
        for number in range(5):
            seen = np.clip(blocks + generator.normal(0, 50, blocks.shape), 0, 255)
            pixels = seen.astype(np.uint8).repeat(16, axis=0).repeat(16, axis=1)
            cv2.imwrite(str(folder / f"{number}.png"), pixels)
    return tmp_path / "people"


@pytest.fixture
def kiosk(capsys):
    """A function that runs one command: exit status, standard output, standard error."""

    return partial(run, capsys)


@pytest.fixture
def with_external_data(tmp_path):
    """A function that writes a file's weights into another beside it."""

    def write(path):
        out = tmp_path / "outside.onnx"
        onnx.save_model(
            onnx.load(path), out, save_as_external_data=True, location="w", size_threshold=0
        )
        return out

    return write
