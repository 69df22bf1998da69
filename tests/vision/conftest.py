"""Tiny ONNX models whose answer is known by arithmetic, each in a folder with its manifest."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kiosk.vision.manifest import Manifest, load_manifest


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

    @property
    def weights(self) -> np.ndarray:
        return np.random.default_rng(11).normal(size=(3, self.dim)).astype(np.float32)

    def onnx_bytes(self) -> bytes:
        batch = self.file_batch or self.batch or "N"
        shape = [batch, 3, 112, 112] if self.layout == "NCHW" else [batch, 112, 112, 3]
        axes = [2, 3] if self.layout == "NCHW" else [1, 2]
        nodes = [
            helper.make_node("ReduceMean", ["image"], ["means"], axes=axes, keepdims=0),
            helper.make_node("MatMul", ["means", "w"], ["embedding"]),
            *(helper.make_node("Neg", ["embedding"], [name]) for name in self.extra_outputs),
        ]
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, self.dim])
            for name in (*self.extra_outputs, "embedding")
        ]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
        weights = [numpy_helper.from_array(self.weights, "w")]
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
