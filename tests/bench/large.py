"""The 166 MB model: an IResNet-50 of random weights through the plain static path."""

import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from bench.faces import DATA, PEOPLE, halves
from bench.iresnet import iresnet50
from bench.machine import int8_excuse
from bench.models import PLAIN, entry_of, eyes
from bench.table import Row
from bench.timing import best_of, timed
from kiosk.lab.fold import folded, with_pointwise_norms
from kiosk.lab.prelu import as_max, with_slopes_below_one
from kiosk.lab.runner import session_of
from kiosk.vision.embed import preprocess
from kiosk.vision.picture import load_picture

FACES = 16
"""For the ranges: time and size of the result do not depend on how many."""
ROUNDS = 8
NAIVE, LEAN, EIGHT_BITS = "naive FP32", "FP32, folded", "INT8, U8S8 per channel"


class Faces(CalibrationDataReader):
    """Inputs one after another, as ONNX Runtime's calibration asks for them."""

    def __init__(self, name: str, inputs: list[np.ndarray]) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = iter([{name: x} for x in inputs])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def rows() -> list[Row]:
    """Time and size of INT8 against the file as everyone ships it."""
    inputs, naive = _inputs(), iresnet50()
    lean = as_max(with_slopes_below_one(with_pointwise_norms(folded(naive))))
    began = perf_counter()
    small = _quantised(lean, inputs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"IResNet-50: quantised in {perf_counter() - began:.0f} s, peak memory {peak:.0f} MiB")
    models = {NAIVE: naive.SerializeToString(), LEAN: folded(naive), EIGHT_BITS: small}
    sessions = {name: session_of(model, threads=1) for name, model in models.items()}
    runs = {
        name: timed(lambda session=session: session.run(None, {"image": inputs[0]}))
        for name, session in sessions.items()
    }
    best = best_of(runs, ROUNDS)
    for name, ms in best.items():
        print(f"IResNet-50, one thread: {name:24} {ms:6.1f} ms")
    size = len(small) / len(models[NAIVE])
    return [
        Row(
            "IResNet-50 INT8: time against naive FP32",
            best[EIGHT_BITS] / best[NAIVE],
            0.55,
            0.43,
            excuse=int8_excuse(),
        ),
        Row("IResNet-50 INT8: size against FP32", size, 0.26, 0.255),
    ]


def _inputs() -> list[np.ndarray]:
    """Faces of ../shared for calibration; without it the one of the demonstration."""
    if DATA.is_dir():
        crops = [load_picture(path) for path in halves()[0][:: 120 // FACES][:FACES]]
    else:
        crops = [eyes().faces(load_picture(PEOPLE / "obama.jpg"))[0].aligned]
    return [preprocess(crop, entry_of(PLAIN).input)[None] for crop in crops]


def _quantised(model: onnx.ModelProto, inputs: list[np.ndarray]) -> bytes:
    """Convolutions, the dense layer and the sums in 8 bits; PReLU in float between them."""
    keep = [n.name for n in model.graph.node if n.op_type in {"Mul", "Max"}]
    with tempfile.TemporaryDirectory() as scratch:
        source, result = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            result,
            Faces(model.graph.input[0].name, inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "Add"],
            nodes_to_exclude=keep,
        )
        return result.read_bytes()
