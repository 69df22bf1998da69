"""The outbox against a plain model: any order of calls and restarts, the same answers."""

import random
import tempfile
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kiosk.errors import OutboxError
from kiosk.outbox.store import Outbox
from kiosk.types import Direction, Receipt, ReceiptStatus

PEOPLE = st.sampled_from(["E-1", "E-2", "E-3", None])
KINDS = st.sampled_from([Direction.IN, Direction.OUT, None])
ENDS = st.sampled_from(list(ReceiptStatus))


class OutboxMachine(RuleBasedStateMachine):
    """The model: a deque of what waits, a body for what was leased, a few counts."""

    tools: SimpleNamespace

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.outbox = None
        self.open()
        self.epoch = self.outbox.status().epoch
        self.waiting = deque()
        self.ended, self.seen, self.bodies, self.attempts, self.last = [], {}, {}, {}, {}
        self.settled = self.quarantined = 0
        self.aside = set()

    def open(self):
        tools = self.tools
        self.outbox = Outbox(
            Path(self.folder.name) / "outbox.db",
            vault=tools.vault,
            device_id=tools.device,
            signer=tools.signer,
            clock=tools.clock,
        )
        self.outbox.start()

    @rule(employee=PEOPLE, kind=KINDS, jump_ms=st.integers(-(10**8), 10**8))
    def put(self, employee, kind, jump_ms):
        """A punch, at whatever the wall clock says."""
        self.tools.clock.utc_ms += jump_ms
        punch = self.tools.punches.make(employee, kind)
        assert self.outbox.put(punch) == f"{self.epoch}:{len(self.seen) + 1}"
        self.seen[punch.event_id] = punch.seen
        self.waiting.append(punch.event_id)
        if employee is not None:
            self.last[employee, kind] = punch.seen

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def put_again(self, data):
        """An id that was recorded once is refused for ever."""
        known = data.draw(st.sampled_from(sorted(self.seen)))
        with pytest.raises(OutboxError):
            self.outbox.put(self.tools.punches.make(event_id=known))

    @rule(limit=st.integers(1, 3))
    def lease(self, limit):
        """The oldest in order, each with the body that it had before."""
        leases = self.outbox.lease(limit)
        assert [lease.event_id for lease in leases] == list(self.waiting)[:limit]
        for lease in leases:
            name = lease.event_id
            assert lease.body == self.bodies.setdefault(name, lease.body)
            self.attempts[name] = self.attempts.get(name, 0) + 1
            assert lease.attempts == self.attempts[name]

    @precondition(lambda self: self.waiting and self.waiting[0] in self.bodies)
    @rule(word=ENDS)
    def settle(self, word):
        """A receipt for the event in flight."""
        name = self.waiting.popleft()
        self.outbox.settle(name, Receipt(word, 0.0))
        self.ended.append(name)
        if word is ReceiptStatus.REJECTED:
            self.aside.add(name)
            self.quarantined += 1
        else:
            self.settled += 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def quarantine(self, data):
        """Any waiting event may be set aside."""
        name = data.draw(st.sampled_from(list(self.waiting)))
        self.waiting.remove(name)
        self.outbox.quarantine(name, "test")
        self.ended.append(name)
        self.aside.add(name)
        self.quarantined += 1

    @precondition(lambda self: self.aside)
    @rule(data=st.data())
    def retry(self, data):
        """What was set aside goes back to its old place, with its old body."""
        name = data.draw(st.sampled_from(sorted(self.aside)))
        assert self.outbox.retry([name]) == [name]
        self.aside.remove(name)
        self.ended.remove(name)
        order = {known: place for place, known in enumerate(self.seen)}
        self.waiting = deque(sorted([*self.waiting, name], key=order.get))
        self.quarantined -= 1

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def end_again(self, data):
        """What has ended cannot end again."""
        name = data.draw(st.sampled_from(self.ended))
        with pytest.raises(OutboxError):
            self.outbox.settle(name, Receipt(ReceiptStatus.OK, 0.0))

    @rule()
    def restart(self):
        """Close and open: the model does not notice."""
        self.outbox.close(60.0)
        self.open()

    @invariant()
    def agrees(self):
        """Counts, oldest, and the last punch of everybody."""
        status = self.outbox.status()
        counts = (status.pending, status.settled, status.quarantined, status.highest)
        assert counts == (len(self.waiting), self.settled, self.quarantined, len(self.seen))
        assert status.epoch == self.epoch
        assert status.oldest == (self.seen[self.waiting[0]] if self.waiting else None)
        for (employee, kind), seen in self.last.items():
            assert self.outbox.last_recorded(employee, kind) == seen

    def teardown(self):
        self.outbox.close(60.0)
        self.folder.cleanup()


MODEST = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def tools(vault, signer, clock, punches, device):
    punches.rng = random.Random(11)
    return SimpleNamespace(vault=vault, signer=signer, clock=clock, punches=punches, device=device)


def machine(tools, **overrides):
    return type("Machine", (OutboxMachine,), {"tools": tools, **overrides})


def test_the_outbox_agrees_with_the_model(tools):
    """No order of put, lease, settle, quarantine and restart tells the two apart."""
    run_state_machine_as_test(machine(tools), settings=MODEST)


def test_the_model_notices_a_wrong_outbox(tools, monkeypatch):
    """The same machine finds an outbox that freezes a body anew at every lease."""
    lease = Outbox.lease

    def thawing(self, limit):
        return [
            replace(envelope, body=b"anew") if envelope.attempts > 1 else envelope
            for envelope in lease(self, limit)
        ]

    monkeypatch.setattr(Outbox, "lease", thawing)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine(tools), settings=MODEST)
