"""Memory of the whole daemon, all its threads at work, over replayed frames. Asserts nothing.

`python -m bench.memory [FRAMES]` prints it; `measure` gives the samples.
"""

import json
import resource
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

FRAMES = 10_000
SAMPLES = 20
PEOPLE = Path(__file__).parents[2] / "kiosk" / "demo" / "people"


def measure(frames: int = FRAMES) -> list[float]:
    """RSS in MiB, 20 times over so many frames, of a daemon in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        # Each a process of its own: who enrols loads the models once more.
        for step in ("enrol", "run"):
            command = [sys.executable, __file__, step, folder, str(frames)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def settings_in(folder, page_port=0):
    from kiosk.config import Camera, Feedback, Paths, Recognition, Replay, Server, Settings

    return Settings(
        server=Server("http://127.0.0.1:9", backoff_cap_s=1.0),
        paths=Paths(state_dir=f"{folder}/state", runtime_dir=f"{folder}/run"),
        feedback=Feedback(page_port=page_port),
        recognition=Recognition(repeat_window_s=0.0),
        camera=Camera(
            source="replay",
            width=640,
            height=480,
            frames_per_s=60.0,
            motion_gate=False,
            replay=tuple(Replay(str(PEOPLE / f"{n}.jpg"), zoom=1.5) for n in ("obama", "biden")),
            replay_loops=0,
        ),
    )


def run(folder, frames):
    """A kiosk that sees as fast as it can, with somebody enrolled and a server away."""
    from kiosk.memory import keep_small

    # As the daemon does, before its libraries are loaded.
    keep_small()
    from kiosk import app
    from kiosk.clock import SystemClock
    from kiosk.control import ask

    settings = settings_in(folder, free_port())
    stop, sizes = threading.Event(), []

    class Hasty(SystemClock):
        """Frames do not wait for their time, but for the last one to be seen."""

        def wait(self, event, timeout_s):
            if threading.current_thread().name != "capture":
                return super().wait(event, timeout_s)
            while not kiosk._slot.is_empty and not event.wait(0.0005):
                pass
            return event.is_set()

    class Counted:
        """The replay, which takes a sample now and then."""

        def __init__(self, camera):
            self.name, self.open, self.close = camera.name, camera.open, camera.close
            self.camera, self.number = camera, 0

        def read(self, timeout_s, *wanted):
            self.number += 1
            if self.number % (frames // SAMPLES) == 0:
                # The other threads are to have worked as well.
                ask(settings.paths.runtime_dir, "status")
                page = f"http://127.0.0.1:{settings.feedback.page_port}/"
                urllib.request.urlopen(page, timeout=10).read()
                sizes.append(rss_mib())
            if self.number >= frames:
                stop.set()
            return self.camera.read(timeout_s, *wanted)

    open_camera = app.open_camera
    app.open_camera = lambda *arguments: Counted(open_camera(*arguments))
    kiosk = app.Kiosk(settings, clock=Hasty())
    kiosk.run(stop)
    print(json.dumps(sizes))


def enrol(folder):
    from kiosk.clock import SystemClock
    from kiosk.decide.gallery import Template
    from kiosk.state import open_state
    from kiosk.vision.picture import load_picture
    from kiosk.vision.pipeline import open_pipeline

    settings = settings_in(folder)
    eyes = open_pipeline(settings.models, clock=SystemClock(), record=lambda *_: None)
    face = eyes.faces(load_picture(PEOPLE / "obama.jpg"))[0]
    state = open_state(settings)
    state.save_gallery(state.load_gallery().added([Template("obama", face.embedding, "bench")]))
    state.close()


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rss_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main(arguments):
    if arguments[:1] == ["enrol"]:
        enrol(arguments[1])
        return
    if arguments[:1] == ["run"]:
        run(arguments[1], int(arguments[2]))
        return
    frames = int(arguments[0]) if arguments else FRAMES
    sizes = measure(frames)
    half = sizes[len(sizes) // 2 :]
    print(f"memory: whole daemon, {frames} frames of 640x480, RSS {sizes[-1]:.0f} MiB at the end,")
    print(f"memory: {min(half):.0f} to {max(half):.0f} MiB over the last half")


if __name__ == "__main__":
    main(sys.argv[1:])
