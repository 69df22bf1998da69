import logging
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.entry import entry_of

log = logging.getLogger("kiosk.outbox.store")


@pytest.fixture(autouse=True)
def _utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_line_is_time_level_event_and_fields(journal):
    """One event is one line that a person and grep can read."""
    lines = journal()
    fields = {"seq": "a-1", "score": 0.5, "n": 3, "ok": True, "kind": None}
    log.info("outbox.committed", extra={"fields": fields})
    log.error("outbox.broken")
    assert lines() == [
        "07:59:59 info outbox.committed seq=a-1 score=0.5 n=3 ok=true kind=none",
        "07:59:59 error outbox.broken",
    ]


def test_time_is_local(journal, monkeypatch):
    """The line's clock is the one on the wall."""
    monkeypatch.setenv("TZ", "EET-2")
    time.tzset()
    lines = journal()
    log.info("a.b")
    assert lines() == ["09:59:59 info a.b"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain/path-1.2:3", "plain/path-1.2:3"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "x"', r'"say \"x\""'),
        ("back\\slash", r'"back\\slash"'),
        ("Zoë 王", '"Zoë 王"'),
        ("a\nb", r'"a\\nb"'),
        ("\x1b[2J", r'"\\x1b[2J"'),
        ("\u202edcba", r'"\\u202edcba"'),
        ("\udc80", r'"\\udc80"'),
    ],
)
def test_values_are_quoted_and_escaped(journal, value, written):
    """What could end a value, a line, or act on a terminal is escaped."""
    lines = journal()
    log.info("a.b", extra={"fields": {"x": value}})
    assert lines() == [f"07:59:59 info a.b x={written}"]


@pytest.mark.parametrize("under_systemd", [False, True])
def test_a_value_cannot_forge_a_line(journal, under_systemd):
    """A name with line breaks in it does not become an event of its own."""
    forged = "x\r\n08:00:00 info outbox.committed\n<0>outbox.committed\u2028\x85\x0b\x0c\x1c"
    lines = journal(under_systemd=under_systemd, level="error")
    try:
        raise ValueError(forged)
    except ValueError:
        log.exception("a.b", extra={"fields": {"name": forged, forged: 1}})
    assert len(lines()) == 1


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.text(max_size=80), st.text() | st.integers() | st.floats() | st.none()),
    st.text(),
)
def test_whatever_comes_is_one_printable_line(fields, message):
    """No text in fields, keys or message makes a second line or a control character."""
    record = logging.LogRecord("kiosk.x", logging.INFO, "p", 1, message, None, None)
    record.fields = fields
    text = entry_of(record, names=True, traces=False).text
    assert text.isprintable()


def test_a_long_text_is_cut_with_a_mark(journal):
    """A line stays bounded, and says how much is missing."""
    lines = journal()
    log.info("a.b", extra={"fields": {"x": "y" * 512, "z": "w" * 500}})
    x, z = "y" * 500, "w" * 500
    assert lines() == [f'07:59:59 info a.b x="{x}…[12 more]" z={z}']


@pytest.mark.parametrize(("names", "shown"), [(True, " employee=ann"), (False, "")])
def test_an_employee_is_written_only_where_allowed(journal, names, shown):
    """Who it was is nobody's business unless the configuration says so."""
    lines = journal(names=names)
    log.info("visit.recorded", extra={"fields": {"seq": 1, "employee": "ann"}})
    log.info("visit.recorded", extra={"fields": {"seq": 1, "Employee": "ann"}})
    assert lines() == [f"07:59:59 info visit.recorded seq=1{shown}"] * 2


EMBEDDING = np.linspace(-0.987654, 0.987654, 192, dtype=np.float32)


@pytest.mark.parametrize(
    "value",
    [
        EMBEDDING,
        EMBEDDING.tobytes(),
        bytearray(EMBEDDING.tobytes()),
        memoryview(EMBEDDING.tobytes()),
        EMBEDDING.tolist(),
        tuple(EMBEDDING.tolist()),
        {"v": EMBEDDING},
        {0.987654},
        EMBEDDING[0],
        int.from_bytes(EMBEDDING.tobytes()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_embedding_never_gets_in(journal, value):
    """Only plain facts are written: as field, argument, message, error or in a trace."""
    lines = journal(level="debug", names=True)
    for _ in range(2):
        log.info("vision.seen", extra={"fields": {"embedding": value, "seq": 7}})
    log.info("vision.seen", extra={"fields": value})
    log.warning("seen %s and %r", value, value)
    log.warning("seen %(v)s", {"v": value})
    log.warning("number %f", value)
    log.warning(value)
    try:
        try:
            raise ValueError(value)
        except ValueError as error:
            raise RuntimeError("while embedding", error) from error
    except RuntimeError:
        log.exception("vision.failed")
    text = "\n".join(lines())
    kind = type(value).__name__
    assert f"vision.seen embedding={kind} seq=7" in text
    assert "987654" not in text
    assert "0x" not in text
    assert str(EMBEDDING.tobytes()[:4])[2:-1] not in text


def test_a_refused_value_is_told_once(journal):
    """The mistake is loud, but does not fill the disk."""
    lines = journal()
    for _ in range(3):
        log.info("vision.seen", extra={"fields": {"embedding": EMBEDDING}})
    told = [line for line in lines() if "journal.field_refused" in line]
    assert told == [
        "07:59:59 error journal.field_refused in_event=vision.seen field=embedding type=ndarray"
    ]


def test_an_exception_is_one_line(journal):
    """At the usual level an error is its type and what it says, no trace."""
    lines = journal()
    try:
        raise KeyError("key")
    except KeyError:
        log.exception("thread.failed", extra={"fields": {"thread": "uplink"}})
    assert lines() == ["07:59:59 error thread.failed thread=uplink error=KeyError error_text='key'"]


def test_a_trace_is_told_at_debug_only(journal):
    """Whoever looks for a fault gets all frames, in lines that cannot be taken for events."""
    lines = journal(level="debug")
    try:
        try:
            raise OSError(28, "No space left\n08:00:00 info forged.event")
        except OSError as error:
            raise RuntimeError("put failed") from error
    except RuntimeError:
        log.exception("outbox.broken")
    first, *trace = lines()
    assert first.endswith('error outbox.broken error=RuntimeError error_text="put failed"')
    assert all(line.startswith("    | ") for line in trace)
    assert any("test_lines.py" in line and "test_a_trace" in line for line in trace)
    assert any("OSError: [Errno 28] No space left" in line for line in trace)


def test_other_peoples_libraries_speak_of_failures_only(journal):
    """urllib3's chatter is left out, its warnings become events with the text as a field."""
    lines = journal(level="debug")
    urllib3 = logging.getLogger("urllib3.connectionpool")
    urllib3.debug("Starting new HTTPS connection (%d): %s:%s", 1, "host", 443)
    urllib3.info("x")
    urllib3.warning("Retrying (%r) after %r: %s", EMBEDDING, OSError(5, "io"), "/toon")
    assert lines() == [
        "07:59:59 warning journal.other logger=urllib3.connectionpool"
        """ text="Retrying ('ndarray') after '[Errno 5] io': /toon\""""
    ]


@pytest.mark.parametrize(
    ("level", "count"), [("debug", 5), ("info", 4), ("warning", 3), ("error", 2)]
)
def test_the_level_is_the_configured_one(journal, level, count):
    """What is below the configured level is not written."""
    lines = journal(level=level)
    for severity in (10, 20, 30, 40, 50):
        log.log(severity, "a.b")
    logging.getLogger("urllib3").warning("w")
    assert len([line for line in lines() if " a.b" in line]) == count
    assert bool([line for line in lines() if "urllib3" in line]) is (level != "error")


def test_free_text_of_our_own_is_an_event_too(journal):
    """A message that is no room.event still has an event to search by."""
    lines = journal()
    log.info("Something happened")
    assert lines()[0].endswith(
        'info journal.other logger=kiosk.outbox.store text="Something happened"'
    )


def test_arguments_that_do_not_fit_lose_no_line(journal):
    """A mistake in a log call is written as it stands and raises nothing."""
    lines = journal()
    message = "%d of %d"
    log.info(message, 1)
    assert lines()[0].endswith('text="%d of %d"')


def test_set_up_again_replaces(journal):
    """Two set-ups do not write every line twice."""
    first, second = journal(), journal()
    log.info("a.b")
    assert (len(first()), len(second())) == (0, 1)


def test_the_time_in_a_line_is_of_one_form(journal):
    """HH:MM:SS, so that lines sort and align."""
    lines = journal()
    log.info("a.b")
    assert re.fullmatch(r"\d\d:\d\d:\d\d info a\.b", lines()[0])
