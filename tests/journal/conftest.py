"""A journal written to a text in memory; the process's logging is put back afterwards."""

import io
import logging
import sys
import types

import pytest

from kiosk import config
from kiosk.journal import JournalHandler, set_up
from kiosk.types import Stamp, Trust


class StandingClock:
    """2026-05-29T07:59:59.999Z, for ever."""

    def now(self):
        return Stamp(1_780_041_599_999, 0, "boot", Trust.SYNCED)

    def boottime_ns(self):
        return 0

    def wait(self, event, timeout_s):
        return event.wait(timeout_s)


@pytest.fixture
def clock():
    """A clock that stands."""
    return StandingClock()


@pytest.fixture
def _no_systemd(monkeypatch):
    monkeypatch.setitem(sys.modules, "systemd", None)


@pytest.fixture
def journal(clock, _no_systemd):
    """Set the journal up; returns a function that gives all lines so far."""

    def start(*, under_systemd=False, **settings):
        stream = io.StringIO()
        set_up(config.Journal(**settings), clock=clock, stream=stream, under_systemd=under_systemd)
        # pytest's own handlers raise where a mistake in a log call is the very thing tested.
        root = logging.getLogger()
        root.handlers[:] = [known for known in root.handlers if isinstance(known, JournalHandler)]
        return lambda: stream.getvalue().splitlines()

    return start


@pytest.fixture
def sent():
    """What reached journald, a list of (name, value) in bytes for each entry."""
    return []


def fake_send(sendv):
    """systemd.journal.send of systemd-python 235, statement by statement."""

    def make_line(field, value):
        if isinstance(value, bytes):
            return field.encode("utf-8") + b"=" + value
        if isinstance(value, str):
            return field + "=" + value
        return field + "=" + str(value)

    def send(MESSAGE, MESSAGE_ID=None, CODE_FILE=None, CODE_LINE=None, CODE_FUNC=None, **kwargs):  # noqa: N803 - systemd-python's names
        args = ["MESSAGE=" + MESSAGE]
        if MESSAGE_ID is not None:
            args.append("MESSAGE_ID=" + getattr(MESSAGE_ID, "hex", MESSAGE_ID))
        if CODE_FILE is not None:
            args.append("CODE_FILE=" + CODE_FILE)
        if CODE_LINE is not None:
            args.append(f"CODE_LINE={CODE_LINE:d}")
        if CODE_FUNC is not None:
            args.append("CODE_FUNC=" + CODE_FUNC)
        args.extend(make_line(key, value) for key, value in kwargs.items())
        return sendv(*args)

    return send


@pytest.fixture(params=["fake", "real"])
def systemd_python(request, monkeypatch, sent):
    """systemd-python with its last step, the socket to journald, replaced; fake and real."""

    def sendv(*fields):
        pairs = [f.encode("utf-8") if isinstance(f, str) else f for f in fields]
        entry = [tuple(pair.split(b"=", 1)) for pair in pairs]
        for name, _ in entry:
            # What sd_journal_sendv(3) takes; it drops others without a word.
            assert name
            assert len(name) <= 64
            assert set(name) <= set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
            assert not name.startswith((b"_", *b"0123456789".split()))
        sent.append(entry)

    if request.param == "real":
        module = pytest.importorskip("systemd.journal", reason="systemd-python is absent")
        monkeypatch.setattr(module, "sendv", sendv)
        return module
    package, module = types.ModuleType("systemd"), types.ModuleType("systemd.journal")
    package.journal, module.send = module, fake_send(sendv)
    monkeypatch.setitem(sys.modules, "systemd", package)
    monkeypatch.setitem(sys.modules, "systemd.journal", module)
    return module
