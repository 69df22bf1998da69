"""Sets the stage: a folder, a configuration, two enrolled people, one stranger, two processes."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from kiosk.config import Settings, load
from kiosk.decide.gallery import Template
from kiosk.errors import KioskError
from kiosk.signals import ENDING
from kiosk.state import open_state
from kiosk.vision.pipeline import FacePipeline
from kiosk.wire import f2

PEOPLE = Path(__file__).parent / "people"
ENROLLED = {"obama": "obama.jpg", "collins": "collins.jpg"}
_START_S = 60.0


@dataclass(frozen=True, slots=True)
class WalkUp:
    """Somebody who walks up: the photograph, who it shows, and how it was changed."""

    file: str
    person: str
    changes: dict[str, Any]

    @property
    def same_photograph(self) -> bool:
        """Whether this person was enrolled from the very photograph: then nothing is proven."""
        return any(_sha256(self.file) == _sha256(enrolled) for enrolled in ENROLLED.values())

    def expected(self) -> str:
        """What the kiosk must say of this visit."""
        return "recorded" if self.person in ENROLLED else "not recognised"


CAST = (
    WalkUp("obama3.jpg", "obama", {"focus_x": 0.54, "focus_y": 0.18, "zoom": 2.3}),
    WalkUp(
        "collins.jpg",
        "collins",
        {
            "mirror": True,
            "gamma": 0.75,
            "jpeg_quality": 60,
            "focus_x": 0.55,
            "focus_y": 0.23,
            "zoom": 1.5,
        },
    ),
    WalkUp("biden.jpg", "biden", {"focus_x": 0.6, "focus_y": 0.16, "zoom": 2.3}),
)


def _sha256(name: str) -> str:
    return hashlib.sha256((PEOPLE / name).read_bytes()).hexdigest()


def write_config(folder: Path, server_url: str, model: str | None, models_dirs: list[str]) -> Path:
    """The demonstration's configuration, checked by loading it."""
    lines = [
        "[server]",
        f"url = {_toml(server_url)}",
        'key_id = "demo-1"',
        "backoff_cap_s = 2.0",
        "[device]",
        'label = "Demonstration"',
        'direction = "in"',
        "[paths]",
        f"state_dir = {_toml(str(folder / 'state'))}",
        f"runtime_dir = {_toml(str(folder / 'run'))}",
        "[models]",
        *([f"embedder = {_toml(model)}", 'prefer = "exact"'] if model is not None else []),
        f"extra_dirs = {json.dumps(models_dirs)}",
        "[feedback]",
        f"page_port = {_free_port()}",
        "[journal]",
        "names = true",
        "[camera]",
        'source = "replay"',
        "width = 640",
        "height = 480",
        "frames_per_s = 10.0",
    ]
    for walk_up in CAST:
        lines += ["[[camera.replay]]", f"path = {_toml(str(PEOPLE / walk_up.file))}"]
        lines += [f"{key} = {_toml(value)}" for key, value in walk_up.changes.items()]
    path = folder / "kiosk.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    load(path)
    return path


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A client of the reference server's own routes, on loopback."""

    def __init__(self, url: str) -> None:
        self.url = url

    def put(self, path: str, document: dict[str, Any]) -> None:
        """PUT a JSON document; KioskError with the server's words when it refuses."""
        host = self.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=10)
        try:
            body = json.dumps(document)
            connection.request("PUT", path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            text = reply.read(4096).decode(errors="replace")
        finally:
            connection.close()
        if reply.status >= 300:
            raise KioskError(f"PUT {path}: 2xx expected, got {reply.status}: {text}")


def prepare(settings: Settings, server: Server, eyes: FacePipeline) -> None:
    """Enrol the two people at the kiosk and at the server, and hand over the sign key."""
    from kiosk.vision.picture import load_picture

    templates = []
    for person, name in ENROLLED.items():
        face = eyes.faces(load_picture(PEOPLE / name))[0]
        templates.append(Template(person, face.embedding, _sha256(name)))
        faces = [f2.encode(face.embedding.vector).fields()]
        server.put(f"/employees/{person}/faces", {"F2_MODEL": eyes.space, "faces": faces})
    state = open_state(settings)
    try:
        state.save_gallery(state.load_gallery().added(templates))
        key = base64.b64encode(state.vault.sign_key).decode("ascii")
        server.put(f"/devices/{state.device}/keys/{settings.server.key_id}", {"key": key})
    finally:
        state.close()


@contextmanager
def ended_like_by_hand() -> Iterator[None]:
    """Within it SIGTERM is what Ctrl-C is, so that nothing of the stage is left behind."""
    before = [(number, signal.signal(number, _interrupt)) for number in ENDING]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _interrupt(_: int, __: FrameType | None) -> None:
    # A second one of either kind must not cut off the clean-up that the first has begun.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def running(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A kiosk program as a process of its own, ended by SIGTERM, then SIGKILL after 5 s."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def lines_of(process: subprocess.Popen[str]) -> queue.Queue[str | None]:
    """The process's output as a queue of lines; None when it has ended."""
    lines: queue.Queue[str | None] = queue.Queue()
    stream = process.stdout
    if stream is None:
        raise KioskError("a process with a pipe as its output expected")

    def pump() -> None:
        for line in stream:
            lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=pump, name="output", daemon=True).start()
    return lines


def address_in(lines: queue.Queue[str | None]) -> str:
    """The address that the server says it listens on; KioskError when it ends or stays silent."""
    said: list[str] = []
    while True:
        try:
            line = lines.get(timeout=_START_S)
        except queue.Empty as error:
            raise KioskError(f"the server said nothing within {_START_S:.0f} s") from error
        if line is None:
            raise KioskError("the server ended at its start: " + " | ".join(said))
        said.append(line)
        if "listening on " in line:
            return line.split("listening on ", 1)[1].split()[0]
