"""The end of the daemon has two seconds, whatever hangs: counted on a clock of the test's own."""

import logging
import math
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import kiosk.app
import kiosk.correspondence
from kiosk.app import Kiosk
from kiosk.clock import NS_PER_S, SystemClock
from kiosk.config import Feedback, Paths, Server, Settings
from kiosk.ending import Ending, Worker
from kiosk.errors import CameraError, OutboxBrokenError
from kiosk.state import open_state
from kiosk.types import Frame

HANG_S = 10
LIMIT_S = 2.0
# So long a wait of the main thread really takes; the rest of it only passes on the clock.
_REAL_S = 0.05


class CountingClock(SystemClock):
    """Once `counting`, time is what the thread that made it was made to wait, and nothing else."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.main = threading.current_thread()
        self.counting = False
        self.waited_s = 0.0
        wait, join = threading.Condition.wait, threading.Thread.join

        def counted_wait(condition, timeout=None):
            if not self._counts():
                return wait(condition, timeout)
            if timeout is None:
                # A thread's start is such a wait; any other one hangs, and costs without end.
                timeout, real_s = math.inf, HANG_S
            else:
                real_s = min(timeout, _REAL_S)
            came = wait(condition, real_s)
            self.waited_s += 0.0 if came else timeout
            return came

        def counted_join(thread, timeout=None):
            if not self._counts():
                return join(thread, timeout)
            join(thread, HANG_S if timeout is None else min(timeout, _REAL_S))
            self.waited_s += (timeout or math.inf) if thread.is_alive() else 0.0
            return None

        def counted_sleep(seconds):
            self.waited_s += seconds if self._counts() else 0.0

        monkeypatch.setattr(threading.Condition, "wait", counted_wait)
        monkeypatch.setattr(threading.Thread, "join", counted_join)
        monkeypatch.setattr(time, "sleep", counted_sleep)

    def _counts(self):
        return self.counting and threading.current_thread() is self.main

    def boottime_ns(self):
        if not self.counting:
            return super().boottime_ns()
        return int(self.waited_s * NS_PER_S)


class Hung:
    """Calls that come back when the test is over; `ready` is called at each, with all names."""

    def __init__(self):
        self.over = threading.Event()
        self.called = set()
        self.ready = lambda called: None

    def named(self, name, then):
        def hang(*arguments):
            self.called.add(name)
            self.ready(self.called)
            self.over.wait(HANG_S)
            return then(*arguments)

        return hang


@pytest.fixture
def hung(clock):
    before = set(threading.enumerate())
    made = Hung()
    yield made
    clock.counting = False
    made.over.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(HANG_S)


@pytest.fixture
def clock(monkeypatch):
    made = CountingClock(monkeypatch)
    yield made
    made.counting = False


@pytest.fixture
def settings(tmp_path):
    paths = Paths(state_dir=str(tmp_path / "state"), runtime_dir=str(tmp_path / "run"))
    return Settings(
        server=Server("http://127.0.0.1:9"), paths=paths, feedback=Feedback(page_port=0)
    )


@pytest.fixture
def stage(monkeypatch, hung, clock):
    """A function that puts fakes in the place of the rooms; what is named hangs.

    Returns the Event that ends the kiosk: it is set once all threads that are to hang do.
    """

    def build(*hanging):
        stop = threading.Event()
        busy = {"read", "vision", "Sender.run"} & set(hanging)

        def ready(called):
            if busy <= called and not clock.counting:
                clock.counting = True
                stop.set()

        hung.ready = ready

        def wherever(name, otherwise):
            return hung.named(name, otherwise) if name in hanging else otherwise

        frames = [Frame(np.zeros((4, 4, 3), np.uint8), clock.now(), "fake")]

        def read(timeout_s, wanted):
            if frames:
                return frames.pop()
            ready(hung.called)
            wherever("read", lambda: stop.wait(HANG_S))()
            raise CameraError("the test is over")

        camera = SimpleNamespace(
            name="fake", open=lambda: None, read=read, close=wherever("camera", lambda: True)
        )
        eyes = SimpleNamespace(
            space="space",
            dim=192,
            also_threshold=None,
            also_space=None,
            model_id="model",
            threshold=0.5,
            thresholds=lambda main: {"space": main},
            status=dict,
            sightings=wherever("vision", lambda frame: []),
        )
        monkeypatch.setattr(kiosk.app, "open_camera", lambda *_: camera)
        monkeypatch.setattr(kiosk.app, "open_pipeline", lambda *_, **__: eyes)
        for room, method in (
            ("Outbox", "close"),
            ("Page", "close"),
            ("ControlServer", "close"),
            ("Poster", "abort"),
            ("Poster", "close"),
            ("Sender", "run"),
        ):
            kind = getattr(kiosk.app, room, None) or getattr(kiosk.correspondence, room)
            name = f"{room}.{method}"
            monkeypatch.setattr(kind, method, wherever(name, getattr(kind, method)))
        return stop

    return build


EVERYTHING = (
    "camera",
    "read",
    "vision",
    "Page.close",
    "ControlServer.close",
    "Poster.abort",
    "Poster.close",
    "Sender.run",
    "Outbox.close",
)


def end_of(stop, settings, clock):
    """Run a kiosk until it has ended; its status and the seconds that its end took."""
    status = Kiosk(settings, clock=clock).run(stop)
    assert clock.counting
    return status, clock.waited_s


@pytest.mark.parametrize("hanging", [EVERYTHING, *[(one,) for one in EVERYTHING]], ids=str)
def test_the_whole_end_has_two_seconds(stage, settings, clock, hanging):
    """Each room alone, and all of them together: the one deadline begins before the first call."""
    _, took_s = end_of(stage(*hanging), settings, clock)
    assert took_s <= LIMIT_S


def test_what_hangs_is_named(stage, settings, clock, caplog):
    """The journal says which threads were left behind, and that the kiosk has stopped."""
    caplog.set_level(logging.INFO, "kiosk")
    end_of(stage(*EVERYTHING), settings, clock)
    stuck = {r.fields["thread"] for r in caplog.records if r.message == "thread.stuck"}
    assert {"capture", "vision", "uplink", "end camera", "end page", "end outbox"} <= stuck
    assert caplog.records[-1].message == "kiosk.stopped"


def test_nothing_that_hangs_costs_nothing(stage, settings, clock, caplog):
    """An end in which everybody comes takes no deadline, and lets go of the state."""
    status, took_s = end_of(stage(), settings, clock)
    assert (status, took_s) == (0, 0.0)
    assert not [r for r in caplog.records if r.message == "thread.stuck"]
    clock.counting = False
    open_state(settings).close()


def test_the_queue_is_closed_though_all_else_hangs(stage, settings, clock, caplog):
    """The last part of the time belongs to it: what was committed lies in a closed file."""
    status, _ = end_of(
        stage(*(set(EVERYTHING) - {"Outbox.close", "Poster.close"})), settings, clock
    )
    assert status == 0
    clock.counting = False
    open_state(settings).close()


def test_a_queue_that_cannot_be_closed_is_a_failure(stage, settings, clock, monkeypatch):
    """Status 1, so that the supervisor starts anew and reads the file again."""
    stop = stage()

    def broken(*_):
        raise OutboxBrokenError("the disk is gone")

    close = kiosk.app.Outbox.close
    monkeypatch.setattr(kiosk.app.Outbox, "close", lambda *a: (close(*a), broken())[0])
    status, _ = end_of(stop, settings, clock)
    assert status == 1


def test_a_fault_in_an_ending_thread_is_told(clock, caplog):
    """It is in the journal with its trace, and nobody waits for the thread in vain."""

    def fault():
        raise RuntimeError("unforeseen")

    worker = Worker("faulty", fault)
    Ending(clock, HANG_S).wait([worker])
    assert str(worker.error) == "unforeseen"
    (record,) = [r for r in caplog.records if r.message == "thread.failed"]
    assert record.exc_info[0] is RuntimeError


def test_a_machine_that_stands_still_is_no_thread_that_hangs(caplog):
    """Paused for a minute in the middle of an end: who would have come in time still may."""
    slow, hung = (SimpleNamespace(name=name, ended=None) for name in ("slow", "hung"))

    class Paused:
        ns, looks = 0, 0

        def boottime_ns(self):
            return self.ns

        def wait(self, event, timeout_s):
            self.looks += 1
            self.ns += 60 * NS_PER_S if self.looks == 1 else int(timeout_s * NS_PER_S)
            return self.looks == 3

    clock = Paused()
    ending = Ending(clock, LIMIT_S)
    ending.wait([slow])
    assert [r for r in caplog.records if r.message == "thread.stuck"] == []
    before_s = clock.ns / NS_PER_S
    ending.wait([hung])
    assert [r.fields["thread"] for r in caplog.records] == ["hung"]
    assert clock.ns / NS_PER_S - before_s <= LIMIT_S
