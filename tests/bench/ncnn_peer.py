"""ncnn in a process and an environment of its own, taking turns with ours over two pipes."""

import json
import subprocess
import venv
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx

from bench.ncnn_file import write

CHILD = Path(__file__).with_name("ncnn_child.py")
PACKAGES = ("ncnn", "numpy")


class UnavailableError(Exception):
    """ncnn cannot be had or cannot run here; the message says why."""


def environment(cache: Path) -> Path:
    """The interpreter of an environment that only the bench makes, with ncnn in it.

    Raises UnavailableError when pip cannot get it.
    """
    folder = cache / "bench-venv"
    python, done = folder / "bin" / "python", folder / "installed"
    if done.is_file():
        return python
    venv.create(folder, with_pip=True, clear=True)
    command = [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *PACKAGES]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    if pip.returncode != 0:
        raise UnavailableError((pip.stderr.strip() or "pip gave no message").splitlines()[-1])
    done.touch()
    return python


class Ncnn:
    """One model in ncnn, fed with one picture, one thread."""

    def __init__(self, python: Path, model: onnx.ModelProto, values: np.ndarray, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "picture.npy", values)
        write(model, folder, "model")
        files = [folder / "model.param", folder / "model.bin"]
        ends = [model.graph.input[0].name, model.graph.output[0].name]
        self._process = subprocess.Popen(
            [python, CHILD, *files, *ends, folder / "picture.npy"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Ncnn":
        return self

    def __exit__(self, *_) -> None:
        self._process.communicate()

    def _ask(self, request: str) -> list[float]:
        try:
            self._process.stdin.write(f"{request}\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise UnavailableError("its process ended, see above") from error

    def milliseconds(self) -> float:
        """One run, timed where it happens: the pipes cost nothing."""
        return self._ask("1")[0]

    def output(self) -> np.ndarray:
        """The embedding of the picture, not normalised."""
        return np.array(self._ask("output"))


def opened(
    stack: ExitStack, models: dict[str, onnx.ModelProto], values: np.ndarray, cache: Path
) -> dict[str, Ncnn]:
    """A peer for each model that has answered once, closed with `stack`.

    None of them, and a line that says why, where ncnn cannot be had or does not run.
    """
    peers = {}
    try:
        python = environment(cache)
        for number, (name, model) in enumerate(models.items()):
            folder = cache / "ncnn" / str(number)
            peers[name] = stack.enter_context(Ncnn(python, model, values[0], folder))
            peers[name].output()
    except (UnavailableError, OSError, subprocess.SubprocessError) as error:
        print(f"ncnn: not measured: {error}")
        return {}
    return peers
