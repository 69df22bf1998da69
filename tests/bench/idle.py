"""What the whole daemon costs while nobody is there, while somebody is, and over a long time.

`python -m bench.idle` tells; `python -m bench.idle soak SECONDS` fails when memory, threads or
files grow. Frames are 1280x720 MJPG at a camera's pace; JPEGs are decoded within what is measured.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from bench import machine
from bench.wire import SIZE
from kiosk.capture.walkup import Still, Wall, walk_up

PEOPLE = Path(__file__).parent.parent.parent / "kiosk/demo/people"
RATE = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")
_MOST_MIB, _HANG_S = 12.0, 120.0
_PAUSE_S = 0.2
_SHARE_S = 12.0
_PAUSE = threading.Event()


def pictures(folder, *, people):
    """An empty corridor with sensor noise; and somebody who walks up, if `people`."""
    rng = np.random.default_rng(4)
    wall = Wall(*SIZE, rng)
    frames = [wall.empty(rng) for _ in range(60)]
    if people:
        picture = cv2.imread(str(PEOPLE / "obama3.jpg"))
        still = Still(picture, (0.54, 0.18), 2.3, SIZE)
        frames += list(walk_up(still, wall, seconds=6.0, frames_per_s=RATE, rng=rng))
    folder.mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{number:03d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return folder


@contextmanager
def daemon(folder, frames, rate=RATE):
    """A daemon that is ready, and how long that took."""
    config = folder / "kiosk.toml"
    config.write_text(
        f'[server]\nurl = "http://127.0.0.1:9"\n[paths]\nstate_dir = "{folder}/state"\n'
        f'runtime_dir = "{folder}/run"\n[feedback]\npage_port = 0\n'
        f'[camera]\nsource = "v4l2"\ndevice = "/dev/video0"\nframes_per_s = {rate}\n'
    )
    command = [sys.executable, "-m", "bench.wire", str(config), str(frames), str(rate)]
    began = time.monotonic()
    log = (folder / "journal").open("w+")
    process = subprocess.Popen(command, stderr=log, text=True)
    try:
        _until(lambda: "kiosk.ready" in (folder / "journal").read_text(), process)
        yield process, time.monotonic() - began, config
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_HANG_S)
        log.close()


def _until(condition, process):
    end = time.monotonic() + _HANG_S
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("the daemon did not become ready: see its journal")
        _PAUSE.wait(_PAUSE_S / 10)


def cpu_s(pid):
    """Seconds of processor time of a process, all its threads (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def size(pid):
    """Resident MiB, threads and open files."""
    status = Path(f"/proc/{pid}/status").read_text()
    words = dict(line.split(":", 1) for line in status.splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return int(words["VmRSS"].split()[0]) / 1024, int(words["Threads"]), files


def status(config):
    command = [sys.executable, "-m", "kiosk", "status", "--json", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def share(pid, seconds):
    """Of one core, over so many seconds."""
    before, began = cpu_s(pid), time.monotonic()
    _PAUSE.wait(seconds)
    return (cpu_s(pid) - before) / (time.monotonic() - began)


def import_s(module, times=5):
    """Seconds until a fresh interpreter has loaded a module and all that it needs; the best."""
    took = []
    for _ in range(times):
        command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        *_, cumulative, name = said.splitlines()[-1].split("|")
        assert name.strip() == module, said
        took.append(int(cumulative) / 1e6)
    return min(took)


def tell():
    print(
        f"{machine.name()}: imports take {import_s('kiosk.app'):.2f} s of the daemon's start,"
        f" {import_s('kiosk.commands.line'):.2f} s of a command's"
    )
    source = f"{SIZE[0]}x{SIZE[1]} MJPG at {RATE:g} frames/s"
    print(f"{machine.name()}: the whole daemon on {source}, shares of one core")
    for what, people in (("nobody there", False), ("somebody half of the time", True)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            frames = pictures(folder / "frames", people=people)
            with daemon(folder, frames):
                pass
            with daemon(folder, frames) as (process, ready_s, config):
                _PAUSE.wait(9.0)
                before = status(config)["counts"].get("frames", 0)
                used = share(process.pid, _SHARE_S)
                seen = status(config)["counts"].get("frames", 0) - before
                memory, threads, files = size(process.pid)
                process.kill()
            with daemon(folder, frames) as (_, again_s, _):
                pass
            print(
                f"  {what}: {100 * used:.1f} %, {seen} of {_SHARE_S * RATE:.0f} frames looked at,"
                f" {memory:.0f} MiB, {threads} threads, {files} files;"
                f" ready in {ready_s:.2f} s, after a SIGKILL in {again_s:.2f} s"
            )


def soak(seconds, rate=16.0):
    """Fail when the second half of the time holds more than the first left it with.

    At a pace that brings 100,000 frames in two hours.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = pictures(folder / "frames", people=True)
        with daemon(folder, frames, rate) as (process, _, config):
            sizes = []
            for number in range(10):
                _PAUSE.wait(seconds / 10)
                sizes.append(size(process.pid))
                memory, threads, files = sizes[-1]
                print(
                    f"  {(number + 1) * 10:3d} %: {memory:.1f} MiB, {threads} threads,"
                    f" {files} files",
                    flush=True,
                )
            counts = status(config)["counts"]
    half, last = sizes[4:], sizes[-1]
    grown = last[0] - min(one[0] for one in half)
    print(f"soak: {counts.get('frames', 0)} frames looked at in {seconds:.0f} s", end="")
    print(f", grown by {grown:.1f} MiB over the second half (at most {_MOST_MIB:g})")
    steady = len({one[1:] for one in half}) == 1
    return 0 if grown <= _MOST_MIB and steady else 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["soak", count]:
            sys.exit(soak(float(count)))
        case _:
            tell()
