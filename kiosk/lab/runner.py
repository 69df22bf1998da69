"""Runs a graph over faces: on this machine's own arithmetic, or in the reference arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from kiosk.errors import ModelError
from kiosk.lab.faces import Face
from kiosk.lab.subject import Subject
from kiosk.types import FloatArray
from kiosk.vision.embed import preprocess
from kiosk.vision.manifest import InputSpec
from kiosk.vision.session import INTEGERS

Arithmetic = Literal["native", "reference"]
"""native: as this machine's integer kernels compute. reference: each QDQ operator as ONNX has it.

x86 without VNNI multiplies U8 by S8 through saturating 16-bit sums; ARM and VNNI do not. A
QDQ graph run without any fusion rounds to 8 bits where the graph says so and multiplies in float,
which gives what ARM gives (apart from rounding of ties), on every machine.
"""


def inputs_of(faces: Iterable[Face], spec: InputSpec) -> list[FloatArray]:
    """Each face as the model's input, shape (batch, ...), the face repeated over a fixed batch."""
    repeats = spec.batch or 1
    return [
        np.ascontiguousarray(np.repeat(preprocess(face.pixels, spec)[None], repeats, axis=0))
        for face in faces
    ]


def session_of(
    model: onnx.ModelProto | bytes,
    *,
    threads: int = 2,
    arithmetic: Arithmetic = "native",
    entries: Mapping[str, str] | None = None,
    profile: str | None = None,
) -> ort.InferenceSession:
    """A session on the CPU; ModelError when onnxruntime does not take the graph.

    `entries` are further session entries; `profile` is the prefix of a profile file to write.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if arithmetic == "reference":
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in {**INTEGERS, **(entries or {})}.items():
        options.add_session_config_entry(key, value)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    data = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    # onnxruntime's exceptions have no public base class of their own.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"onnxruntime {ort.__version__} cannot load the graph: {reason}"
        ) from error


def outputs_over(
    session: ort.InferenceSession, inputs: Iterable[FloatArray], names: list[str] | None = None
) -> Iterator[list[NDArray[np.float32]]]:
    """The named outputs (all when None) for each input in turn; ModelError when it fails."""
    name = session.get_inputs()[0].name
    for values in inputs:
        try:
            outputs = session.run(names, {name: values})
        # onnxruntime's exceptions have no public base class of their own.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"onnxruntime {ort.__version__} cannot run the graph: {reason}"
            ) from error
        yield outputs


def embeddings(
    session: ort.InferenceSession, inputs: Iterable[FloatArray], output: str | None = None
) -> FloatArray:
    """L2-normalised embeddings, float32 (faces, dim); ModelError for one that has no length."""
    rows = [
        outputs[0][0].reshape(-1).astype(np.float64)
        for outputs in outputs_over(session, inputs, None if output is None else [output])
    ]
    matrix = np.stack(rows)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms < 1e-12).any():
        bad = int((~np.isfinite(norms) | (norms < 1e-12)).sum())
        raise ModelError(f"embeddings of finite length expected, {bad} of {len(matrix)} have none")
    unit: FloatArray = (matrix / norms).astype(np.float32)
    return unit


def embeddings_of(
    subject: Subject, faces: Iterable[Face], *, threads: int = 2, arithmetic: Arithmetic = "native"
) -> FloatArray:
    """The embeddings of a file's own graph over faces."""
    session = session_of(subject.proto, threads=threads, arithmetic=arithmetic)
    return embeddings(session, inputs_of(faces, subject.input), subject.output_name)
