"""A file of unknown origin run in a process of its own, with bounds on time and memory.

`python -m kiosk.lab.trial` reads a request as JSON from standard input and prints a reply as JSON.
A few hundred bytes of ONNX can ask for all memory, or for all time: better here than in the
process that writes files.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np

from kiosk.errors import ModelError
from kiosk.lab.coldstart import daemon_session
from kiosk.vision.embed import preprocess
from kiosk.vision.manifest import InputSpec, ModelEntry, shipped_models_dir
from kiosk.vision.picture import load_picture

_PATIENCE_S = 300
_ROOM_BYTES = 2 * 1024**3
_ROOM_PER_BYTE = 6
"""Weights are read, parsed, laid out anew for the kernels; the rest is room to compute in."""
_LEAST_SAME = 0.9999
"""One face twice: onnxruntime's sums may differ in the last bits, an embedding must not."""
_THREADS = 2


def try_out(path: Path, entry: ModelEntry) -> None:
    """Load and run a file twice on each golden crop, as the entry says that it is fed.

    ModelError, naming the file, when it cannot be run within the bounds, or when it gives one face
    two embeddings.
    """
    request = {
        "model": str(path),
        "input": msgspec.to_builtins(entry.input),
        "output": entry.output,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "kiosk.lab.trial"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"{path}: an embedder that answers within {_PATIENCE_S} s expected, it did not"
        ) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise ModelError(f"{path}: an embedder that runs expected, a trial of it failed: {last}")
    least = json.loads(done.stdout)["least"]
    if least is not None and not least >= _LEAST_SAME:
        raise ModelError(
            f"{path}: one embedding for one face expected, two runs agree to a cosine of only"
            f" {least:.4f}",
            hint="leave random operators out when exporting it",
        )


def main() -> int:
    """Run the named file twice on each crop; the least cosine between two runs."""
    request = json.load(sys.stdin)
    model = Path(request["model"])
    _bound(model.stat().st_size)
    try:
        least = _least(model, msgspec.convert(request["input"], InputSpec), request["output"])
    except ModelError as error:
        sys.stderr.write(f"{' '.join(error.message.split())[:500]}\n")
        return 1
    json.dump({"least": least}, sys.stdout)
    return 0


def _least(model: Path, spec: InputSpec, output: str) -> float | None:
    """The least cosine; None where an embedding has no finite length, which others tell."""
    session = daemon_session(model.read_bytes(), _THREADS)
    name, least = session.get_inputs()[0].name, 1.0
    for path in sorted((shipped_models_dir() / "golden").glob("*.png")):
        values = preprocess(load_picture(path), spec)[None]
        feed = {name: np.ascontiguousarray(np.repeat(values, spec.batch or 1, axis=0))}
        try:
            runs = [session.run([output], feed)[0][0] for _ in range(2)]
        # onnxruntime's exceptions have no public base class of their own.
        except Exception as error:
            raise ModelError(str(error) or type(error).__name__) from error
        first, second = (np.asarray(run, dtype=np.float64).reshape(-1) for run in runs)
        length = float(np.linalg.norm(first) * np.linalg.norm(second))
        if not length or not np.isfinite(length):
            return None
        least = min(least, float(first @ second) / length)
    return least


def _bound(size: int) -> None:
    """No more address space than a model of this size may need, and no core file."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + _ROOM_BYTES + _ROOM_PER_BYTE * size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
