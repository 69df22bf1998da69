"""Model files get their final name only when they are whole, loaded and run."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from kiosk.errors import KioskError, ModelError
from kiosk.lab.quantise import check_weights, to_bytes
from kiosk.lab.runner import outputs_over, session_of
from kiosk.types import FloatArray


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole; KioskError, and no half file, when that cannot be done."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise KioskError(
            f"{path}: {len(data)} bytes to write, {error.strerror or error}",
            hint="make room or name another folder; nothing was left half-written",
        ) from error
    finally:
        # Gone already when it has its final name.
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def blank_of(model: onnx.ModelProto) -> FloatArray:
    """A picture of zeros as the model's input, where no face is at hand to run it on."""
    constants = {tensor.name for tensor in model.graph.initializer}
    value = next(v for v in model.graph.input if v.name not in constants)
    shape = [max(d.dim_value, 1) for d in value.type.tensor_type.shape.dim]
    return np.zeros(shape, dtype=np.float32)


def write_model(path: Path, model: onnx.ModelProto, inputs: Sequence[FloatArray]) -> bytes:
    """Load and run a model on `inputs`, then write it; returns the file's bytes.

    Raises ModelError when onnxruntime does not take it, or it gives something not finite.
    """
    check_weights(model)
    data = to_bytes(model)
    for outputs in outputs_over(session_of(data), inputs):
        if not np.isfinite(outputs[0]).all():
            raise ModelError(f"{path.name}: finite embeddings expected, it gives others")
    write_bytes(path, data)
    return data
