"""Aiming: figures and advice for the one on the ladder, and nothing that is a picture."""

import json
from types import SimpleNamespace

import pytest

from kiosk.aim import Aim, View, advice, document, line
from kiosk.clock import NS_PER_S
from kiosk.types import Quality, Stamp, Trust

GOOD = Quality(size=0.9, sharpness=0.8, exposure=0.9, pose=0.95, edge=1.0)


@pytest.mark.parametrize(
    ("measure", "word"),
    [
        ("size", "nearer"),
        ("sharpness", "lens"),
        ("exposure", "light"),
        ("pose", "turn the camera to the face"),
        ("edge", "cut off"),
    ],
)
def test_each_measure_has_its_advice(measure, word):
    """What is not good is told with what to do; what is good is not."""
    values = {name: getattr(GOOD, name) for name in GOOD.__dataclass_fields__}
    (said,) = advice(Quality(**{**values, measure: 0.2}))
    assert word in said
    assert list(advice(GOOD)) == []


def test_the_worst_comes_first():
    """One line has room for one thing to do."""
    worst = Quality(size=0.3, sharpness=0.1, exposure=0.5, pose=0.9, edge=1.0)
    assert "lens" in next(iter(advice(worst)))


def test_a_line_says_all_figures():
    """In the words of the installer."""
    view = View(1280, 720, 10 * NS_PER_S, 180, GOOD)
    assert line(document(view, 10 * NS_PER_S)) == (
        "face 180 px, sharpness 80%, light 90%, angle 95%, whole 100% – good"
    )


def test_what_is_old_or_empty_is_told():
    """A view of two seconds ago is none; a frame without a face says where to stand."""
    view = View(1280, 720, 10 * NS_PER_S, 180, GOOD)
    assert document(view, 13 * NS_PER_S)["face"] is None
    assert "no picture" in line(document(None, 0))
    assert "stand where" in line(document(View(1280, 720, 0), 0))


def test_who_aims_keeps_the_camera_awake_and_the_page_shows_it():
    """Each look wakes the camera and puts the same line on the page, with nobody's name."""
    woken, shown = [], []
    clock = SimpleNamespace(boottime_ns=lambda: 0, now=lambda: Stamp(0, 0, "boot", Trust.SYNCED))
    screen = SimpleNamespace(show=shown.append)
    aim = Aim(lambda: View(1280, 720, 0, 180, GOOD), lambda: woken.append(1), screen, clock)
    said = aim.look()
    assert woken == [1]
    assert (shown[0].text, shown[0].person) == (line(said), None)
    assert json.loads(json.dumps(said)) == said
    assert set(said) == {"frame", "face", "advice"}


def test_a_running_daemon_is_aimed_by_command(daemon):
    """`kiosk aim` asks the daemon, who alone has the camera."""
    daemon.start()
    done = daemon.cli("aim", "--times", "2")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert daemon.stop() == 0
    assert daemon.cli("aim", "--times", "1").returncode == 1
