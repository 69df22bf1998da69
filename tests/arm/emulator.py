"""A model's embeddings as an emulated Pi computes them."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arm.root import WHEELS, UnavailableError, python_of, ready

RUNNER = Path(__file__).with_name("runner.py")


def embeddings(
    model: Path,
    inputs: Sequence[NDArray[np.float32]] | NDArray[np.float32],
    cpu: str,
    *,
    jobs: int | None = None,
) -> NDArray[np.float32]:
    """L2-normalised embeddings, float32 (faces, dim), of `model` on `cpu` ("cortex-a72", "-a76").

    `inputs`: (faces, 3, 112, 112), or a list of (1, 3, 112, 112) as `kiosk.lab.runner.inputs_of`
    gives them; for a file with a free or single batch. They are shared out over `jobs` processes,
    as many as this host has processors when None. One face takes 1 s in INT8, 4 s in FP32. Raises
    arm.root.UnavailableError when the machine cannot be made here.
    """
    root = ready()
    stacked = np.stack([np.asarray(x, dtype=np.float32).reshape(x.shape[-3:]) for x in inputs])
    parts = np.array_split(stacked, min(jobs or os.cpu_count() or 1, len(stacked)))
    with tempfile.TemporaryDirectory() as scratch:
        runs = [
            _start(root, cpu, model, part, Path(scratch) / str(number))
            for number, part in enumerate(parts)
        ]
        rows = np.concatenate([_finish(*run) for run in runs]).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (rows / norms).astype(np.float32)
    return unit


def _start(root: Path, cpu: str, model: Path, part: NDArray[np.float32], files: Path):
    source, target = files.with_suffix(".in.npy"), files.with_suffix(".out.npy")
    np.save(source, part)
    command = [
        *("qemu-aarch64-static", "-cpu", cpu, "-L", root / cpu),
        *(python_of(root / "root"), RUNNER, model.resolve(), source, target),
    ]
    inside = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": f"/{WHEELS}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    process = subprocess.Popen(
        command, env=inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process, target


def _finish(process: subprocess.Popen, target: Path) -> NDArray[np.float32]:
    output, errors = process.communicate()
    if process.returncode != 0:
        last = (errors.strip() or f"status {process.returncode}").splitlines()[-1]
        raise RuntimeError(f"the model does not run on the emulated machine: {last}")
    if json.loads(output.splitlines()[-1])["machine"] != "aarch64":
        raise UnavailableError("an aarch64 machine expected inside, got another")
    return np.load(target)
