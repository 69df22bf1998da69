"""A configuration that does not check, and one that is read anew while the daemon works."""

import signal
import threading
from pathlib import Path

import pytest

from kiosk.config import load
from kiosk.errors import ConfigError
from kiosk.lastgood import FILE, load_or_last, merged
from kiosk.reloading import Origin, Reloader

GOOD = '[server]\nurl = "https://a.example"\n'


@pytest.fixture
def place(tmp_path):
    """A state folder, and a file that says it."""
    state = tmp_path / "state"
    state.mkdir()
    path = tmp_path / "kiosk.toml"

    def write(text, where=path):
        paths = f'[paths]\nstate_dir = "{state}"\n'
        Path(where).write_text(text + paths)
        return path

    write.state = state
    return write


def test_the_last_good_one_stands_in(place):
    """What does not check is told with its problems; the settings are those that checked last."""
    place(GOOD, place.state / FILE)
    path = place('[server]\nurl = "ftp://b"\n')
    loaded = load_or_last(path, {})
    assert loaded.settings.server.url == "https://a.example"
    assert "server.url" in loaded.refused


def test_a_file_that_is_no_toml_needs_systemds_word(place):
    """Where the state is cannot be read from it, but STATE_DIRECTORY says so."""
    place(GOOD, place.state / FILE)
    path = place("[[[")
    given = {"STATE_DIRECTORY": str(place.state)}
    assert load_or_last(path, given).settings.server.url == "https://a.example"
    with pytest.raises(ConfigError):
        load_or_last(path, {"STATE_DIRECTORY": "/nowhere"})


@pytest.mark.parametrize("kept", [None, "[[[", '[server]\nurl = "ftp://c"\n'])
def test_without_a_good_one_the_first_error_is_told(place, kept):
    """A first start has nothing to stand in; a kept file that went bad does not either."""
    if kept is not None:
        (place.state / FILE).write_text(kept)
    with pytest.raises(ConfigError, match=r"kiosk\.toml"):
        load_or_last(place('[server]\nurl = "ftp://b"\n'), {})


def test_only_what_may_change_live_does(place):
    """The rest keeps its value and is named: half a change would be worse than none."""
    old = load(place(GOOD))
    text = (
        '[server]\nurl = "https://b.example"\n[recognition]\nmargin = 0.2\n[limits]\nhot_c = 60.0\n'
    )
    now, live, waiting = merged(old, load(place(text)))
    assert (live, waiting) == (["recognition.margin", "limits.hot_c"], ["server.url"])
    assert (now.server.url, now.recognition.margin) == ("https://a.example", 0.2)


@pytest.fixture
def reloader(place):
    path, again, applied = place(GOOD), threading.Event(), []
    made = Reloader(load(path), Origin(path, "", again), applied.append)

    def read(text):
        place(text)
        again.set()
        made.look()
        return made

    read.made, read.applied, read.again = made, applied, again
    return read


def test_a_reload_that_does_not_check_changes_nothing(reloader, place):
    """It is told as an alarm and stands in the status; mended, it is in force."""
    made = reloader('[server]\nurl = "https://a.example"\n[recognition]\nmargin = 7\n')
    assert "recognition.margin" in made.refused
    assert reloader.applied == []
    made = reloader('[server]\nurl = "https://a.example"\n[recognition]\nmargin = 0.3\n')
    assert made.refused == ""
    assert [settings.recognition.margin for settings in reloader.applied] == [0.3]
    assert "margin = 0.3" in (place.state / FILE).read_text()


def test_what_was_saved_wrongly_meanwhile_is_not_kept(reloader, place):
    """Between the read and the keeping somebody saved again: the last good one stays."""
    reloader.made.ready()
    place("[[[")
    reloader.made.ready()
    assert "a.example" in (place.state / FILE).read_text()


def test_nobody_asks_nothing_is_read(reloader, place):
    """The file may be half written meanwhile."""
    place("[[[")
    reloader.made.look()
    assert reloader.made.refused == ""


def test_a_running_daemon_reloads_at_a_sighup(daemon):
    """Level and rules at once, the rest named; then a bad file, then a start with it."""
    daemon.start()
    text = daemon.path.read_text()
    daemon.path.write_text(text.replace("names = true", 'names = true\nlevel = "debug"'))
    daemon.process.send_signal(signal.SIGHUP)
    assert "changed=journal.level needs_restart=none" in daemon.read_until("config.reloaded")
    daemon.path.write_text(text.replace("backoff_cap_s = 1.0", "backoff_cap_s = -1"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.read_until("config.refused")
    status = daemon.json("status")
    assert status["state"] == "degraded"
    assert "server.backoff_cap_s" in status["configuration"]
    assert daemon.stop() == 0
    daemon.start(wait_for="config.refused")
    daemon.read_until("kiosk.ready")
    assert daemon.stop() == 0
