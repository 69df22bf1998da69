"""A board is rebooted for its camera only where somebody allowed it, and only so often."""

import json

import msgspec
import pytest

from kiosk.config import check
from kiosk.rebooting import REQUEST_FILE, consider
from kiosk.restarts import Past, begin, ending_of
from kiosk.types import Stamp, Trust

HOUR_MS = 3_600_000


class Clock:
    def __init__(self):
        self.utc_ms = 1_790_000_000_000

    def now(self):
        return Stamp(self.utc_ms, 1, "boot", Trust.SYNCED)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def settings(tmp_path):
    """Allowed once a day."""
    document = {
        "server": {"url": "http://127.0.0.1:1"},
        "paths": {"state_dir": str(tmp_path), "runtime_dir": str(tmp_path)},
        "limits": {"reboots_a_day": 1},
    }
    return check(document, "test")


def after(ends, cause="camera"):
    """A run that begins after so many ends of this boot, the last of that cause."""
    past = Past("boot", 1, causes={"boot": 1, "camera": ends - 1}, ending=cause)
    return begin(past, "boot", 2)


def wanted(tmp_path):
    return (tmp_path / REQUEST_FILE).exists()


def test_a_thread_that_failed_names_the_end():
    """The camera's own end is told from any other failure, and from a good one."""
    assert ending_of("capture: 3 calls hang", "stopped") == "camera"
    assert ending_of("uplink: no such luck", "stopped") == "failed"
    assert ending_of(None, "restarted") == "restarted"


def test_the_third_process_that_got_no_picture_asks(settings, clock, tmp_path):
    """Not before, and not after another end."""
    assert not consider(settings, after(2), clock)
    assert not consider(settings, after(3, "failed"), clock)
    assert not wanted(tmp_path)
    assert consider(settings, after(3), clock)
    assert wanted(tmp_path)


def test_by_default_nothing_is_rebooted(settings, clock, tmp_path):
    """The limit is 0 until somebody sets it."""
    plain = msgspec.structs.replace(settings, limits=type(settings.limits)())
    assert plain.limits.reboots_a_day == 0
    assert not consider(plain, after(9), clock)
    assert not wanted(tmp_path)


def test_the_budget_is_for_a_day(settings, clock, tmp_path, caplog):
    """A camera that is dead reboots nothing for ever; tomorrow it is tried once more."""
    assert consider(settings, after(3), clock)
    (tmp_path / REQUEST_FILE).unlink()
    clock.utc_ms += HOUR_MS
    assert not consider(settings, after(3), clock)
    assert not wanted(tmp_path)
    assert "board.reboots_spent" in caplog.text
    clock.utc_ms += 24 * HOUR_MS
    assert consider(settings, after(3), clock)


@pytest.mark.parametrize("content", ["", "nothing", "{}", '["x", null, 1]'])
def test_a_damaged_note_starts_a_new_budget(settings, clock, tmp_path, content):
    """It must neither stop the start nor forbid for ever."""
    (tmp_path / "reboots.json").write_text(content)
    assert consider(settings, after(3), clock)
    assert json.loads((tmp_path / "reboots.json").read_text()) == [clock.utc_ms]
