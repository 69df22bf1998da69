"""Work per call does not grow with years of settled events."""

import pytest

from kiosk.outbox.database import Database
from kiosk.outbox.inspection import Inspection
from kiosk.outbox.schema import MIGRATIONS
from kiosk.types import Direction, Receipt, ReceiptStatus

MANY = 20_000
# Deeper trees cost a few instructions more; a scan of the settled would cost 20,000 times more.
SLACK = 60

SETTLED_ROWS = """
    INSERT INTO event (event_id, epoch, number, utc_ms, boottime_ns, boot, trust, state,
                       attempts, body_sha256, answer)
    WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT randomblob(16), 1, i, 1790000000000 + i, i, 1, 'synced', 'settled', 1,
           randomblob(32), 'ok' FROM n
"""


@pytest.fixture
def instructions(ask):
    """Count the instructions of SQLite's virtual machine that a call takes."""

    def count(outbox, call):
        steps = 0

        def step():
            nonlocal steps
            steps += 1

        connection = outbox._queue.database._connection
        outbox._owner.ask(lambda: connection.set_progress_handler(step, 1))
        try:
            call()
        finally:
            outbox._owner.ask(lambda: connection.set_progress_handler(None, 0))
        return steps

    return count


def test_no_call_looks_at_settled_rows(outbox, punches, ask, instructions):
    """put, last_recorded, lease, status and settle cost the same before and after."""

    def costs():
        punch = punches.make("E-1")
        calls = {
            "put": lambda: outbox.put(punch),
            "last": lambda: outbox.last_recorded("E-1", Direction.IN),
            "status": outbox.status,
            "lease": lambda: outbox.lease(1),
            "lease again": lambda: outbox.lease(1),
            "lease a batch": lambda: outbox.lease(100),
            "list": lambda: outbox.waiting(100),
            "show": lambda: outbox.show(punch.event_id),
            "export": lambda: outbox.export(100, beyond=0),
            "settle": lambda: outbox.settle(punch.event_id, Receipt(ReceiptStatus.OK, 0.0)),
        }
        return {name: instructions(outbox, call) for name, call in calls.items()}

    costs()
    few = costs()
    ask(outbox, SETTLED_ROWS.replace("SELECT 2 ", "SELECT 3 "), MANY)
    ask(outbox, "UPDATE epoch SET highest = ?, settled = ?", MANY, MANY)
    many = costs()
    assert instructions(outbox, lambda: ask(outbox, "SELECT sum(utc_ms) FROM event")) > MANY
    assert {name: many[name] - few[name] for name in few if many[name] > few[name] + SLACK} == {}
    assert outbox.status().settled == MANY + 1


def test_quarantine_does_not_slow_the_lease(outbox, punches, instructions):
    """A server that refuses hundreds leaves no heap that every lease must step over."""

    def cost():
        outbox.put(punches.make())
        steps = instructions(outbox, lambda: outbox.lease(1))
        outbox.quarantine(outbox.lease(1)[0].event_id, "status 400")
        return steps

    first = cost()
    for _ in range(150):
        cost()
    assert cost() <= first + SLACK


def test_a_start_does_not_look_at_settled_rows(reopen, punches, ask):
    """Clean or not, a start reads what waits; years of settled events are read afterwards."""
    outbox = reopen()
    outbox.put(punches.make())
    ask(outbox, SETTLED_ROWS, MANY)
    ask(outbox, "UPDATE epoch SET highest = ?, settled = ?", MANY, MANY - 1)
    outbox.close(10.0)
    for clean in (True, False):
        database = Database(outbox._path, left_at=len(MIGRATIONS))
        steps = [0]

        def step(steps=steps):
            steps[0] += 1

        database._connection.set_progress_handler(step, 1)
        inspection = Inspection(database, outbox._bodies, punches.clock)
        inspection.begin(clean=clean)
        inspection.read_waiting()
        assert steps[0] < MANY / 10
        while inspection.go_on():
            pass
        assert steps[0] > MANY
        database.close()


def test_a_lease_costs_the_same_however_much_waits(outbox, punches, instructions):
    """After a month without a network the first batch is as cheap as after an hour."""

    def cost():
        steps = {
            "waits": instructions(outbox, lambda: outbox.waits(2)),
            "lease": instructions(outbox, lambda: outbox.lease(100)),
            "export": instructions(outbox, lambda: outbox.export(100, beyond=0)),
        }
        assert len(outbox.lease(200)) >= 120
        return steps

    def put(count):
        for _ in range(count):
            outbox.put(punches.make())

    put(120)
    cost()
    few = cost()
    put(1000)
    many = cost()
    assert {name: many[name] - few[name] for name in few if many[name] > few[name] + SLACK} == {}
