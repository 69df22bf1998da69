"""What is asked of the kiosk that runs, before the switch and after it."""

from subprocess import CompletedProcess

import pytest
from board import health
from board.layout import Layout, point

GOOD = '{"configuration": "in force"}'


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(health, "_LOOK_S", 0.01)
    monkeypatch.setattr(health, "_START_S", 0.3)


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    layout.kiosk(layout.release("1.0.0")).parent.mkdir(parents=True)
    point(layout.current, layout.release("1.0.0").relative_to(layout.home))
    return layout


@pytest.mark.parametrize(
    ("script", "mode", "told"),
    [
        (f"#!/bin/sh\necho '{GOOD}'\n", 0o755, {"configuration": "in force"}),
        ("#!/bin/sh\nexit 1\n", 0o755, {}),
        ("#!/bin/sh\necho nonsense\n", 0o755, {}),
        ("#!/bin/sh\necho 7\n", 0o755, {}),
        ("#!/nowhere/python\n", 0o755, {}),
        ("", 0o755, {}),
        (f"#!/bin/sh\necho '{GOOD}'\n", 0o644, {}),
        (None, 0, {}),
    ],
)
def test_a_release_that_is_spoilt_does_not_keep_another_from_being_tried(
    layout, script, mode, told
):
    """Its command is gone, does not start or answers nonsense: there is nothing to remember."""
    kiosk = layout.kiosk(layout.release("1.0.0"))
    if script is not None:
        kiosk.write_text(script)
        kiosk.chmod(mode)
    watch = health.Watch(layout, lambda _: None)
    watch.remember()
    assert watch._before == told


WELL = {
    "configuration": "in force",
    "camera": "running",
    "frame_age_s": 0.1,
    "cannot_record": "",
    "outbox": {"pending": 0},
    "online": True,
}
DARK = {**WELL, "camera": "failed"}
WAITS = {**WELL, "outbox": {"pending": 12}, "online": False, "link_problem": "refused"}


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (WELL, WELL, ""),
        (WELL, DARK, "camera failed"),
        (DARK, DARK, ""),
        (DARK, WAITS, "12 wait, and the server takes nothing: refused"),
        ({}, DARK, ""),
        ({}, WAITS, ""),
        ({}, {}, "it does not answer on its control socket"),
        (None, DARK, "camera failed"),
    ],
)
def test_what_was_no_better_before_is_not_held_against_a_release(
    layout, monkeypatch, before, now, told
):
    """Least of all by going back to one that does not run at all."""
    if before is None:
        layout.current.unlink()
    watch = health.Watch(layout, lambda _: None)
    monkeypatch.setattr(watch, "_status", lambda: before)
    watch.remember()
    assert watch._problem(now) == told


def test_a_kiosk_that_is_starting_is_waited_for(layout, monkeypatch):
    """It was well before: what the next release does worse is its own doing."""
    answers = iter([{}, {}, WELL])
    watch = health.Watch(layout, lambda _: None)
    monkeypatch.setattr(watch, "_status", lambda: next(answers))
    watch.remember()
    assert watch._problem(DARK) == "camera failed"


class SlowBoard:
    """A look takes it seconds; systemd tells what it is asked in an order of its own."""

    def __init__(self, monkeypatch, look_s=2.0, well_after_s=0.0):
        self.look_s, self.well_after_s = look_s, well_after_s
        self.now = 0.0
        self.looks = 0
        self.process = "7"
        monkeypatch.setattr(health, "time", self)
        monkeypatch.setattr(health, "_PAUSE", self)
        monkeypatch.setattr(health, "run", self.run)

    def time(self):
        return self.now

    def monotonic(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds

    def run(self, *_):
        told = f"MainPID={self.process}\nActiveState=active\n".encode()
        return CompletedProcess((), 0, told, b"")

    def status(self):
        well = self.now >= self.well_after_s
        self.now += self.look_s
        self.looks += 1
        return WELL if well else {}


def test_a_slow_board_is_left_alone_between_two_looks(layout, monkeypatch):
    """It has a kiosk to run: most of the time nobody looks, and the verdict is no later for it."""
    board = SlowBoard(monkeypatch)
    watch = health.Watch(layout, lambda _: None)
    monkeypatch.setattr(watch, "_status", board.status)
    assert watch.healthy(15.0) == ""
    assert board.looks * 2.0 <= board.now / 2
    assert 15.0 <= board.now <= 15.0 + 2 * 2.0


@pytest.mark.parametrize(("look_s", "well_after_s"), [(12.0, 3.0), (7.0, 30.0), (5.0, 45.0)])
def test_a_good_release_is_kept_on_a_board_that_is_slower_still(
    layout, monkeypatch, look_s, well_after_s
):
    """It is not well at the first look; the rest between two must not take what time it has."""
    board = SlowBoard(monkeypatch, look_s, well_after_s)
    watch = health.Watch(layout, lambda _: None)
    monkeypatch.setattr(watch, "_status", board.status)
    assert watch.healthy(60.0) == ""


def test_a_kiosk_that_does_not_answer_is_not_waited_for_beyond_the_time_it_has(layout, monkeypatch):
    """The healthy seconds and the grace, and no rest after them."""
    board = SlowBoard(monkeypatch, look_s=60.0, well_after_s=1e9)
    watch = health.Watch(layout, lambda _: None)
    monkeypatch.setattr(watch, "_status", board.status)
    assert watch.healthy(60.0) == "it does not answer on its control socket"
    assert board.now <= 60.0 + health._GRACE_S


def test_another_process_than_at_first_is_a_crash(layout, monkeypatch):
    """However well it looks."""
    board = SlowBoard(monkeypatch)
    watch = health.Watch(layout, lambda _: None)

    def crashed():
        board.process = "8"
        return board.status()

    monkeypatch.setattr(watch, "_status", crashed)
    assert watch.healthy(15.0).startswith("it did not keep running (active, ")
