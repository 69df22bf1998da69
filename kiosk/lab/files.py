"""Model files get their final name only when they are whole, loaded and run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx

from kiosk.errors import KioskError, ModelError, UserError
from kiosk.lab.quantise import check_weights, to_bytes
from kiosk.lab.runner import outputs_over, session_of
from kiosk.types import FloatArray
from kiosk.vault import sync_folder

_STAGE = ".new-"


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole; KioskError, and no half file, when that cannot be done."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_STAGE, delete=False) as file:
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


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold a folder against every other build while the block runs; UserError when one has it.

    The folder is made, and goes again when the block leaves nothing in it.
    """
    try:
        is_new = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"{out}: a folder to write to expected, {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(
            f"{out}: a folder that no other build writes to expected, one is at work there",
            hint="wait for it, or name another --out",
        ) from error
    finally:
        os.close(descriptor)
        if is_new:
            with contextlib.suppress(OSError):
                out.rmdir()


@contextlib.contextmanager
def staged(
    out: Path, *, last: str, before: Callable[[Collection[str]], None] = lambda _: None
) -> Iterator[Path]:
    """A folder to write a set of files into, which all get to `out` when the block ends well.

    `last` is what speaks of the others: what is there of that name goes first, and the new one
    comes when they are in place, so that it never speaks of files that are not there. `before` is
    told the names of the set when it is whole and none of it is in place.
    """
    try:
        # Of a build that was killed: whoever is here holds the folder alone.
        for left in out.glob(f"{_STAGE}*/"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_STAGE, dir=out) as scratch:
            yield Path(scratch)
            before([path.name for path in Path(scratch).iterdir()])
            (out / last).unlink(missing_ok=True)
            sync_folder(out)
            for path in sorted(Path(scratch).iterdir(), key=lambda path: path.name == last):
                if path.name == last:
                    sync_folder(out)
                path.replace(out / path.name)
            sync_folder(out)
    except OSError as error:
        raise KioskError(
            f"{out}: a folder to write to expected, {error.strerror or error}",
            hint="make room or name another folder",
        ) from error


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
