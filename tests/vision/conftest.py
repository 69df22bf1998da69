"""Tiny ONNX models whose answer is known by arithmetic, each in a folder with its manifest."""

import hashlib
import json
import logging
from dataclasses import dataclass, field

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from kiosk.clock import SystemClock
from kiosk.config import Models
from kiosk.vision.choice_file import CHOICE_FILE
from kiosk.vision.manifest import Manifest, load_manifest
from kiosk.vision.selection import select

PI5 = "Features\t: asimd asimddp\nCPU part\t: 0xd0b\n"


@dataclass
class TinyModel:
    """Channel means of the input times a matrix (3, dim): order and scale of channels show."""

    layout: str = "NCHW"
    channels: str = "RGB"
    mean: float = 127.5
    scale: float = 1 / 127.5
    dim: int = 192
    batch: int = 1
    file_batch: int | str | None = None
    output: str = "embedding"
    extra_outputs: list[str] = field(default_factory=list)
    convolution: bool = False
    """An identity before all else: something to quantise, which changes nothing."""

    @property
    def weights(self) -> np.ndarray:
        return np.random.default_rng(11).normal(size=(3, self.dim)).astype(np.float32)

    def onnx_bytes(self) -> bytes:
        batch = self.file_batch or self.batch or "N"
        shape = [batch, 3, 112, 112] if self.layout == "NCHW" else [batch, 112, 112, 3]
        seen = "seen" if self.convolution else "image"
        axes = [2, 3] if self.layout == "NCHW" else [1, 2]
        nodes = [
            *([helper.make_node("Conv", ["image", "eye"], ["seen"])] if self.convolution else []),
            helper.make_node("ReduceMean", [seen], ["means"], axes=axes, keepdims=0),
            helper.make_node("MatMul", ["means", "w"], ["embedding"]),
            *(helper.make_node("Neg", ["embedding"], [name]) for name in self.extra_outputs),
        ]
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, self.dim])
            for name in (*self.extra_outputs, "embedding")
        ]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
        weights = [numpy_helper.from_array(self.weights, "w")]
        if self.convolution:
            eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
            weights.append(numpy_helper.from_array(eye, "eye"))
        graph = helper.make_graph(nodes, "graph", [image], outputs, weights)
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def expected(self, crop: np.ndarray) -> np.ndarray:
        """The unit vector this model stands for, on a BGR crop, by plain arithmetic."""
        means = crop.astype(np.float64).mean(axis=(0, 1))
        means = means[::-1] if self.channels == "RGB" else means
        raw = (means - self.mean) * self.scale @ self.weights.astype(np.float64)
        return raw / np.linalg.norm(raw)

    def listing(self, digest: str, **changes: object) -> str:
        """The `[[model]]` table; `changes` replaces or (with None) leaves out keys."""
        table = {
            "id": "tiny-fp32",
            "kind": "embedder",
            "file": "tiny.onnx",
            "sha256": digest,
            "licence": "CC0-1.0",
            "source": "made by a test",
            "output": self.output,
            "dim": self.dim,
            "space": "tiny",
            "alignment": "arcface-112-4pt",
            "threshold": 0.5,
        } | changes
        lines = [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]
        values = (
            f'layout = "{self.layout}", channels = "{self.channels}", width = 112, height = 112,'
            f" mean = {self.mean}, scale = {self.scale}, batch = {self.batch}"
        )
        return "\n".join(["[[model]]", *lines, f"input = {{ {values} }}", ""])


def _toml(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.fixture
def tiny():
    """The class, to be made with what a test wants of it."""
    return TinyModel


@pytest.fixture
def put_model(tmp_path):
    """Write a model and its manifest into a folder; the manifest read with it."""

    def put(model: TinyModel, **changes: object) -> Manifest:
        data = model.onnx_bytes()
        (tmp_path / "tiny.onnx").write_bytes(data)
        listing = model.listing(hashlib.sha256(data).hexdigest(), **changes)
        (tmp_path / "manifest.toml").write_text(listing, encoding="utf-8")
        return load_manifest([tmp_path])

    return put


@pytest.fixture
def crop():
    """A crop whose blue, green and red differ widely; BGR."""
    pixels = np.random.default_rng(2).integers(0, 60, (112, 112, 3), dtype=np.uint8)
    return pixels + np.array([0, 70, 190], dtype=np.uint8)


class _Crops(CalibrationDataReader):
    def __init__(self):
        rng = np.random.default_rng(5)
        # One colour each: the mean of noise is grey, and would leave no range to quantise in.
        colours = rng.uniform(-1, 1, (40, 1, 3, 1, 1)).astype(np.float32)
        self._left = [{"image": np.tile(colour, (1, 1, 112, 112))} for colour in colours]

    def get_next(self):
        return self._left.pop() if self._left else None


def _spoiled(path, spoil):
    """Change the first INT8 weight of a file in place."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) >= 2:
            values = numpy_helper.to_array(tensor).copy()
            spoil(values)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            break
    onnx.save(model, path)


@pytest.fixture
def put_int8(tmp_path):
    """tiny-fp32 and tiny-int8 of one space, with golden faces beside them.

    Returns the INT8 file's path and entry; `spoil` changes its weights before it is pinned.
    """

    def put(spoil=None, format_=QuantFormat.QDQ, activation=QuantType.QInt8, **model_changes):
        model = TinyModel(**model_changes)
        fp32, int8 = tmp_path / "tiny.onnx", tmp_path / "tiny-int8.onnx"
        fp32.write_bytes(model.onnx_bytes())
        quantize_static(
            fp32,
            int8,
            _Crops(),
            quant_format=format_,
            activation_type=activation,
            weight_type=QuantType.QInt8,
        )
        if spoil is not None:
            _spoiled(int8, spoil)
        tables = [
            model.listing(hashlib.sha256(path.read_bytes()).hexdigest(), id=id_, file=path.name)
            for id_, path in (("tiny-fp32", fp32), ("tiny-int8", int8))
        ]
        (tmp_path / "manifest.toml").write_text("\n".join(tables), encoding="utf-8")
        put_golden(tmp_path / "golden", model)
        return int8, load_manifest([tmp_path]).get("tiny-int8", "embedder")

    return put


def put_golden(folder, model):
    """Three crops, far enough from grey for INT8 to see, with what the model gives for them."""
    folder.mkdir(exist_ok=True)
    golden = {}
    for number, colour in enumerate(([10, 90, 220], [230, 60, 20], [40, 240, 120])):
        name = f"{number}.png"
        crop = np.full((112, 112, 3), colour, np.uint8)
        cv2.imwrite(str(folder / name), crop)
        golden[name] = [round(float(v), 7) for v in model.expected(crop)]
    (folder / "tiny.json").write_text(json.dumps(golden), encoding="utf-8")


@pytest.fixture
def pin(tmp_path):
    """Any bytes as a model file, pinned with their own hash; its entry."""

    def put(data, id_="tiny-int8", **model_changes):
        (tmp_path / "pinned.onnx").write_bytes(data)
        listing = TinyModel(**model_changes).listing(
            hashlib.sha256(data).hexdigest(), id=id_, file="pinned.onnx"
        )
        (tmp_path / "manifest.toml").write_text(listing, encoding="utf-8")
        return load_manifest([tmp_path]).get(id_, "embedder")

    return put


class Stopped:
    """A clock that nobody may look at: whoever does, measures."""

    def boottime_ns(self):
        raise AssertionError("measured again")


@pytest.fixture
def choice(tmp_path, caplog):
    """Select among the tiny models in tmp_path; returns the selection and the journal's events."""
    (tmp_path / "state").mkdir()
    (tmp_path / "cpuinfo").write_text(PI5)

    def run(clock=None, keep=True, **settings):
        caplog.clear()
        models = Models(
            **({"embedder": "tiny-fp32", "extra_dirs": (str(tmp_path),), "threads": 1} | settings)
        )
        with caplog.at_level(logging.INFO):
            selection = select(
                models,
                load_manifest(models.extra_dirs),
                clock=clock or SystemClock(),
                cache=tmp_path / "state" / CHOICE_FILE,
                keep=keep,
                cpuinfo=tmp_path / "cpuinfo",
            )
        return selection, {record.message: record.fields for record in caplog.records}

    return run


@pytest.fixture
def stopped():
    return Stopped()
