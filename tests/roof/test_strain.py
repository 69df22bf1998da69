"""Heat slows down, memory renews, weak power is told: on the test's own clock and figures."""

import logging
from types import SimpleNamespace

import pytest

from kiosk.board import Board
from kiosk.clock import NS_PER_S
from kiosk.config import Limits
from kiosk.strain import LOOK_S, Strain, resident_mb, step


@pytest.mark.parametrize(
    ("one_of", "temperature_c", "next_one_of"),
    [
        (1, 74.9, 1),
        (1, 75.0, 2),
        (1, 80.0, 4),
        (2, 79.9, 2),
        (2, 80.0, 4),
        (4, 77.1, 4),
        (4, 77.0, 2),
        (2, 72.1, 2),
        (2, 72.0, 1),
        (4, 60.0, 1),
        (4, None, 1),
    ],
)
def test_steps_go_up_at_once_and_down_with_room(one_of, temperature_c, next_one_of):
    """Three degrees lie between up and down: no rate that changes with each look."""
    assert step(one_of, temperature_c, 75.0) == next_one_of


@pytest.fixture
def scene():
    clock = SimpleNamespace(ns=0)
    clock.boottime_ns = lambda: clock.ns
    pace = SimpleNamespace(one_of=1, awake=False)
    strain = Strain(Limits(memory_mb=300), pace, clock=clock)

    def look(seconds=LOOK_S, temperature_c=50.0, weak=False, rss_mb=100.0):
        clock.ns += round(seconds * NS_PER_S)
        assert strain.due()
        due = strain.look(Board(temperature_c, weak, None, None), rss_mb)
        assert not strain.due()
        return due

    return SimpleNamespace(look=look, pace=pace, strain=strain)


def test_a_hot_board_is_told_at_each_step(scene, caplog):
    """Up is an error with what is left out, down a warning; the same again is silence."""
    caplog.set_level(logging.WARNING)
    for temperature_c in (76.0, 76.0, 82.0, 60.0):
        scene.look(temperature_c=temperature_c)
    told = [(r.message, r.fields["one_of"]) for r in caplog.records]
    assert told == [("board.hot", 2), ("board.hot", 4), ("board.cooler", 1)]
    assert scene.pace.one_of == 1


def test_weak_power_is_told_once_each_time(scene, caplog):
    """It comes and goes with the load; each coming is a line."""
    for weak in (True, True, False, True):
        scene.look(weak=weak)
    assert [r.message for r in caplog.records] == ["board.under_voltage"] * 2


def test_memory_renews_between_two_visits(scene, caplog):
    """Not while somebody is there, unless that lasts ten minutes: a poster is no visit."""
    scene.pace.awake = True
    for _ in range(59):
        assert not scene.look(rss_mb=301.0)
    scene.pace.awake = False
    assert scene.look(rss_mb=301.0)
    assert [r.fields for r in caplog.records] == [{"rss_mb": 301, "limit_mb": 300}]
    scene.pace.awake = True
    assert scene.look(seconds=600.0, rss_mb=301.0)


def test_memory_that_goes_back_is_forgiven(scene):
    """The ten minutes begin anew; no limit is no limit."""
    scene.pace.awake = True
    scene.look(rss_mb=301.0)
    scene.look(seconds=595.0, rss_mb=299.0)
    assert not scene.look(rss_mb=301.0)
    scene.strain.limits, scene.pace.awake = Limits(memory_mb=0), False
    assert not scene.look(rss_mb=1e6)


def test_this_process_has_a_size():
    """Read from the kernel: pytest with numpy takes more than 20 MiB and less than 20 GiB."""
    assert 20 < resident_mb() < 20_000
