"""An ONNX file that claims to be a face embedder: what goes in, what comes out, how it is fed."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from kiosk.errors import GivenModelError, ModelError
from kiosk.lab.inside import inside
from kiosk.lab.progress import say
from kiosk.vision.manifest import InputSpec, Manifest, load_manifest
from kiosk.vision.onnx_file import contents_of
from kiosk.vision.protobuf import DamagedError
from kiosk.vision.weights import check_file, int8_weights

OPSET = 17
"""What older and newer graphs are converted to before anything else is done with them."""
MOST_BYTES = 2 * 1024**3
"""What a protobuf message holds at most: no ONNX file in one piece is larger."""
_LEAST_DIM, _MOST_DIM = 32, 1024
_QUANTISED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
_QUANTISED |= {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "QGemm", "MatMulIntegerToFloat"}
ARCFACE_SCALE = 1.0 / 127.5


@dataclass(frozen=True, slots=True)
class Feeding:
    """What an ONNX file does not tell: the order of the colours and the normalisation.

    None is ArcFace's, or the pixels as they are for a graph that normalises them itself.
    """

    channels: Literal["RGB", "BGR"] = "RGB"
    mean: float | None = None
    scale: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One model under work. `proto` is as read; `sha256` that of the file."""

    path: Path
    sha256: str
    proto: onnx.ModelProto
    input: InputSpec
    input_name: str
    output_name: str
    dim: int
    opset: int
    space: str | None
    """The manifest's space when the file is in it, by hash."""
    remark: str = ""
    """What the graph itself says of its feeding, where that was not told by anybody else."""

    @property
    def is_quantised(self) -> bool:
        """Whether any operator works on 8-bit numbers."""
        return is_quantised(self.proto)


def require_fit(subject: Subject) -> None:
    """ModelError for weights that the daemon refuses: no figure may say that the file is fine."""
    check_file(subject.proto.SerializeToString(), str(subject.path))


def unfit_weights(subject: Subject) -> int:
    """How many INT8 weights are -128, on which ARM's kernels overflow; 0 for a file that is fit."""
    data = subject.proto.SerializeToString()
    try:
        check_file(data, str(subject.path))
    except ModelError:
        found = int8_weights(data, str(subject.path))
        return max(1, sum(int(np.count_nonzero(w.values == -128)) for w in found))
    return 0


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether any operator of a graph works on 8-bit numbers."""
    return any(node.op_type in _QUANTISED for node in model.graph.node)


def read_subject(
    path: Path,
    feeding: Feeding | None = None,
    manifest: Manifest | None = None,
    *,
    tell: bool = True,
) -> Subject:
    """Read a file and find out how it is fed; a file of the manifest is fed as that says.

    With `tell` what the graph shows of it is told on standard error. The manifest is the shipped
    one unless another is given. Raises GivenModelError, naming the file, for what is no ONNX file,
    keeps its weights elsewhere, or has not one picture as input and one embedding as output.
    """
    data = _bytes_of(path)
    try:
        proto = onnx.load_model_from_string(data)
        if not proto.graph.node:
            raise GivenModelError(f"{path}: an ONNX graph expected, it has no node")
    except DecodeError as error:
        raise GivenModelError(f"{path}: an ONNX file expected, got something else") from error
    _refuse_external_data(path, data)
    digest = hashlib.sha256(data).hexdigest()
    entries = (load_manifest() if manifest is None else manifest).entries
    known = {entry.sha256: entry for entry in entries}.get(digest)
    layout, width, height, batch, input_name = _input(path, proto)
    output_name, dim = _output(path, proto, batch)
    remark = ""
    if known is not None and known.kind == "embedder":
        spec, space = known.input, known.space
    else:
        mean, scale, remark = _fed(path, proto, input_name, feeding or Feeding())
        spec, space = (
            InputSpec(
                layout=layout,
                channels=(feeding or Feeding()).channels,
                width=width,
                height=height,
                mean=mean,
                scale=scale,
                batch=batch,
            ),
            None,
        )
    if remark and tell:
        say(remark)
    opset = next((o.version for o in proto.opset_import if o.domain in {"", "ai.onnx"}), 0)
    return Subject(path, digest, proto, spec, input_name, output_name, dim, opset, space, remark)


def _fed(path: Path, proto: onnx.ModelProto, name: str, asked: Feeding) -> tuple[float, float, str]:
    """Mean and scale, and what there is to say of them where nobody named either."""
    found = inside(proto, name)
    mean, scale = (0.0, 1.0) if found is not None and found.raw else (127.5, ARCFACE_SCALE)
    given = (
        mean if asked.mean is None else asked.mean,
        scale if asked.scale is None else asked.scale,
    )
    if found is None or found.raw is False or (asked.mean, asked.scale) != (None, None):
        return *given, ""
    if found.raw:
        words = f"it normalises pixels itself ({found.words}), so it is fed them as they are"
        return *given, f"{path}: {words}; --mean and --scale say otherwise"
    words = f"warning: it may normalise by itself ({found.words}), which cannot be told"
    return *given, (
        f"{path}: {words}: fed (pixel - {mean:g}) * {scale:.6g}; if that is wrong, name --mean and"
        " --scale"
    )


def _bytes_of(path: Path) -> bytes:
    """The file's bytes; ModelError for a pipe, which would hang, and a device, which has no end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise GivenModelError(f"{path}: an ONNX file expected, it is no regular file")
            if facts.st_size > MOST_BYTES:
                raise GivenModelError(
                    f"{path}: an ONNX file of at most {MOST_BYTES} bytes expected,"
                    f" got {facts.st_size}"
                )
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise GivenModelError(f"{path}: an ONNX file expected, {error.strerror}") from error


def _refuse_external_data(path: Path, data: bytes) -> None:
    try:
        outside = contents_of(data).outside
    except DamagedError as error:
        raise GivenModelError(f"{path}: a whole ONNX file expected, {error}") from error
    if outside:
        raise GivenModelError(
            f"{path}: one self-contained file expected, {len(outside)} weights lie in another"
            f" ({outside[0]} first)",
            hint="onnx.save(onnx.load(FILE), OUT) writes them into one file",
        )


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    """The dimensions; None for a free one, which some exporters write as -1."""
    return [d.dim_value if d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim]


def _type_name(kind: int) -> str:
    """float16 and the like, as numpy and most tools write it."""
    name = str(onnx.TensorProto.DataType.Name(kind)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _input(
    path: Path, proto: onnx.ModelProto
) -> tuple[Literal["NCHW", "NHWC"], int, int, int, str]:
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise GivenModelError(f"{path}: one input expected, got {len(inputs)} ({names})")
    shape = _shape(inputs[0])
    kind = inputs[0].type.tensor_type.elem_type
    if kind != onnx.TensorProto.FLOAT:
        raise GivenModelError(
            f"{path}: a picture in float32 expected, {inputs[0].name} is {_type_name(kind)}",
            hint="export it in float32",
        )
    if len(shape) != 4:
        raise GivenModelError(f"{path}: a picture of four dimensions expected, got {shape}")
    layout: Literal["NCHW", "NHWC"]
    if shape[1] == 3:
        layout, (height, width) = "NCHW", shape[2:]
    elif shape[3] == 3:
        layout, (height, width) = "NHWC", shape[1:3]
    else:
        raise GivenModelError(f"{path}: three colours in dimension 1 or 3 expected, got {shape}")
    if (height or 112, width or 112) != (112, 112):
        raise GivenModelError(
            f"{path}: a picture of 112x112 expected, the file takes {width}x{height}"
        )
    return layout, 112, 112, shape[0] or 0, inputs[0].name


def _output(path: Path, proto: onnx.ModelProto, batch: int) -> tuple[str, int]:
    outputs = list(proto.graph.output)
    if len(outputs) != 1:
        names = ", ".join(value.name for value in outputs)
        raise GivenModelError(
            f"{path}: one embedding as output expected, got {len(outputs)} ({names})"
        )
    shape = _shape(outputs[0])
    dim = shape[-1] if len(shape) > 1 else None
    rest = [size for size in shape[1:-1] if size not in {1, None}]
    rest += [size for size in shape[:1] if batch and size not in {batch, None}]
    kind = outputs[0].type.tensor_type.elem_type
    if kind != onnx.TensorProto.FLOAT:
        raise GivenModelError(
            f"{path}: one embedding in float32 expected, {outputs[0].name} is {_type_name(kind)}",
            hint="export it in float32",
        )
    if dim is None or rest or not _LEAST_DIM <= dim <= _MOST_DIM:
        raise GivenModelError(
            f"{path}: one embedding of {_LEAST_DIM} to {_MOST_DIM} values expected for each face,"
            f" the output {outputs[0].name} has the shape {shape}"
        )
    return outputs[0].name, dim
