"""Why a run begins, and how long it waits first: pure, then with the file in the runtime folder."""

import json
import threading
from dataclasses import replace

import pytest

from kiosk.clock import NS_PER_S
from kiosk.notify import Notifier
from kiosk.restarts import Past, Restarts, begin, begun
from kiosk.types import Stamp, Trust

BOOT = "boot-1"


def lives(past, seconds, ending):
    """The next beginning, when the last run lived so long from the start of its work."""
    now_ns = past.began_ns + round((past.paused_s + seconds) * NS_PER_S)
    told = replace(past, ending=ending)
    return begin(told, BOOT, now_ns)


def test_a_crash_loop_slows_down():
    """Each run that is killed at once makes the next wait longer, up to two minutes."""
    beginning = begin(Past(), BOOT, NS_PER_S)
    waits = []
    for _ in range(9):
        beginning = lives(beginning.past, 0.0, "")
        waits.append(beginning.pause_s)
    assert waits == [2, 4, 8, 16, 32, 64, 120, 120, 120]
    assert beginning.cause == "killed"
    assert beginning.past.causes == {"boot": 1, "killed": 9}


def test_what_systemd_has_waited_counts():
    """From systemd 254 on RestartSteps= does the waiting: nothing is added to it."""
    beginning = begin(Past(), BOOT, NS_PER_S)
    for waited, left in ((2.0, 0.0), (4.0, 0.0), (3.0, 5.0)):
        beginning = lives(beginning.past, waited, "")
        assert beginning.pause_s == left


def test_a_good_run_forgives():
    """Ten minutes without a crash, and the next one is restarted at once."""
    beginning = begin(Past(), BOOT, NS_PER_S)
    for _ in range(5):
        beginning = lives(beginning.past, 0.0, "failed")
    assert beginning.pause_s == 32
    beginning = lives(beginning.past, 600.0, "failed")
    assert (beginning.pause_s, beginning.past.hasty) == (0.0, 0)


def test_who_was_asked_to_stop_need_not_wait():
    """An operator who restarts it five times in a minute is not made to wait."""
    beginning = begin(Past(), BOOT, NS_PER_S)
    for _ in range(5):
        beginning = lives(beginning.past, 1.0, "stopped")
        assert (beginning.cause, beginning.pause_s) == ("stopped", 0.0)


def test_one_that_renews_itself_at_once_slows_down():
    """A memory limit below what it starts with would renew it every ten seconds for ever."""
    beginning = begin(Past(), BOOT, NS_PER_S)
    for _ in range(5):
        beginning = lives(beginning.past, 10.0, "restarted")
    assert beginning.pause_s == 22.0
    assert lives(beginning.past, 86_400.0, "restarted").pause_s == 0.0


def test_killed_while_it_waits_is_killed_all_the_same():
    """The pause itself cannot be used to begin anew at full speed."""
    beginning = begin(Past(), BOOT, NS_PER_S)
    for _ in range(4):
        beginning = lives(beginning.past, 0.0, "failed")
    beginning = begin(replace(beginning.past, ending=""), BOOT, beginning.past.began_ns + NS_PER_S)
    assert (beginning.cause, beginning.pause_s) == ("killed", 32.0)


def test_a_boot_begins_anew():
    """What happened in another boot, or under a clock that ran otherwise, says nothing."""
    past = Past("another", 5 * NS_PER_S, hasty=7)
    assert begin(past, BOOT, 9 * NS_PER_S).cause == "boot"
    assert begin(Past(BOOT, 5 * NS_PER_S, hasty=7), BOOT, NS_PER_S).cause == "boot"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"hasty": -1}', '{"hasty": "x"}', '{"causes": [1]}', '{"else": 1}', "\x00"],
)
def test_a_file_that_says_something_else_is_as_good_as_none(tmp_path, text):
    """Whoever wrote it: the kiosk starts."""
    (tmp_path / "restarts.json").write_text(text)
    assert Restarts(tmp_path, BOOT, NS_PER_S).beginning.cause == "boot"


def test_each_end_is_told_to_the_next_start(tmp_path):
    """Stopped, watchdog, killed (no word at all): read from the file, and counted."""
    for number, (ending, cause) in enumerate(
        [("stopped", "stopped"), ("watchdog", "watchdog"), ("", "killed")]
    ):
        Restarts(tmp_path, BOOT, (2 * number + 1) * 1000 * NS_PER_S).note(ending)
        after = Restarts(tmp_path, BOOT, (2 * number + 2) * 1000 * NS_PER_S)
        assert after.beginning.cause == cause
    assert json.loads((tmp_path / "restarts.json").read_text())["boot_id"] == BOOT


def test_a_runtime_folder_without_space_costs_only_the_memory(tmp_path, monkeypatch):
    """No space in /run: the kiosk starts all the same."""
    restarts = Restarts(tmp_path / "gone", BOOT, NS_PER_S)
    restarts.note("stopped")
    assert Restarts(tmp_path / "gone", BOOT, NS_PER_S).beginning.cause == "boot"


def test_the_turn_is_waited_for_and_told(tmp_path, caplog):
    """The journal says after what it begins and how long it waits; `stop` ends the wait."""

    class Clock:
        def __init__(self):
            self.ns, self.waits = NS_PER_S, []

        def now(self):
            return Stamp(0, self.ns, BOOT, Trust.SYNCED)

        def wait(self, event, timeout_s):
            self.waits.append(timeout_s)
            return False

    clock, stop, caught = Clock(), threading.Event(), []
    for _ in range(3):
        begun(tmp_path, clock, Notifier({}), stop)
        caught = [record for record in caplog.records if record.message == "kiosk.starting"]
    assert [record.fields["after"] for record in caught] == ["killed", "killed"]
    assert clock.waits == [2.0, 4.0]
