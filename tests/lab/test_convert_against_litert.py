"""The converted files compute what the originals compute in LiteRT, to 1e-4."""

import json

import cv2
import numpy as np
import pytest

from kiosk.lab.convert import DETECTOR, EMBEDDER, build
from kiosk.types import Embedding
from kiosk.vision.manifest import shipped_models_dir

TOLERANCE = 1e-4
EMBEDDER_FILES = ("mobilefacenet-fp32.onnx", "mobilefacenet-prelu-fp32.onnx")


@pytest.fixture(scope="module")
def litert(tflite_dir):
    """Run one of the original files on an NCHW input; outputs by their own names."""
    from ai_edge_litert.interpreter import Interpreter

    loaded = {}

    def run(source, values):
        name = source.file_name
        if name not in loaded:
            loaded[name] = Interpreter(str(tflite_dir / name), num_threads=1)
            loaded[name].allocate_tensors()
        interpreter = loaded[name]
        (wanted,) = interpreter.get_input_details()
        pixels = np.repeat(values.transpose(0, 2, 3, 1), wanted["shape"][0], axis=0)
        interpreter.set_tensor(wanted["index"], np.ascontiguousarray(pixels))
        interpreter.invoke()
        details = interpreter.get_output_details()
        return {item["name"]: interpreter.get_tensor(item["index"])[:1] for item in details}

    return run


def noise(size, seed):
    return np.random.default_rng(seed).uniform(-1, 1, (1, 3, size, size)).astype(np.float32)


def as_input(pixels, size):
    """A BGR picture as RGB in -1..1, NCHW."""
    scaled = cv2.resize(pixels, (size, size))[:, :, ::-1].transpose(2, 0, 1)[None]
    return np.ascontiguousarray((scaled.astype(np.float32) - 127.5) / 127.5)


def faces():
    """The golden crops as BGR pictures."""
    paths = sorted((shipped_models_dir() / "golden").glob("*.png"))
    assert paths
    return [cv2.imread(str(path)) for path in paths]


@pytest.mark.parametrize("name", EMBEDDER_FILES)
def test_the_embedder_agrees_on_noise(litert, run_onnx, name):
    """Random inputs give the same 192 values, rewritten or not."""
    data = (shipped_models_dir() / name).read_bytes()
    for seed in range(3):
        values = noise(112, seed)
        expected = litert(EMBEDDER, values)["embeddings"]
        got = run_onnx(data, values)["embedding"]
        assert got.shape == (1, 192)
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", EMBEDDER_FILES)
def test_the_embedder_agrees_on_faces(litert, run_onnx, name):
    """Aligned faces give the same 192 values, rewritten or not."""
    data = (shipped_models_dir() / name).read_bytes()
    for face in faces():
        values = as_input(face, 112)
        expected = litert(EMBEDDER, values)["embeddings"]
        np.testing.assert_allclose(
            run_onnx(data, values)["embedding"], expected, rtol=0, atol=TOLERANCE
        )


def test_the_embedder_agrees_on_evaluation_crops(litert, run_onnx, shared):
    """Crops of many people, not only those that are shipped."""
    data = (shipped_models_dir() / EMBEDDER_FILES[0]).read_bytes()
    paths = sorted((shared / "data" / "faces112").glob("*/*"))[::40]
    assert paths
    for path in paths:
        values = as_input(cv2.imread(str(path)), 112)
        expected = litert(EMBEDDER, values)["embeddings"]
        np.testing.assert_allclose(
            run_onnx(data, values)["embedding"], expected, rtol=0, atol=TOLERANCE
        )


def test_the_detector_agrees(litert, run_onnx):
    """Noise and faces give the same regressors and raw scores, in the same anchor order."""
    data = (shipped_models_dir() / "blazeface-short-fp32.onnx").read_bytes()
    for values in (noise(128, 1), *(as_input(face, 128) for face in faces())):
        expected = litert(DETECTOR, values)
        got = run_onnx(data, values)
        assert got["regressors"].shape == (1, 896, 16)
        assert got["scores"].shape == (1, 896, 1)
        for ours, theirs in (("regressors", "regressors"), ("scores", "classificators")):
            # Scores far below zero and boxes in pixels run into hundreds.
            np.testing.assert_allclose(got[ours], expected[theirs], rtol=TOLERANCE, atol=TOLERANCE)


def test_a_wrong_channel_order_would_be_noticed(litert, run_onnx):
    """BGR in place of RGB is far outside the tolerance: the comparison can fail."""
    data = (shipped_models_dir() / EMBEDDER_FILES[0]).read_bytes()
    values = as_input(faces()[0], 112)
    expected = litert(EMBEDDER, np.ascontiguousarray(values[:, ::-1]))["embeddings"]
    assert np.abs(run_onnx(data, values)["embedding"] - expected).max() > 100 * TOLERANCE


def test_the_golden_embeddings_are_the_originals(litert):
    """Golden values come out of LiteRT too: they are no echo of our own conversion."""
    folder = shipped_models_dir() / "golden"
    golden = json.loads((folder / "mobilefacenet-192-4pt.json").read_text(encoding="utf-8"))
    for name, values in golden.items():
        original = litert(EMBEDDER, as_input(cv2.imread(str(folder / name)), 112))["embeddings"]
        pair = [Embedding.of(np.array(v), "any") for v in (values, original[0])]
        assert pair[0].similarity(pair[1]) > 0.999999


def test_a_rebuild_gives_the_shipped_bytes(tflite_dir):
    """Anyone who converts again gets the files that are shipped, bit for bit, twice."""
    built = build(tflite_dir)
    assert built == build(tflite_dir)
    assert set(built) == {path.name for path in shipped_models_dir().glob("*fp32.onnx")}
    for name, data in built.items():
        assert data == (shipped_models_dir() / name).read_bytes(), name
