"""A whole daemon on a USB camera that is none: real JPEG bytes, at a camera's pace, no device.

`python -m bench.wire CONFIG FRAMES RATE` runs `kiosk run` with cv2.VideoCapture replaced by a
reader of the files in FRAMES, in turn and for ever. Everything above the driver is the product's.
"""

import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from kiosk.app import Kiosk
from kiosk.capture import v4l2
from kiosk.clock import SystemClock
from kiosk.config import load
from kiosk.journal import set_up
from kiosk.memory import keep_small
from kiosk.signals import stop_at_signals

SIZE = (1280, 720)


class Wire:
    """Hands out the bytes of one JPEG after the other; each wait is a camera's."""

    frames: list[np.ndarray]
    rate: float

    def __init__(self, *_):
        self.number, self.due, self.wait = 0, time.monotonic(), threading.Event()

    def isOpened(self):  # noqa: N802 - the real one's name
        return True

    def set(self, *_):
        return True

    def get(self, key):
        return {
            cv2.CAP_PROP_FRAME_WIDTH: SIZE[0],
            cv2.CAP_PROP_FRAME_HEIGHT: SIZE[1],
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"MJPG"),
            cv2.CAP_PROP_FPS: self.rate,
            cv2.CAP_PROP_POS_MSEC: self.number * 1000 / self.rate,
        }.get(key, 0.0)

    def grab(self):
        self.number += 1
        self.due = max(self.due + 1 / self.rate, time.monotonic() - 1 / self.rate)
        self.wait.wait(max(0.0, self.due - time.monotonic()))
        return True

    def retrieve(self):
        return True, self.frames[self.number % len(self.frames)]

    def release(self):
        """Nothing is held."""


def main(config, frames, rate):
    keep_small()
    files = sorted(Path(frames).glob("*.jpg"))
    Wire.frames = [np.frombuffer(file.read_bytes(), np.uint8).reshape(1, -1) for file in files]
    Wire.rate = float(rate)
    cv2.VideoCapture = Wire
    v4l2.check_device = lambda _: None
    settings, clock = load(Path(config)), SystemClock()
    set_up(settings.journal, clock=clock)
    stop = threading.Event()
    stop_at_signals(stop, threading.Event())
    return Kiosk(settings, clock=clock).run(stop)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
