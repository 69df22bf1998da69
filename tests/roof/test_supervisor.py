"""The word of life goes out while every thread is alive, and stays out when one hangs."""

import logging
import threading
from types import SimpleNamespace

import pytest

from kiosk.clock import NS_PER_S
from kiosk.pulse import Pulse
from kiosk.supervisor import Supervisor


class Clock:
    ns = NS_PER_S

    def boottime_ns(self):
        return self.ns


class Manager:
    watchdog_s = 30.0

    def __init__(self):
        self.words, self.lines = 0, []

    def alive(self):
        self.words += 1

    def status(self, line):
        self.lines.append(line)


@pytest.fixture
def scene():
    clock, manager, notes = Clock(), Manager(), []
    pulse, camera = Pulse(clock), SimpleNamespace(state="running")
    stop = threading.Event()
    supervisor = Supervisor(
        pulse,
        manager,
        SimpleNamespace(note=lambda ending="": notes.append(ending)),
        camera=camera,
        line=lambda: "running",
        stopping=stop.is_set,
        clock=clock,
    )

    def rounds(seconds):
        for _ in range(round(seconds * 2)):
            clock.ns += NS_PER_S // 2
            supervisor.look([])

    return SimpleNamespace(**locals())


def test_the_word_of_life_comes_thrice_in_its_time(scene):
    """Every ten of thirty seconds, so that a slow round costs nothing."""
    scene.pulse.beat("works", 1e6)
    scene.rounds(60)
    assert scene.manager.words in (6, 7)


def test_a_thread_that_hangs_takes_the_word_away(scene, caplog):
    """A ticker would go on; here nothing is said, and the cause is kept for the next start."""
    scene.pulse.beat("recognises", 5.0)
    scene.rounds(5)
    before = scene.manager.words
    scene.rounds(60)
    assert scene.manager.words == before
    assert scene.notes == ["watchdog"]
    (told,) = [r for r in caplog.records if r.message == "thread.hangs"]
    assert told.levelno == logging.CRITICAL
    assert told.fields["doing"] == "recognises"
    assert "pulse.py" in told.fields["where"]
    assert scene.manager.lines[-1].startswith("running, hangs: ")


def test_a_thread_that_comes_back_is_welcome(scene, caplog):
    """The word of life returns at once, and the next start is not told of a watchdog."""
    scene.pulse.beat("recognises", 5.0)
    scene.rounds(10)
    before = scene.manager.words
    scene.pulse.beat("waits for a frame", 60.0)
    scene.rounds(1)
    assert scene.manager.words == before + 1
    assert scene.notes == ["watchdog", ""]
    assert "thread.came_back" in [r.message for r in caplog.records]


def test_a_machine_that_slept_is_forgiven(scene):
    """An hour of suspend in the middle of a wait is no hang; a hang after it is one."""
    scene.pulse.beat("waits for its next attempt", 360.0)
    scene.rounds(10)
    scene.clock.ns += 3600 * NS_PER_S
    scene.rounds(300)
    assert scene.notes == []
    scene.rounds(60)
    assert scene.notes == ["watchdog"]


def worker(name):
    return SimpleNamespace(name=name, ended=SimpleNamespace(is_set=lambda: True))


def test_a_thread_that_ended_unasked_ends_the_process(scene):
    """But for the capture thread of a replay that is over."""
    assert scene.supervisor.look([worker("uplink")]) == "uplink: ended unasked"
    assert scene.supervisor.look([worker("capture")]) == "capture: ended unasked"
    scene.camera.state = "ended"
    assert scene.supervisor.look([worker("capture")]) == ""


def test_a_thread_that_ended_in_a_round_after_the_word_to_stop_was_asked(scene, caplog):
    """The word came when the round had begun: a clean end, and no alarm in the journal."""

    def ended():
        # As the round sees it: first the word, then the end of who obeyed it.
        scene.stop.set()
        return True

    obeyed = SimpleNamespace(name="uplink", ended=SimpleNamespace(is_set=ended))
    assert scene.supervisor.look([obeyed]) == ""
    assert "thread.ended" not in [r.message for r in caplog.records]
