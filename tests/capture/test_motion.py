"""The gate: opens for somebody, not for noise or light, and never shuts on who is seen."""

import cv2
import numpy as np
import pytest

from kiosk.capture.motion import HOLD_S, MotionGate
from kiosk.clock import NS_PER_S

STEP_NS = NS_PER_S // 10
SIZE = (160, 90)


class Corridor:
    """An empty corridor at ten frames a second, with sensor noise."""

    def __init__(self, light=1.0):
        self.rng = np.random.default_rng(7)
        x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
        self.wall = (80 + 40 * np.sin(x / 25) + 20 * np.cos(y / 11)).astype(np.float32)
        self.light, self.noise = light, 4.0
        self.ns = NS_PER_S
        self.gate = MotionGate()

    def frame(self, person=None, level=30.0):
        picture = self.wall * self.light
        if person is not None:
            cv2.ellipse(picture, person, (9, 12), 0, 0, 360, level, -1)
        picture = picture + self.rng.normal(0, self.noise, picture.shape)
        return np.clip(picture, 0, 255).astype(np.uint8)

    def see(self, seconds=0.1, person=None, **how):
        """The gate after so long; whether it was ever open."""
        ever = False
        for _ in range(max(1, round(seconds * 10))):
            self.ns += STEP_NS
            ever |= self.gate.look(self.frame(person, **how), self.ns)
        return ever


@pytest.fixture
def asleep():
    corridor = Corridor()
    corridor.see(HOLD_S + 3.0)
    assert not corridor.gate.awake
    return corridor


def test_it_begins_awake():
    """Somebody may be standing there when the power comes back."""
    assert Corridor().see(1.0)


def test_noise_wakes_nobody(asleep):
    """Ten minutes of an empty corridor."""
    assert not asleep.see(600.0)


def test_whoever_comes_opens_it_within_three_frames(asleep):
    """A head of the least size, at 10 frames a second: 0.3 s."""
    assert asleep.see(0.3, person=(80, 45))


@pytest.mark.parametrize("light", [0.15, 0.3, 0.5])
def test_whoever_comes_in_little_light_opens_it_too(light):
    """A head a tenth brighter than a dark wall, as the camera's own noise lets it be seen."""
    corridor = Corridor(light)
    corridor.noise = 1.0
    corridor.see(HOLD_S + 3.0)
    assert not corridor.gate.awake
    assert not corridor.see(60.0)
    dark = float(corridor.wall[45, 80]) * light
    assert corridor.see(0.3, person=(80, 45), level=dark * 1.1 + 3.0)


def test_slow_light_is_no_motion(asleep):
    """Dusk: a tenth of the light within each minute, and clouds within seconds."""
    for _ in range(600):
        asleep.light *= 0.99985
        assert not asleep.see()
    for number in range(300):
        asleep.light = 0.9 + 0.1 * np.cos(number / 10)
        assert not asleep.see()


def test_a_step_of_the_exposure_is_no_motion(asleep):
    """The whole picture a quarter brighter from one frame to the next."""
    asleep.light = 1.25
    assert not asleep.see(5.0)


def test_whoever_stands_still_is_not_lost(asleep):
    """Motionless for ten minutes with the face seen: open; without that word it shuts."""
    for _ in range(6000):
        asleep.see(person=(80, 45))
        asleep.gate.keep_awake(asleep.ns)
        assert asleep.gate.awake
    asleep.see(HOLD_S + 0.2, person=(80, 45))
    assert not asleep.gate.awake


def test_it_shuts_when_all_have_left(asleep):
    """Within seconds after the last one has gone."""
    for place in range(20, 140, 4):
        asleep.see(person=(place, 45))
    assert asleep.gate.awake
    asleep.see(HOLD_S + 6.0)
    assert not asleep.gate.awake
