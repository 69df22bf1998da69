"""Memory of the daemon's rooms over many replayed frames, in a process of its own.

The daemon has no LiteRT and no scikit-learn: `python -m bench.memory`.
"""

import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.faces import PEOPLE
from bench.models import eyes
from kiosk.capture.camera import EndOfFrames, open_camera
from kiosk.clock import SystemClock
from kiosk.config import Camera, Recognition, Replay
from kiosk.decide.gallery import Gallery
from kiosk.decide.policy import Policy
from kiosk.outbox.store import Outbox
from kiosk.vault import open_vault

FRAMES = 10_000
SAMPLES = 20


class Hasty(SystemClock):
    """A clock that does not pace."""

    def wait(self, event, timeout_s):
        return event.is_set()


def rss_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


@contextmanager
def outbox_of(clock: Hasty) -> Iterator[Outbox]:
    """An open outbox in a folder that goes away."""
    with tempfile.TemporaryDirectory() as scratch:
        vault = open_vault(Path(scratch))
        path = Path(scratch) / "outbox.db"
        outbox = Outbox(path, vault=vault, device_id="bench", signer=None, clock=clock)
        outbox.start()
        try:
            yield outbox
        finally:
            outbox.close(5.0)


def tell(frames: int = FRAMES) -> None:
    """Print RSS after so many frames of 640x480, and its range over the last half."""
    clock, pipeline, sizes = Hasty(), eyes(2), []
    settings = Camera(
        source="replay",
        width=640,
        height=480,
        frames_per_s=60.0,
        replay=tuple(Replay(str(PEOPLE / f"{n}.jpg"), zoom=1.5) for n in ("obama", "biden")),
        replay_loops=0,
    )
    with outbox_of(clock) as outbox:
        policy = Policy(
            Recognition(),
            threshold=pipeline.threshold,
            direction=None,
            gallery=Gallery(),
            history=outbox,
        )
        camera = open_camera(settings, clock)
        camera.open()
        for number in range(frames):
            try:
                frame = camera.read(5.0)
            except EndOfFrames:
                break
            policy.decide(pipeline.sightings(frame), frame.seen)
            if number % (frames // SAMPLES) == 0:
                sizes.append(rss_mib())
    half = sizes[len(sizes) // 2 :]
    print(f"memory: {frames} frames of 640x480, RSS {sizes[-1]:.0f} MiB at the end,")
    print(f"memory: {min(half):.0f} to {max(half):.0f} MiB over the last half")


if __name__ == "__main__":
    tell()
