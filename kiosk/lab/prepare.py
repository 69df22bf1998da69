"""A model made ready for the workshop: one opset, folded, slopes below one; and its PReLU forms."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import version_converter

from kiosk.errors import GivenModelError, ModelError
from kiosk.lab.equalise import with_factors
from kiosk.lab.fold import folded, with_pointwise_norms
from kiosk.lab.prelu import as_blocked, as_four, as_max, with_slopes_below_one
from kiosk.lab.runner import outputs_over, session_of
from kiosk.lab.subject import Subject

# Scales for each channel need it: on older graphs onnxruntime's quantiser writes a file that its
# own runtime refuses.
LEAST_OPSET = 13
_TAKEN_ENDINGS = ("_scale", "_zero_point", "_quantized")
TOLERANCE = 1e-5
"""How far an exact rewrite may move a value of the normalised embedding."""


def ready(subject: Subject) -> onnx.ModelProto:
    """The FP32 graph in opset 13 or newer, with constants no longer listed as inputs.

    Raises ModelError, naming the file, for a quantised one, and for one that converts to
    something else.
    """
    if subject.is_quantised:
        raise GivenModelError(
            f"{subject.path}: an FP32 model expected, it is quantised already",
            hint="give the FP32 file that it was made of",
        )
    model = onnx.ModelProto()
    model.CopyFrom(subject.proto)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 8)
    _rename_what_clashes(model)
    _name_nodes(model)
    if subject.opset >= LEAST_OPSET:
        return model
    try:
        newer = version_converter.convert_version(model, LEAST_OPSET)
    # The converter raises whatever its C++ side raises.
    except Exception as error:
        # Before it stands the place in the converter's own source, which helps nobody.
        reason = (str(error).splitlines() or [type(error).__name__])[0].split("failed: ")[-1]
        raise GivenModelError(
            f"{subject.path}: opset {subject.opset} cannot be converted to {LEAST_OPSET}: {reason}",
            hint=f"export it with opset {LEAST_OPSET} or newer",
        ) from error
    same_or_refuse(subject, newer, f"converting opset {subject.opset} to {LEAST_OPSET}")
    return newer


def _name_nodes(model: onnx.ModelProto) -> None:
    """Layers are told apart, and excluded, by the names of nodes: each has one of its own."""
    seen: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{node.output[0]}"
        if node.name in seen:
            node.name = f"{node.name}_{number}"
        seen.add(node.name)


def _rename_what_clashes(model: onnx.ModelProto) -> None:
    """ONNX Runtime's quantiser names its own constants by these endings: `x_scale` is x's."""
    names = {
        tensor.name: f"{tensor.name}_given"
        for tensor in model.graph.initializer
        if tensor.name.endswith(_TAKEN_ENDINGS)
    }
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def same_or_refuse(subject: Subject, changed: onnx.ModelProto, what: str) -> None:
    """ModelError when a change that must be exact moves the embedding by more than 1e-5."""
    spec = subject.input
    shape = [spec.batch or 1, 3, spec.height, spec.width]
    if spec.layout == "NHWC":
        shape = [spec.batch or 1, spec.height, spec.width, 3]
    values = np.random.default_rng(0).uniform(-1.0, 1.0, shape).astype(np.float32)
    values = (values * 127.5 + 127.5 - spec.mean) * spec.scale
    with _named(subject):
        before, after = (
            next(outputs_over(session_of(model), [values], [subject.output_name]))[0][0].reshape(-1)
            for model in (subject.proto, changed)
        )
    scale = max(float(np.linalg.norm(before)), 1e-12)
    apart = float(np.abs(after - before).max()) / scale
    if not apart <= TOLERANCE:
        raise ModelError(
            f"{subject.path}: {what} moves its output by {apart:.2g}, at most {TOLERANCE:g}"
            " expected of an exact change"
        )


@contextlib.contextmanager
def _named(subject: Subject) -> Iterator[None]:
    """A ModelError about a graph says which file the graph is of."""
    try:
        yield
    except ModelError as error:
        if str(subject.path) in error.message:
            raise
        raise type(error)(f"{subject.path}: {error.message}", hint=error.hint) from error


def base_of(subject: Subject) -> onnx.ModelProto:
    """The FP32 graph that equalisation works on: folded, slopes above one turned below."""
    with _named(subject):
        model = with_slopes_below_one(with_pointwise_norms(folded(ready(subject))))
    same_or_refuse(subject, model, "folding and turning slopes")
    return model


def float_graph(base: onnx.ModelProto, factors: Mapping[str, Sequence[float]]) -> onnx.ModelProto:
    """The FP32 graph that is quantised: equalised by these factors, PReLU as Mul and Max."""
    return as_max(with_factors(base, factors))


FLOAT_FORMS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "PRelu nodes": lambda model: model,
    "k*x' + relu(x')": as_blocked,
    "a*x + (1-a)*relu(x)": as_four,
    "max(x, a*x)": lambda model: as_max(with_slopes_below_one(model)),
}
"""The exact forms of PReLU in FP32: which is fastest is for each machine to measure."""


def float_forms(subject: Subject) -> dict[str, onnx.ModelProto]:
    """The folded FP32 graph in every form of PReLU, checked to be exact."""
    with _named(subject):
        model = folded(ready(subject))
        forms = {name: rewrite(model) for name, rewrite in FLOAT_FORMS.items()}
    for name, form in forms.items():
        same_or_refuse(subject, form, f"the form {name}")
    return forms
