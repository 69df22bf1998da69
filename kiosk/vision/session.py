"""Model files into running sessions: the only place that knows onnxruntime."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from kiosk.errors import ModelError
from kiosk.vision.cpu import read_cpu
from kiosk.vision.manifest import ModelEntry
from kiosk.vision.weights import check_file

RUNTIME = f"onnxruntime {ort.__version__}"
INTEGERS = {"session.qdqisint8allowed": "1"}
"""A signed QDQ graph is computed in the 8-bit integers that were judged, as onnxruntime does by
itself on ARM. On x86 it would make some of them unsigned and compute the others in float."""


def verified_bytes(entry: ModelEntry) -> bytes:
    """The file's bytes, after size and SHA-256 agree with the manifest.

    The very bytes that were checked are loaded, so nobody can swap the file in between.
    """
    try:
        data = entry.path.read_bytes()
    except OSError as error:
        hint = "reinstall" if entry.shipped else f"get it from {entry.source}"
        raise ModelError(
            f"model {entry.id}: file {entry.path} expected, {error.strerror}", hint=hint
        ) from error
    if entry.size and len(data) != entry.size:
        raise ModelError(
            f"model {entry.id}: {entry.path.name} is {entry.size} bytes by the manifest,"
            f" got {len(data)}",
            hint="the file is damaged or another one; put the right one back",
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise ModelError(
            f"model {entry.id}: {entry.path.name} has SHA-256 {entry.sha256} by the manifest,"
            f" got {digest}",
            hint="the file is damaged or another one; put the right one back",
        )
    return data


def _options(threads: int, entries: Mapping[str, str]) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Left unset, onnxruntime pins threads and complains under a cpuset.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    # A kiosk idles most of the day: spinning threads would heat the board for nothing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options


def runtime_session(
    data: bytes,
    threads: int,
    *,
    entries: Mapping[str, str] | None = None,
    profile: str | None = None,
) -> ort.InferenceSession:
    """A session of onnxruntime with the daemon's settings.

    INT8 is computed in integers on every machine (`INTEGERS`), and the products of a QDQ graph do
    not saturate. Where VNNI is, the setting against that is left out: onnxruntime would heed it
    there too, for slower kernels and nothing won. `entries` are further session entries, `profile`
    the prefix of a profile file. Raises whatever onnxruntime raises.
    """

    def load(more: Mapping[str, str]) -> ort.InferenceSession:
        options = _options(threads, {**INTEGERS, **more, **(entries or {})})
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    if read_cpu().saturates:
        # S8S8 has no kernel for the setting, and is exact without it: what cannot be loaded with
        # it is loaded below, or fails there by name.
        with contextlib.suppress(Exception):
            return load({"session.x64quantprecision": "1"})
    return load({})


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class Session:
    """A verified model ready to run. Raises ModelError by name for anything that does not fit."""

    def __init__(self, entry: ModelEntry, threads: int) -> None:
        data = verified_bytes(entry)
        self._id = entry.id
        # Before onnxruntime sees it: that would read whatever file a tensor names.
        check_file(data, entry.id)
        try:
            self._session = runtime_session(data, threads)
        # onnxruntime's exceptions have no public base class of their own.
        except Exception as error:
            raise ModelError(
                f"model {entry.id}: {RUNTIME} cannot load {entry.path.name}: {_reason(error)}",
                hint="a single self-contained ONNX file is expected, without external data",
            ) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ModelError(f"model {entry.id}: one input expected, got {len(inputs)}")
        self.input_name = str(inputs[0].name)
        self._check_input(entry, list(inputs[0].shape))
        self.outputs = tuple(str(output.name) for output in self._session.get_outputs())
        # A sequence has no shape at all.
        found = self._session.get_outputs()
        self.output_shapes = tuple(list(output.shape or ()) for output in found)
        self.output_types = tuple(str(output.type) for output in found)

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """All outputs for one input of the model's own shape; ModelError when it cannot run."""
        try:
            result: list[NDArray[np.float32]] = self._session.run(None, {self.input_name: batch})
        except Exception as error:
            raise ModelError(
                f"model {self._id}: {RUNTIME} cannot run it on"
                f" {batch.dtype} of shape {batch.shape}: {_reason(error)}",
                hint="mend input of this model in manifest.toml",
            ) from error
        return result

    @staticmethod
    def _check_input(entry: ModelEntry, shape: list[int | str | None]) -> None:
        spec = entry.input
        picture = [3, spec.height, spec.width]
        if spec.layout == "NHWC":
            picture = [spec.height, spec.width, 3]
        expected = [spec.batch or "any", *picture]
        # A named or missing dimension of the file is free and takes what the manifest says.
        fits = len(shape) == 4 and all(
            not isinstance(got, int) or want in {"any", got}
            for got, want in zip(shape, expected, strict=True)
        )
        if not fits or (spec.batch == 0 and isinstance(shape[0], int)):
            raise ModelError(
                f"model {entry.id}: input {spec.layout} {expected} expected by the manifest,"
                f" the file takes {shape}",
                hint="mend layout, width, height or batch of this model in manifest.toml",
            )
