"""What activations look like over calibration faces: ranges for ONNX Runtime's quantiser, and more.

The calibrators are ONNX Runtime's own. Their result is a file of ranges, from which a model is
quantised again without a face.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator
from onnxruntime.quantization.calibrate import TensorsData, load_tensors_data, save_tensors_data

from kiosk.errors import ModelError
from kiosk.lab.progress import track
from kiosk.lab.runner import outputs_over, session_of
from kiosk.types import FloatArray

Method = Literal["MinMax", "Entropy", "Percentile"]

# Every intermediate output of so many faces is held at once: 60 MB for a MobileFaceNet's, 0.5 GB
# for an IResNet-50's.
_AT_ONCE = 4


class FaceReader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds a model's inputs to ONNX Runtime's calibrators."""

    def __init__(self, input_name: str, inputs: Sequence[FloatArray]) -> None:
        self._name = input_name
        self._inputs = inputs
        self._next: Iterator[FloatArray] = iter(inputs)

    def get_next(self) -> dict[str, FloatArray] | None:
        """The next input by name, None after the last."""
        values = next(self._next, None)
        return None if values is None else {self._name: values}

    def __len__(self) -> int:
        return len(self._inputs)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these inputs only."""
        self._next = iter(self._inputs[start_index:end_index])


def write_ranges(
    model: onnx.ModelProto,
    inputs: Sequence[FloatArray],
    target: Path,
    *,
    method: Method,
    percentile: float,
    op_types: Sequence[str],
) -> None:
    """The least and greatest value of every tensor of `op_types`, as a file for the quantiser.

    Raises ModelError when no range can be had of these inputs.
    """
    options: dict[str, Any] = {"percentile": percentile} if method == "Percentile" else {}
    try:
        _write_ranges(
            model,
            inputs,
            target,
            method=CalibrationMethod[method],
            options=options,
            op_types=op_types,
        )
    # A calibrator raises whatever its parts raise.
    except Exception as error:
        raise ModelError(
            f"onnxruntime's calibration ({method}) of {len(inputs)} inputs failed: {error}"
        ) from error


def _write_ranges(
    model: onnx.ModelProto,
    inputs: Sequence[FloatArray],
    target: Path,
    *,
    method: CalibrationMethod,
    options: dict[str, Any],
    op_types: Sequence[str],
) -> None:
    reader = FaceReader(model.graph.input[0].name, inputs)
    with tempfile.TemporaryDirectory() as scratch:
        source, augmented = Path(scratch) / "model.onnx", Path(scratch) / "augmented.onnx"
        onnx.save(model, source)
        calibrator = create_calibrator(
            source,
            list(op_types),
            augmented_model_path=str(augmented),
            calibrate_method=method,
            extra_options=options,
        )
        starts = range(0, len(inputs), _AT_ONCE)
        for start in track(starts, f"calibrating ({method.name})"):
            reader.set_range(start, start + _AT_ONCE)
            with contextlib.redirect_stdout(io.StringIO()):
                calibrator.collect_data(reader)
        with contextlib.redirect_stdout(io.StringIO()):
            save_tensors_data(calibrator.compute_data(), target)


def widen(path: Path, tensors: Iterable[str], factor: float) -> None:
    """Make the ranges of these tensors in a file of `write_ranges` wider, both ends by `factor`."""
    document = json.loads(path.read_text(encoding="utf-8"))
    for name in tensors:
        entry = document["data"].get(name, {})
        for end in ("lowest", "highest"):
            value = entry.get(end)
            if isinstance(value, dict):
                value["data"] = (np.asarray(value["data"]) * factor).tolist()
            elif value is not None:
                entry[end] = value * factor
    path.write_text(json.dumps(document), encoding="utf-8")


def read_ranges(path: Path) -> TensorsData:
    """A file that `write_ranges` wrote; ModelError for anything else."""
    try:
        return load_tensors_data(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: calibrated ranges expected, got: {error}") from error


def channel_ranges(
    model: onnx.ModelProto, inputs: Sequence[FloatArray], tensors: Iterable[str]
) -> dict[str, NDArray[np.float32]]:
    """The largest magnitude of each channel of these tensors, float32 (channels,)."""
    names = list(tensors)
    # Asked for no output, onnxruntime would give all of them.
    if not names:
        return {}
    session = session_of(exposing(model, names))
    largest: dict[str, NDArray[np.float32]] = {}
    for outputs in track_outputs(session, inputs, names, "ranges of channels"):
        for name, values in zip(names, outputs, strict=True):
            axes = tuple(axis for axis in range(values.ndim) if axis != 1)
            each = np.abs(values).max(axis=axes)
            largest[name] = each if name not in largest else np.maximum(largest[name], each)
    return largest


def without_place(
    model: onnx.ModelProto, values: FloatArray, tensors: Iterable[str]
) -> tuple[str, ...]:
    """Those of the tensors that hold one value for each channel of a face: no rows, no columns."""
    names = list(tensors)
    if not names:
        return ()
    outputs = next(outputs_over(session_of(exposing(model, names)), [values], names))
    shapes = {name: output.shape for name, output in zip(names, outputs, strict=True)}
    return tuple(name for name, shape in shapes.items() if set(shape[2:]) <= {1})


def channel_means(
    model: onnx.ModelProto, inputs: Sequence[FloatArray], tensors: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """The mean of each channel of these tensors over all inputs, float64 (channels,)."""
    if not tensors:
        return {}
    session = session_of(exposing(model, tensors), arithmetic="reference")
    total: dict[str, NDArray[np.float64]] = {}
    for outputs in outputs_over(session, inputs, list(tensors)):
        for name, values in zip(tensors, outputs, strict=True):
            axes = tuple(axis for axis in range(values.ndim) if axis != 1)
            total[name] = total.get(name, 0.0) + values.mean(axis=axes, dtype=np.float64)
    return {name: values / len(inputs) for name, values in total.items()}


def exposing(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """The model with these tensors as outputs besides its own."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    known = {value.name for value in result.graph.output}
    for name in tensors:
        if name not in known:
            result.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return result


def track_outputs(
    session: Any, inputs: Sequence[FloatArray], names: list[str], what: str
) -> Iterator[list[NDArray[np.float32]]]:
    """The named outputs for each input, under a progress bar."""
    return outputs_over(session, track(inputs, what), names)
