"""One recipe, one quantised graph: every method of ONNX Runtime's quantiser, and only that."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.registry import IntegerOpsRegistry, QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from kiosk.errors import ModelError
from kiosk.lab.calibrate import Method
from kiosk.lab.ties import write_without_ties
from kiosk.vision.weights import check_file

Kind = Literal["S8", "U8"]
_TYPES = {"S8": QuantType.QInt8, "U8": QuantType.QUInt8}
KNOWN_OP_TYPES = frozenset((*QDQRegistry, *QLinearOpsRegistry, *IntegerOpsRegistry))
"""The operators that one of its methods quantises."""
PERCENTILE = 99.9999
"""The mildest clipping of those that a search tries (`search.CALIBRATIONS`).

Of the default model, all layers in 8 bits (S8S8, tuning faces), cosine mean / least: MinMax 0.9946
/ 0.9891, this 0.9947 / 0.9877, 99.999 0.9948 / 0.9882 (models/TRIED.md). The means are alike, and
what clips more cuts off more of the next face.
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is asked of ONNX Runtime's quantiser.

    `activations` and `weights`: signed or unsigned 8 bits. Signed activations are symmetric
    (zero point 0), unsigned ones not. `reduce_range`: weights of 7 bits. `exclude`: names of
    nodes that stay in FP32. `tie_free_sums`: scales of sums such that every processor rounds them
    to the same side (kiosk/lab/ties.py). The calibration fields mean nothing to the dynamic method.
    """

    method: Literal["static", "dynamic"] = "static"
    format: Literal["QDQ", "QOperator"] = "QDQ"
    activations: Kind = "S8"
    weights: Kind = "S8"
    per_channel: bool = True
    reduce_range: bool = False
    calibration: Method = "Percentile"
    percentile: float = PERCENTILE
    op_types: tuple[str, ...] = ("Conv", "Gemm", "MatMul", "Add")
    exclude: tuple[str, ...] = ()
    tie_free_sums: bool = False

    def document(self) -> dict[str, Any]:
        """The JSON and YAML form."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def recipe_ranges_name(recipe: Recipe) -> str:
    """What the recipe's ranges are called: recipes of one name share a file of ranges."""
    percentile = f"-{recipe.percentile:g}" if recipe.calibration == "Percentile" else ""
    return f"{recipe.calibration.lower()}{percentile}"


def recipe_from(document: dict[str, Any]) -> Recipe:
    """The recipe of a document; ModelError, with the place, for one that is none."""
    try:
        recipe = msgspec.convert(document, Recipe)
    except msgspec.ValidationError as error:
        raise ModelError(f"a recipe of quantisation expected, got: {error}") from error
    unknown = sorted(set(document) - {field.name for field in fields(Recipe)})
    if unknown:
        raise ModelError(f"a recipe of quantisation expected, it has no key - at `$.{unknown[0]}`")
    return recipe


def quantised(model: onnx.ModelProto, recipe: Recipe, ranges: Path | None) -> onnx.ModelProto:
    """The model quantised by the recipe; `ranges` is what `write_ranges` wrote.

    Raises ModelError when the quantiser fails, or makes a weight that ARM's kernels overflow on.
    """
    if recipe.method == "static" and (ranges is None or not ranges.is_file()):
        raise ModelError(f"calibrated ranges expected at {ranges}, nothing is there")
    with tempfile.TemporaryDirectory() as scratch, _quietly():
        source, target = Path(scratch) / "model.onnx", Path(scratch) / "quantised.onnx"
        onnx.save(model, source)
        if recipe.tie_free_sums and ranges is not None and "Add" in recipe.op_types:
            calibrated, ranges = ranges, Path(scratch) / "even.json"
            kind, left_out = recipe.activations, recipe.exclude
            write_without_ties(model, calibrated, ranges, activations=kind, exclude=left_out)
        try:
            if recipe.method == "dynamic":
                _dynamic(source, target, recipe, model.graph.node)
            else:
                _static(source, target, recipe, ranges)
        # The quantiser raises whatever its parts raise.
        except Exception as error:
            raise ModelError(
                f"onnxruntime's quantiser failed: {error}",
                hint="`kiosk lab quantize` leaves operators out: --op-types A,B, or --exclude NODE",
            ) from error
        result = onnx.load(target)
    check_weights(result)
    return result


def _dynamic(source: Path, target: Path, recipe: Recipe, nodes: Sequence[onnx.NodeProto]) -> None:
    types = set(recipe.op_types)
    # The quantiser makes a MatMul of each Gemm first, under another name.
    exclude = {*recipe.exclude, *(f"{name}_MatMul" for name in recipe.exclude)}
    if "Gemm" not in types:
        exclude |= {f"{node.name}_MatMul" for node in nodes if node.op_type == "Gemm"}
    elif "MatMul" not in types:
        exclude |= {node.name for node in nodes if node.op_type == "MatMul"}
        types.add("MatMul")
    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=sorted(types),
        per_channel=recipe.per_channel,
        reduce_range=recipe.reduce_range,
        weight_type=_TYPES[recipe.weights],
        nodes_to_exclude=sorted(exclude),
    )


def _static(source: Path, target: Path, recipe: Recipe, ranges: Path | None) -> None:
    # Per channel, QLinearConv's weights are signed whatever is asked for.
    signed = recipe.weights == "S8" or (recipe.format == "QOperator" and recipe.per_channel)
    quantize_static(
        source,
        target,
        None,
        quant_format=QuantFormat[recipe.format],
        op_types_to_quantize=list(recipe.op_types),
        per_channel=recipe.per_channel,
        reduce_range=recipe.reduce_range,
        activation_type=_TYPES[recipe.activations],
        weight_type=_TYPES[recipe.weights],
        nodes_to_exclude=list(recipe.exclude),
        calibrate_method=CalibrationMethod[recipe.calibration],
        calibration_cache_path=ranges,
        extra_options={
            "ActivationSymmetric": recipe.activations == "S8",
            "WeightSymmetric": signed,
        },
    )


def preprocessed(model: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX Runtime's own preparation: shapes inferred, graph optimised (`quant_pre_process`)."""
    with tempfile.TemporaryDirectory() as scratch, _quietly():
        source, target = Path(scratch) / "model.onnx", Path(scratch) / "ready.onnx"
        onnx.save(model, source)
        quant_pre_process(source, target, skip_symbolic_shape=True)
        return onnx.load(target)


def check_weights(model: onnx.ModelProto) -> None:
    """ModelError when an 8-bit signed weight is -128, by the daemon's own rule."""
    check_file(to_bytes(model), model.graph.name or "quantised")


def in_int8(model: onnx.ModelProto) -> tuple[int, int]:
    """How many layers that multiply by weights do so in 8 bits, and how many there are."""
    made = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    whole, eight = 0, 0
    for node in model.graph.node:
        if node.op_type in {
            "QLinearConv",
            "QLinearMatMul",
            "QGemm",
            "MatMulIntegerToFloat",
        } or node.op_type in {"ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul"}:
            whole, eight = whole + 1, eight + 1
        elif node.op_type in {"Conv", "Gemm", "MatMul"}:
            whole += 1
            maker = made.get(node.input[1])
            stored = constants.get(maker.input[0]) if maker is not None else None
            eight += stored in {TensorProto.INT8, TensorProto.UINT8}
    return eight, whole


def size_of(model: onnx.ModelProto) -> int:
    """Bytes of the file that the model makes."""
    return len(to_bytes(model))


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The file's bytes, the same for the same graph."""
    return bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The quantiser prints and warns about choices that are made on purpose here."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            yield
    finally:
        logger.setLevel(level)
