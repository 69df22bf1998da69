"""The sender's loop against a queue and a link that do as they are told; waits cost nothing."""

import logging

import pytest

from kiosk.errors import (
    LinkDownError,
    OutboxBrokenError,
    OutboxFullError,
    ReceiptError,
    UplinkPausedError,
)
from kiosk.types import Receipt, ReceiptStatus

OK = Receipt(ReceiptStatus.OK, 0.0)
DOWN = LinkDownError("no answer")
PAUSED = UplinkPausedError("refused: 401")


def test_oldest_first_and_no_waiting_while_it_works(bench):
    """With a good link events follow each other at once, in order."""
    one = bench(3)
    one.run()
    assert one.sent == ["id-1", "id-2", "id-3"]
    assert one.waits == []
    assert [envelope.event_id for envelope, _ in one.told] == one.sent


@pytest.mark.parametrize("error", [DOWN, ReceiptError("a page"), PAUSED])
def test_an_event_stays_until_its_receipt(bench, error):
    """No failure settles, drops or overtakes: the same event is sent until it is answered."""
    one = bench(2, [error] * 50)
    one.run()
    assert one.sent == ["id-1"] * 51 + ["id-2"]
    assert [name for name, _ in one.queue.settled] == ["id-1", "id-2"]


def test_waits_grow_with_full_jitter_and_start_anew(bench):
    """Each wait lies under base * 2**failures and the cap; a success resets the count."""
    one = bench(2, [*[DOWN] * 12, OK, DOWN])
    one.run()
    first, second = one.waits[:12], one.waits[12:]
    assert all(0 <= wait <= min(300.0, 2.0**n) for n, wait in enumerate(first))
    assert max(first) > 60.0
    assert len(second) == 1
    assert second[0] <= 1.0


def test_the_servers_delay_is_a_minimum(bench):
    """Retry-After is honoured beyond our own cap."""
    one = bench(1, [LinkDownError("busy", min_delay_s=4000.0)])
    one.run()
    assert one.waits == [4000.0]


def test_a_receipts_delay_holds_back_the_next(bench):
    """RTO in a receipt: the event is settled at once, the next one waits."""
    one = bench(2, [Receipt(ReceiptStatus.OK, 30.0)])
    one.run()
    assert one.waits == [30.0]
    assert len(one.queue.settled) == 2


def test_a_server_that_refuses_the_kiosk_is_probed_slowly(bench, caplog):
    """Alarmed once, probed at the cap, and everything is sent once it is mended."""
    one = bench(2, [PAUSED] * 5)
    with caplog.at_level(logging.INFO):
        one.run()
    assert one.waits == [300.0] * 5
    assert len(one.queue.settled) == 2
    alarms = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.message for record in alarms] == ["uplink.failing"]


def test_a_refused_event_goes_to_quarantine_and_the_next_goes_on(bench):
    """One poisonous event never blocks the queue."""
    one = bench(3, [(422, Receipt(ReceiptStatus.REJECTED, 0.0))])
    one.run()
    assert one.queue.quarantined == [("id-1", "refused by the server with status 422")]
    assert next((e.event_id, r.status) for e, r in one.told) == ("id-1", ReceiptStatus.REJECTED)
    assert [name for name, _ in one.queue.settled] == ["id-2", "id-3"]
    assert one.waits == []


def test_a_refusal_that_is_not_believed_pauses(bench):
    """A status alone moves no event: the queue waits at the cap and nothing is set aside."""
    one = bench(2, [(400, PAUSED)] * 3)
    one.run()
    assert one.queue.quarantined == []
    assert one.waits == [300.0] * 3
    assert [name for name, _ in one.queue.settled] == ["id-1", "id-2"]


def test_a_link_that_is_down_leases_nothing(bench):
    """Freezing is for the moment of sending: the post alone decides when to lease."""
    one = bench(1)
    leased = []
    lease, post = one.queue.lease, one.post
    one.queue.lease = lambda *a, **k: leased.append(1) or lease(*a, **k)
    failures = [DOWN, DOWN]

    def down(letter, **form):
        if failures:
            raise failures.pop()
        return post(letter, **form)

    one.post = down
    one.run()
    assert leased == [1]
    assert len(one.queue.settled) == 1


def test_what_was_set_aside_while_connecting_is_no_failure(bench):
    """No letter after all: the next look finds the queue empty, and nobody waits or alarms."""
    one = bench(1)
    one.queue.lease = lambda *_, **__: one.queue.waiting.clear() or ()
    one.run()
    assert one.sent == []
    assert one.waits == []


def test_a_rejection_is_settled_as_such_and_alarmed(bench, caplog):
    """The queue decides what `rejected` means on disk; the journal says it aloud."""
    one = bench(2, [Receipt(ReceiptStatus.REJECTED, 0.0)])
    one.run()
    assert one.queue.settled[0] == ("id-1", ReceiptStatus.REJECTED)
    (alarm,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (alarm.message, alarm.fields["event_id"]) == ("uplink.rejected", "id-1")


def test_online_follows_the_last_attempt(bench, quick):
    """Unknown before the first answer, then whether the server's word came."""
    one = bench(2, [DOWN, OK, PAUSED])
    seen = [one.sender.online]
    quick.on_wait = lambda _: seen.append(one.sender.online)
    one.run()
    assert seen == [None, False, False, True]


def test_the_time_of_the_last_receipt_is_kept(bench, quick):
    """Status can say how long ago the server answered."""
    one = bench(1, [DOWN])
    assert one.sender.last_receipt is None
    one.run()
    assert one.sender.last_receipt.utc_ms == quick.utc_ms - 1000


def test_a_failure_is_told_once_and_counted(bench, caplog):
    """An outage of a week is three lines in the journal, not thousands."""
    other = LinkDownError("status 503")
    one = bench(1, [*[DOWN] * 40, *[other] * 3])
    with caplog.at_level(logging.INFO):
        one.run()
    told = [(record.message, record.levelno, record.fields) for record in caplog.records]
    assert [(message, level) for message, level, _ in told] == [
        ("uplink.failing", logging.WARNING),
        ("uplink.failing", logging.WARNING),
        ("uplink.recovered", logging.INFO),
    ]
    assert told[0][2] == {"reason": "no answer", "failures": 1, "repeats_before": 0}
    assert told[1][2] == {"reason": "status 503", "failures": 41, "repeats_before": 39}
    assert told[2][2]["failures"] == 43
    assert told[2][2]["lasted_s"] == pytest.approx(sum(one.waits), abs=0.1)


def test_a_new_punch_does_not_shorten_the_wait(bench, quick):
    """The wait after a failure is on the stop only: a busy kiosk must not hammer."""
    waited_on = []
    wait = quick.wait

    def noted(event, seconds):
        waited_on.append(event)
        return wait(event, seconds)

    quick.wait = noted
    one = bench(1, [DOWN])
    one.queue.arrived.set()
    one.run()
    assert waited_on == [one.stop, one.queue.arrived]


def test_what_arrives_between_look_and_wait_wakes_it(bench):
    """`arrived` is cleared before the queue is looked at, never after."""
    one = bench(0)
    waits = one.queue.waits
    flags = []

    def late(count=1):
        found = waits(count)
        one.queue.arrived.set()
        return found

    one.queue.waits = late
    one.clock.on_wait = lambda _: flags.append(one.queue.arrived.is_set())
    one.run()
    assert flags == [True]


def test_the_idle_wait_is_short(bench):
    """A stop that sets no `arrived` is seen within a second."""
    one = bench(0)
    one.run()
    assert one.clock.waits == [1.0]


def test_a_stop_during_a_post_leaves_the_event(bench, caplog):
    """Cut off by the stop: nothing is settled, nothing is called a failure of the link."""
    one = bench(1)

    def cut(_, **__):
        one.stop.set()
        raise LinkDownError("the kiosk is stopping")

    one.post = cut
    one.sender.run(one.stop)
    assert len(one.queue.waiting) == 1
    assert caplog.records == []
    assert one.sender.online is None


def test_a_stop_during_a_wait_ends_it(bench, quick):
    """No further attempt after the stop."""
    one = bench(1, [DOWN])
    quick.on_wait = lambda _: one.stop.set()
    one.sender.run(one.stop)
    assert one.sent == ["id-1"]


@pytest.mark.parametrize("step", ["lease", "settle"])
def test_a_full_disk_does_not_end_the_sender(bench, step):
    """What cannot be leased or settled now is tried again; the receipt then says duplicate."""
    one = bench(2)
    one.queue.failures[step] = [OutboxFullError("no space")] * 3
    one.run()
    assert [name for name, _ in one.queue.settled] == ["id-1", "id-2"]
    assert len(one.waits) == 3


def test_a_broken_disk_ends_the_sender(bench):
    """What is on disk is uncertain: the process must end, so the thread does."""
    one = bench(1)
    one.queue.failures["settle"] = [OutboxBrokenError("I/O error")]
    with pytest.raises(OutboxBrokenError):
        one.run()
    assert one.told == []
