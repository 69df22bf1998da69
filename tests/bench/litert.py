"""The original TFLite file in LiteRT with XNNPACK, one thread."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from kiosk.errors import KioskError
from kiosk.lab.convert import EMBEDDER, fetch

BATCH = 2
"""Fixed in the file, cannot be resized: one picture is half of a run."""


def runner(values: np.ndarray, cache: Path) -> Callable[[], np.ndarray] | None:
    """A function that embeds a batch of two of `values` (1, 3, 112, 112); None without npm."""
    cached = cache / "tflite" / EMBEDDER.file_name
    if not cached.is_file():
        try:
            with tempfile.TemporaryDirectory() as scratch:
                fetch(Path(scratch))
                cached.parent.mkdir(parents=True, exist_ok=True)
                cached.write_bytes((Path(scratch) / EMBEDDER.file_name).read_bytes())
        except KioskError as error:
            print(f"LiteRT: not measured: {error}")
            return None
    interpreter = Interpreter(model_path=str(cached), num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    sink = interpreter.get_output_details()[0]["index"]
    batch = np.repeat(values.transpose(0, 2, 3, 1), BATCH, axis=0)

    def run() -> np.ndarray:
        interpreter.set_tensor(source, batch)
        interpreter.invoke()
        return interpreter.get_tensor(sink)[0]

    return run
