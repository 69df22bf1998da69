import errno
import io
import logging
import os
import sys

import numpy as np
import pytest

from kiosk import config
from kiosk.journal import set_up
from kiosk.messages import MESSAGE_IDS

log = logging.getLogger("kiosk.outbox.store")


@pytest.mark.parametrize(("level", "priority"), [(10, 7), (20, 6), (30, 4), (40, 3), (50, 2)])
def test_a_line_carries_its_priority(journal, level, priority):
    """journald learns the level from the prefix and the time from itself."""
    lines = journal(under_systemd=True, level="debug")
    log.log(level, "a.b", extra={"fields": {"x": 1}})
    assert lines()[-1] == f"<{priority}>a.b x=1"


def test_every_line_of_a_trace_carries_the_priority(journal):
    """No line of an error reaches journald as an ordinary message."""
    lines = journal(under_systemd=True, level="debug")
    try:
        raise ValueError("x")
    except ValueError:
        log.exception("a.b")
    error_lines = [line for line in lines() if "journal." not in line]
    assert len(error_lines) > 2
    assert all(line.startswith("<3>") for line in error_lines)


def test_missing_fields_are_told_at_the_start(journal):
    """Without systemd-python the journal says that its events have no fields."""
    assert [line[:30] for line in journal(under_systemd=True)()] == [
        "<6>journal.prefixes_only meani"
    ]


def test_an_event_goes_with_its_fields(systemd_python, sent, clock):
    """With systemd-python each fact is a field of its own to search by, and nothing is lost."""
    stream = io.StringIO()
    set_up(config.Journal(), clock=clock, stream=stream, under_systemd=True)
    fields = {"event_id": "0197-a", "Seq": 7, "odd key!": "a b\n", "employee": "ann"}
    log.warning("outbox.committed", extra={"fields": fields})
    (entry,) = map(dict, sent)
    assert entry[b"MESSAGE"] == rb'outbox.committed event_id=0197-a seq=7 odd_key_="a b\\n"'
    assert entry[b"PRIORITY"] == b"4"
    assert entry[b"SYSLOG_IDENTIFIER"] == b"kiosk"
    assert entry[b"CODE_FILE"].endswith(b"test_systemd.py")
    assert entry[b"CODE_FUNC"] == b"test_an_event_goes_with_its_fields"
    ours = {name: value for name, value in entry.items() if name.startswith(b"KIOSK_")}
    assert ours == {
        b"KIOSK_EVENT": b"outbox.committed",
        b"KIOSK_EVENT_ID": b"0197-a",
        b"KIOSK_SEQ": b"7",
        b"KIOSK_ODD_KEY_": rb"a b\n",
    }
    assert stream.getvalue() == ""


def test_an_event_of_the_catalogue_carries_its_id(systemd_python, sent, clock):
    """MESSAGE_ID is what catalogues and alerts go by; what the catalogue has not has none."""
    set_up(config.Journal(), clock=clock, stream=io.StringIO(), under_systemd=True)
    log.error("model.fallback", extra={"fields": {"x": 1}})
    log.error("a.b")
    ids = [dict(entry).get(b"MESSAGE_ID") for entry in sent]
    assert ids == [MESSAGE_IDS["model.fallback"].encode(), None]
    assert dict(sent[0])[b"MESSAGE"] == b"model.fallback x=1"


def test_odd_texts_are_taken(systemd_python, sent, clock):
    """A long key, half a surrogate pair, a name that collides: journald takes them all."""
    set_up(config.Journal(), clock=clock, stream=io.StringIO(), under_systemd=True)
    fields = {"k" * 200: "\udc80", "event": "mine", "_x": "é", "": "empty", "array": np.ones(3)}
    log.info("a.b", extra={"fields": fields})
    entry, complaint = map(dict, sent)
    assert entry[b"KIOSK_EVENT"] == b"a.b"
    assert entry[b"KIOSK_ARRAY"] == b"ndarray"
    assert complaint[b"KIOSK_EVENT"] == b"journal.field_refused"


def test_a_trace_is_a_field(systemd_python, sent, clock):
    """At debug the frames go with the event, not into its message."""
    set_up(config.Journal(level="debug"), clock=clock, stream=io.StringIO(), under_systemd=True)
    try:
        raise ValueError("x")
    except ValueError:
        log.exception("a.b")
    entry = dict(sent[-1])
    assert entry[b"MESSAGE"] == b"a.b error=ValueError error_text=x"
    assert b"test_systemd.py" in entry[b"KIOSK_TRACE"]


def test_a_journald_that_fails_loses_nothing(systemd_python, monkeypatch, clock):
    """When journald refuses an entry, it goes to standard error together with the reason."""

    def refuse(*_args, **_fields):
        raise OSError(errno.E2BIG, "Argument list too long")

    monkeypatch.setattr(systemd_python, "send", refuse)
    stream = io.StringIO()
    set_up(config.Journal(), clock=clock, stream=stream, under_systemd=True)
    log.info("a.b", extra={"fields": {"x": 1}})
    assert stream.getvalue().splitlines() == [
        "<6>a.b x=1",
        '<3>journal.native_failed reason="[Errno 7] Argument list too long"',
    ]


@pytest.mark.parametrize("ours", [True, False])
def test_systemd_is_known_by_its_stream(tmp_path, monkeypatch, clock, ours):
    """Only the very stream that systemd connected is written with priorities (systemd.exec(5))."""
    monkeypatch.setitem(sys.modules, "systemd", None)
    with (tmp_path / "stream").open("w+") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat((stream if ours else other).fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        set_up(config.Journal(), clock=clock, stream=stream)
        log.info("a.b")
        stream.seek(0)
        assert stream.read().endswith("<6>a.b\n" if ours else " info a.b\n")


@pytest.mark.parametrize("value", [None, "", "x", "1:2:3", ":"])
def test_no_or_an_odd_journal_stream_is_a_terminal(monkeypatch, clock, value):
    """Without systemd, and for a stream with no file behind it, lines are for a person."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if value is not None:
        monkeypatch.setenv("JOURNAL_STREAM", value)
    stream = io.StringIO()
    set_up(config.Journal(), clock=clock, stream=stream)
    log.info("a.b")
    assert stream.getvalue().endswith(" info a.b\n")


class FullDisk(io.StringIO):
    """A stream whose disk is full until told otherwise."""

    full = True

    def write(self, text):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_stream_that_fails_stops_no_punch_and_tells_the_gap(clock):
    """A journal that cannot be written raises nothing, and counts what is missing."""
    stream = FullDisk()
    set_up(config.Journal(), clock=clock, stream=stream, under_systemd=False)
    log.info("a.lost")
    log.info("a.lost")
    stream.full = False
    log.info("a.kept")
    lines = stream.getvalue().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "error journal.lines_lost count=2",
        "info a.kept",
    ]


def test_a_closed_stream_raises_nothing(clock):
    """A daemon whose terminal went away goes on recording."""
    stream = io.StringIO()
    set_up(config.Journal(), clock=clock, stream=stream, under_systemd=False)
    stream.close()
    log.info("a.b")
