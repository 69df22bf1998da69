"""`kiosk outbox list`, `show`, `export`: with a daemon and without one, the same."""

import base64
import json
import logging
import random
import shutil
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from kiosk.clock import SystemClock
from kiosk.config import load
from kiosk.control import ControlServer
from kiosk.identity import leave_for_recovery
from kiosk.outbox.operations import operations
from kiosk.outbox.store import Outbox
from kiosk.state import open_state
from kiosk.types import Direction, Embedding, Punch, Stamp, Trust
from kiosk.vault import recovery_pair
from kiosk.wire import message
from kiosk.wire.eventid import new_event_id

HANG_S = 60


@pytest.fixture
def named(config):
    """A configuration of a kiosk that signs."""
    path = config()
    path.write_text(path.read_text().replace("[paths]", 'key_id = "k1"\n[paths]'))
    return path


class Queue:
    """The state of a configuration, held as the daemon holds it."""

    def __init__(self, path):
        self.clock, self.settings = SystemClock(), load(path)
        self.state = open_state(self.settings)
        self.outbox = Outbox(
            self.state.outbox_path,
            vault=self.state.vault,
            device_id=self.state.device,
            signer=self.state.signer,
            clock=self.clock,
        )
        self.outbox.start()
        self.stop = threading.Event()

    def fill(self, count):
        rng = random.Random(3)
        face = Embedding.of(np.random.default_rng(3).standard_normal(192), "test-space")
        ids = []
        for _ in range(count):
            seen = self.clock.now()
            ids.append(new_event_id(seen.utc_ms, rng))
            punch = Punch(ids[-1], "E-1", Direction.IN, face, 0.75, 0.5, None, seen)
            self.outbox.put(punch)
        return ids

    def listen(self):
        self.control = ControlServer(
            self.settings.paths.runtime_dir,
            operations(self.outbox),
            clock=self.clock,
            beat=lambda *_: None,
        )
        self.control.open()
        self.thread = threading.Thread(target=self.control.run, args=(self.stop,))
        self.thread.start()

    def close(self):
        self.stop.set()
        if hasattr(self, "control"):
            self.control.close()
            self.thread.join(HANG_S)
        self.outbox.close(HANG_S)
        self.state.close()


@pytest.fixture(params=["a daemon", "no daemon"])
def filled(request, named):
    """Queued events of a kiosk, asked through its daemon or on its files; ids and configuration."""
    queue = Queue(named)
    ids = queue.fill(205)
    queue.outbox.quarantine(ids[1], "refused by the server with status 400")
    if request.param == "a daemon":
        queue.listen()
        yield ids, named
        queue.close()
    else:
        queue.close()
        yield ids, named


def test_a_copy_is_handed_out_and_tried(kiosk, named):
    """By the running kiosk only; then this version says whether it could go on with it."""
    queue = Queue(named)
    queue.fill(3)
    queue.listen()
    status, out, _ = kiosk("outbox", "backup", "--json", "--config", named)
    copy = json.loads(out)["file"]
    assert status == 0
    assert json.loads(out)["bytes"] > 0
    _, out, _ = kiosk("outbox", "backup", "--config", named)
    assert "delete it when it is not needed" in out
    queue.close()
    status, out, _ = kiosk("outbox", "rehearse", copy, "--json")
    done = json.loads(out)
    assert (status, done["before"]) == (0, done["after"])
    status, out, _ = kiosk("outbox", "rehearse", copy)
    assert "all tables are sound" in out
    status, _, err = kiosk("outbox", "backup", "--config", named)
    assert status == 1
    assert "no daemon answers" in err
    status, _, err = kiosk("outbox", "rehearse", named)
    assert status == 1
    assert "no database" in err


def test_the_queue_is_listed(kiosk, filled):
    """The oldest first, as many as asked for, and how many more there are."""
    ids, config = filled
    status, out, _ = kiosk("outbox", "list", "--limit", 2, "--config", config)
    assert status == 0
    assert ids[0] in out
    assert ids[1] not in out
    assert "and 202 later ones" in out.splitlines()
    status, out, _ = kiosk("outbox", "list", "--json", "--config", config)
    shown = json.loads(out)
    assert (status, shown["pending"], len(shown["events"])) == (0, 204, 50)
    assert kiosk("outbox", "list", "--limit", 0, "--config", config)[0] == 2


def test_one_event_is_shown(kiosk, filled):
    """State and message for a person and for a program; never the face."""
    ids, config = filled
    status, out, _ = kiosk("outbox", "show", ids[1], "--config", config)
    assert status == 0
    assert "quarantined" in out
    assert "refused by the server with status 400" in out
    assert "F2_DATA" not in out
    status, out, _ = kiosk("outbox", "show", ids[0], "--json", "--config", config)
    assert (status, json.loads(out)["message"]["A1"]) == (0, ids[0])
    assert kiosk("outbox", "show", "x", "--config", config)[0] == 2


def test_everything_is_exported_once_signed_and_private(kiosk, filled, tmp_path):
    """A line for each event that waits or was set aside, mode 0600; all stay queued."""
    ids, config = filled
    file = tmp_path / "stick" / "events.jsonl"
    file.parent.mkdir()
    status, out, err = kiosk("outbox", "export", file, "--json", "--config", config)
    assert status == 0
    assert json.loads(out) == {"file": str(file), "events": 205, "unreadable": []}
    assert "photographs" in err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    sent = [message.parse(line) for line in file.read_bytes().splitlines()]
    assert [one.event_id for one in sent] == ids
    assert {one.key_id for one in sent} == {"k1"}
    assert json.loads(kiosk("outbox", "status", "--json", "--config", config)[1])["pending"] == 204
    again = tmp_path / "again.jsonl"
    status, out, _ = kiosk("outbox", "export", again, "--config", config)
    assert (status, out.split()[0]) == (0, "205")
    assert again.read_bytes() == file.read_bytes()


def test_one_event_is_one(kiosk, named, tmp_path):
    """In the words for a person."""
    queue = Queue(named)
    queue.fill(1)
    queue.close()
    file = tmp_path / "events.jsonl"
    _, out, _ = kiosk("outbox", "export", file, "--config", named)
    assert out == f"1 event in {file}; it stays queued here as well\n"


def test_a_dash_is_standard_output(kiosk, filled, tmp_path, monkeypatch):
    """The messages and nothing else; words go to standard error, and a terminal is refused: it
    would keep people's faces in its history."""
    ids, config = filled
    monkeypatch.chdir(tmp_path)
    status, out, err = kiosk("outbox", "export", "-", "--config", config)
    assert status == 0
    assert [message.parse(line.encode()).event_id for line in out.splitlines()] == ids
    assert "205 events in standard output; they stay queued here as well" in err
    assert "photographs" in err
    assert not (tmp_path / "-").exists()
    assert kiosk("outbox", "export", "-", "--json", "--config", config)[0] == 2
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    status, out, err = kiosk("outbox", "export", "-", "--config", config)
    assert (status, out) == (2, "")
    assert "got a terminal" in err


def test_times_sent_are_requests_that_carried_the_event(kiosk, named):
    """A server that cannot be reached is no request; each answer that ends nothing is one."""
    queue = Queue(named)
    ids = queue.fill(2)
    queue.close()
    _, out, _ = kiosk("outbox", "list", "--config", named)
    assert "times sent" in out
    assert out.splitlines()[-1].startswith("0 times sent: no connection has stood")
    queue = Queue(named)
    for _ in range(3):
        queue.outbox.lease(1)
    queue.close()
    _, out, _ = kiosk("outbox", "list", "--config", named)
    first = next(line for line in out.splitlines() if ids[0] in line)
    assert first.split()[-1] == "3"
    assert "no connection" not in out


def test_one_that_was_set_aside_is_dropped_once_it_is_in_a_file(kiosk, filled, tmp_path):
    """The very message, private, and only then gone from the queue; nothing else is touched."""
    ids, config = filled
    file = tmp_path / "dropped.jsonl"
    command = ("outbox", "quarantine", "--drop", ids[1], "--export", file, "--config", config)
    status, out, err = kiosk(*command)
    assert status == 0, err
    assert out.startswith(f"{ids[1]} (")
    assert out.endswith(f":2) dropped; its message is in {file} alone\n")
    assert "photograph" in err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (line,) = file.read_bytes().splitlines()
    assert message.parse(line).event_id == ids[1]
    counts = json.loads(kiosk("outbox", "status", "--json", "--config", config)[1])
    assert [counts[name] for name in ("pending", "quarantined", "settled")] == [204, 0, 1]
    shown = json.loads(kiosk("outbox", "show", ids[1], "--json", "--config", config)[1])
    assert (shown["state"], shown["answer"]) == ("settled", "dropped")
    status, _, err = kiosk(*command[:5], tmp_path / "again.jsonl", "--config", config)
    assert (status, f"{ids[1]} is settled" in err) == (2, True)
    assert not (tmp_path / "again.jsonl").exists()


def test_nothing_is_dropped_without_its_copy(kiosk, filled, tmp_path):
    """No file, one that is there, one that cannot be made, an event that waits, half the options:
    the quarantine keeps all."""
    ids, config = filled
    (tmp_path / "taken").touch()
    drop = ("--drop", ids[1])
    for options, expected in (
        (drop, 2),
        (("--export", tmp_path / "free"), 2),
        ((*drop, "--export", tmp_path / "taken"), 2),
        ((*drop, "--export", "-"), 2),
        ((*drop, "--export", tmp_path / "none" / "file"), 1),
        (("--drop", ids[0], "--export", tmp_path / "free"), 2),
        (("--drop", "x", "--export", tmp_path / "free"), 2),
    ):
        status, out, err = kiosk("outbox", "quarantine", *options, "--config", config)
        assert (status, out, len(err.splitlines())) == (expected, "", 1), err
    assert not (tmp_path / "free").exists()
    listed = json.loads(kiosk("outbox", "quarantine", "--json", "--config", config)[1])
    assert [event["event_id"] for event in listed["events"]] == [ids[1]]


def test_what_cannot_be_read_has_no_copy_and_stays(kiosk, named, tmp_path):
    """Dropped it would be gone for good: refused, with the reason."""
    queue = Queue(named)
    (name,) = queue.fill(1)
    queue.outbox.quarantine(name, "refused")
    connection = queue.outbox._queue.database._connection
    queue.outbox._owner.ask(lambda: connection.execute("UPDATE quarantine SET draft = x'00'"))
    queue.close()
    command = (
        "outbox",
        "quarantine",
        "--drop",
        name,
        "--export",
        tmp_path / "f",
        "--config",
        named,
    )
    status, _, err = kiosk(*command)
    assert (status, "a message that can be exported" in err) == (2, True)
    assert not (tmp_path / "f").exists()
    assert json.loads(kiosk("outbox", "status", "--json", "--config", named)[1])["quarantined"] == 1


def test_nothing_is_overwritten(kiosk, filled, tmp_path):
    """A name that is taken is the caller's mistake."""
    _, config = filled
    file = tmp_path / "events.jsonl"
    file.write_text("mine")
    assert kiosk("outbox", "export", file, "--config", config)[0] == 2
    assert file.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(kiosk, filled, tmp_path):
    """No folder, no file: one line that says where."""
    _, config = filled
    status, out, err = kiosk("outbox", "export", tmp_path / "no" / "e.jsonl", "--config", config)
    assert (status, out) == (1, "")
    assert "no/e.jsonl" in err


def test_what_cannot_be_read_is_told_and_left_out(kiosk, named, tmp_path):
    """Exit status 1, the event named, all others in the file."""
    queue = Queue(named)
    ids = queue.fill(3)
    connection = queue.outbox._queue.database._connection
    queue.outbox._owner.ask(
        lambda: connection.execute("UPDATE waiting SET draft = x'00' WHERE position = 2")
    )
    queue.close()
    file = tmp_path / "events.jsonl"
    status, _, err = kiosk("outbox", "export", file, "--config", named)
    assert status == 1
    assert ids[1] in err
    assert len(file.read_bytes().splitlines()) == 2


def test_an_empty_queue_is_an_empty_file(kiosk, named, tmp_path):
    """Nothing waits: that is no failure."""
    file = tmp_path / "events.jsonl"
    assert kiosk("outbox", "export", file, "--config", named)[0] == 0
    assert file.read_bytes() == b""


@pytest.fixture
def dead(named, tmp_path, monkeypatch):
    """The card of a dead board with three events, sealed under its board's key, and the site's."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "kiosk.board-key").write_bytes(bytes(range(32)))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    queue = Queue(named)
    ids = queue.fill(3)
    queue.close()
    private, public = recovery_pair()
    state = Path(load(named).paths.state_dir)
    leave_for_recovery(state, public)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    key = tmp_path / "site.key"
    key.write_bytes(base64.b64encode(private))
    card = tmp_path / "card"
    shutil.copytree(state, card)
    return card, key, ids


def test_a_dead_boards_card_is_exported_elsewhere(kiosk, config, dead, tmp_path):
    """With the site's recovery key, under the id it had; without it the card opens nothing."""
    card, key, ids = dead
    elsewhere, file = config(), tmp_path / "events.jsonl"
    command = ("outbox", "export", file, "--from", card, "--config", elsewhere)
    status, _, err = kiosk(*command)
    assert (status, file.exists()) == (1, False)
    assert "site's recovery key" in err
    status, out, err = kiosk(*command, "--recovery-key", key)
    assert status == 0, err
    assert "3 events" in out
    device = (card / "device.id").read_text().split()[0]
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert [(line["A1"], line["D1"]) for line in lines] == [(name, device) for name in ids]


@pytest.mark.parametrize("wrong", ["another key", "no key", "no folder"])
def test_what_opens_no_card_is_named(kiosk, config, dead, tmp_path, wrong):
    """Nothing is written, neither to the file nor to the card."""
    card, key, _ = dead
    if wrong == "another key":
        key.write_bytes(base64.b64encode(bytes(31) + b"\1"))
    elif wrong == "no key":
        key.write_text("hello")
    else:
        card = tmp_path
    before = sorted(path.name for path in card.iterdir())
    file = tmp_path / "events.jsonl"
    command = ("outbox", "export", file, "--from", card, "--recovery-key", key)
    status, _, err = kiosk(*command, "--config", config())
    assert status in {1, 2}
    assert {"another key": "authenticate", "no key": "--recovery-key", "no folder": "no outbox.db"}[
        wrong
    ] in err
    assert "paths.state_dir" not in err
    assert not file.exists()
    assert {*before, "lock"} >= {path.name for path in card.iterdir()} - {"kiosk.toml"}


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_is_no_card_is_named_by_its_option(kiosk, config, tmp_path, there):
    """--from was given, so --from is named, and nothing is made in the folder."""
    card, file = tmp_path / "card", tmp_path / "events.jsonl"
    if there:
        card.mkdir()
    command = ("outbox", "export", file, "--from", card, "--config", config())
    status, _, err = kiosk(*command)
    assert status == 2
    words = "it holds no outbox.db" if there else "there is no such folder"
    assert f"--from {card}: expected a kiosk's state folder, {words}" in err
    assert "paths.state_dir" not in err
    assert not there or list(card.iterdir()) == []


def test_an_alarm_that_a_command_finds_first_reaches_the_daemons_journal(tmp_path, caplog):
    """Whoever looks first must not be the only one to learn that punches are gone."""
    from kiosk import untold

    class Clock:
        def now(self):
            return Stamp(1_790_000_000_000, 1, "boot", Trust.SYNCED)

    log = logging.getLogger("kiosk.outbox.opening")
    with untold.kept_for_the_daemon(tmp_path, Clock()):
        log.critical("outbox.lost", extra={"fields": {"first": 1, "last": 33}})
        log.warning("outbox.cut_short")
        log.warning("outbox.dropped", extra={"fields": {"seq": "a:1"}})
    log.critical("outbox.lost", extra={"fields": {"first": 34}})
    with (tmp_path / untold.FILE).open("ab") as file:
        file.write(b'{"event": "outb')
    assert (tmp_path / untold.FILE).stat().st_mode & 0o777 == 0o600
    caplog.clear()
    untold.tell(tmp_path)
    first, dropped, second = caplog.records
    assert (dropped.message, dropped.levelno) == ("outbox.dropped", logging.WARNING)
    assert first.levelno == logging.CRITICAL
    assert first.message == "outbox.lost"
    assert first.fields["last"] == "33"
    assert first.fields["found_at_ms"] == 1_790_000_000_000
    assert second.message == "journal.alarm_unreadable"
    caplog.clear()
    untold.tell(tmp_path)
    assert caplog.records == []
