"""A real daemon and a real server, each a process of its own, ended by its own pid."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

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
