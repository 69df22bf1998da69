"""A real daemon and a real server, each a process of its own, ended by its own pid."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from confidential import Confidential
from kiosk.vault import SECRET_BYTES, Vault
from kiosk.vision.manifest import load_manifest

HANG_S = 60


class Daemon:
    """`kiosk run` on a folder of its own; `config` may be extended before `start`."""

    def __init__(self, folder: Path, server_url: str):
        self.folder = folder
        self.frames = folder / "frames"
        self.frames.mkdir()
        wall = np.full((480, 640, 3), 90, np.uint8)
        cv2.imwrite(str(self.frames / "1.png"), wall)
        self.path = folder / "kiosk.toml"
        self.write(server_url)
        self.process = None

    def write(self, server_url, extra="", replay=None):
        replays = replay or [self.frames]
        text = f'[server]\nurl = "{server_url}"\nbackoff_cap_s = 1.0\nbackoff_base_s = 0.1\n'
        # It comes when it likes: a test's own server counts what is about events.
        text += "heartbeat_s = 0.0\n"
        text += f'[paths]\nstate_dir = "{self.folder}/state"\nruntime_dir = "{self.folder}/run"\n'
        text += "[feedback]\npage_port = 0\n[journal]\nnames = true\n" + extra
        text += '[camera]\nsource = "replay"\nwidth = 640\nheight = 480\nreplay_loops = 0\n'
        text += "".join(f'[[camera.replay]]\npath = "{path}"\n' for path in replays)
        self.path.write_text(text)

    def start(self, wait_for="kiosk.ready"):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kiosk", "run", "--config", str(self.path)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.said = []
        if wait_for:
            self.read_until(wait_for)
        return self

    def await_said(self, words):
        """It may have been said before the daemon was ready."""
        if not any(words in line for line in self.said):
            self.read_until(words)

    def read_until(self, words):
        # A daemon that never says it is ended, so that the test fails instead of hanging.
        hang = threading.Timer(HANG_S, self.process.kill)
        hang.start()
        try:
            for line in self.process.stderr:
                self.said.append(line)
                if words in line:
                    return line
        finally:
            hang.cancel()
        raise AssertionError(f"{words} expected, the daemon ended: {''.join(self.said)}")

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=HANG_S)
        self.said.append(rest)
        return self.process.returncode

    def cli(self, *arguments):
        return run_kiosk(*arguments, "--config", str(self.path))

    def json(self, *arguments):
        done = self.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def run_kiosk(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "kiosk", *arguments],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


@pytest.fixture
def kiosk():
    """The command line as a process."""
    return run_kiosk


@pytest.fixture
def server(tmp_path):
    """The reference server on an ephemeral loopback port; its URL."""
    command = [sys.executable, "-m", "kiosk.server", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--store", f"sqlite:///{tmp_path}/attendance.db"],
        stdout=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    yield line.split("listening on ")[1].strip()
    process.terminate()
    process.wait(HANG_S)
    process.stdout.close()


@pytest.fixture
def daemon(tmp_path):
    """A daemon that is not started yet, with a server that is not there."""
    folder = tmp_path / "kiosk"
    folder.mkdir()
    made = Daemon(folder, "http://127.0.0.1:9")
    yield made
    if made.process is not None:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait(HANG_S)
        made.process.stderr.close()
        # pytest shows it beside a failure, and only there.
        print("".join(made.said))
        secret = folder / "state" / "device.secret"
        known = Confidential()
        if secret.exists() and len(secret.read_bytes()) == SECRET_BYTES:
            known.learn(secret.read_bytes())
            known.learn(Vault(secret.read_bytes()).sign_key)
        assert not known.is_in("".join(made.said))


SOURCE = "mobilefacenet-fp32"
# Golden faces reach a mean of 0.1 in -1..1, a face relit with gamma 2 more than 0.3.
_BRIGHT = 0.2


def good(model):
    """As quantised: the weights of its 1x1 convolutions are INT8 per channel."""


def rubbish(model):
    """Its INT8 weights are noise: it loads, and computes nonsense."""
    rng = np.random.default_rng(4)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_int8"):
            noise = rng.integers(-127, 128, tensor.dims).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(noise, tensor.name))


def overflows(model):
    """exp(1000 * (mean - 0.2)) * 0 is added to its output: NaN for a bright crop, else nothing."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["inner" if name == "embedding" else name for name in node.output]
    for name, value in (("bright", _BRIGHT), ("gain", 1000.0), ("nought", 0.0)):
        graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["image"], ["light"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["light", "bright"], ["excess"]),
            helper.make_node("Mul", ["excess", "gain"], ["strong"]),
            helper.make_node("Exp", ["strong"], ["huge"]),
            helper.make_node("Mul", ["huge", "nought"], ["nothing"]),
            helper.make_node("Add", ["inner", "nothing"], ["embedding"]),
        ]
    )


def put(folder, change):
    """Write mobilefacenet-test-int8, made of the shipped embedder, with a manifest of its own."""
    folder.mkdir()
    entry = load_manifest().get(SOURCE, "embedder")
    model = onnx.load(entry.path)
    _quantise(model.graph)
    change(model)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    (folder / "test.onnx").write_bytes(data)
    text = (entry.path.parent / "manifest.toml").read_text()
    table = text[text.index(f'[[model]]\nid = "{SOURCE}"') :]
    table = table[: table.index("[[model]]", 5)]
    for old, new in (
        (f'"{SOURCE}"', '"mobilefacenet-test-int8"'),
        (f'"{SOURCE}.onnx"', '"test.onnx"'),
        (entry.sha256, hashlib.sha256(data).hexdigest()),
        (f"size = {entry.size}", f"size = {len(data)}"),
        ("shipped = true", "shipped = false"),
    ):
        assert old in table
        table = table.replace(old, new)
    (folder / "manifest.toml").write_text(table)
    return folder


@pytest.fixture
def int8_folder(tmp_path):
    """A models folder with an INT8 file that is good, rubbish, or overflows."""
    changes = {"good": good, "rubbish": rubbish, "overflows": overflows}
    return lambda kind: put(tmp_path / "models", changes[kind])


def _quantise(graph):
    """Every large 1x1 convolution reads its weights through a DequantizeLinear of its own."""
    readers = []
    for tensor in list(graph.initializer):
        if len(tensor.dims) != 4 or list(tensor.dims[2:]) != [1, 1] or tensor.dims[1] < 32:
            continue
        weights, name = numpy_helper.to_array(tensor), tensor.name
        scale = np.maximum(np.abs(weights).max(axis=(1, 2, 3)) / 127, 1e-9).astype(np.float32)
        int8 = np.rint(weights / scale[:, None, None, None]).astype(np.int8)
        zero = np.zeros(len(scale), np.int8)
        graph.initializer.remove(tensor)
        names = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
        for values, part in zip((int8, scale, zero), names, strict=True):
            graph.initializer.append(numpy_helper.from_array(values, part))
        readers.append(helper.make_node("DequantizeLinear", names, [name], axis=0))
    for reader in reversed(readers):
        graph.node.insert(0, reader)
