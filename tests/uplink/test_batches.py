"""Batches: as many as the server takes, and down to the one event that it does not."""

import logging

import pytest

from kiosk.errors import LinkDownError, ReceiptError, UplinkPausedError
from kiosk.types import Receipt, ReceiptStatus
from kiosk.uplink.pace import HOLD_S, Pace
from kiosk.uplink.suspicion import Next, Suspicion
from kiosk.wire.batch import MAX_MESSAGES, join, split

OK = Receipt(ReceiptStatus.OK, 0.0)
REJECTED = Receipt(ReceiptStatus.REJECTED, 0.0)
DOWN = LinkDownError("no answer")
PAUSED = UplinkPausedError("refused: 401")


@pytest.fixture
def behind(bench):
    """A bench for a server that takes batches."""
    return lambda count, outcomes=(): bench(count, outcomes, plain=False)


def names(first, last):
    return [f"id-{number}" for number in range(first, last + 1)]


def sizes(one):
    return [len(request) for request in one.requests]


def settled(one):
    return [name for name, _ in one.queue.settled]


def test_what_is_behind_goes_in_batches_and_in_order(behind):
    """A hundred at once, oldest first, without a wait; the last alone in the single form."""
    one = behind(201)
    one.run()
    assert sizes(one) == [100, 100, 1]
    assert settled(one) == names(1, 201)
    assert [envelope.event_id for envelope, _ in one.told] == settled(one)
    assert one.waits == []


def test_one_that_waits_goes_alone(behind):
    """An event that nobody is behind goes in the form that every server knows."""
    one = behind(1)
    one.run()
    assert one.requests == [["id-1"]]


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_batches_gets_single_events_for_an_hour(behind, quick, status, caplog):
    """These statuses on the batch address say nothing about the kiosk: no alarm and no wait."""
    one = behind(5, [(status, OK)])
    one.run()
    assert sizes(one) == [5, 1, 1, 1, 1, 1]
    assert one.waits == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    quick.boot_ns += int(HOLD_S * 1e9)
    one.queue.waiting = [envelope for envelope, _ in one.told]
    one.stop.clear()
    one.run()
    assert sizes(one)[6:] == [5]


def test_a_portal_that_answers_404_does_not_cost_the_batches(behind):
    """Refused alone too: it was no word on batches, and they are tried again at once after it."""
    one = behind(50, [(404, OK), PAUSED])
    one.run()
    assert sizes(one) == [50, 1, 1, 11, 21, 17]
    assert one.waits == [300.0]


@pytest.mark.parametrize("status", [200, 400, 404, 413])
def test_retry_after_is_a_minimum_whatever_the_status(behind, status):
    """Also where the next request would follow at once."""
    one = behind(3, [(status, OK, 50.0)])
    one.run()
    assert one.clock.waits[0] == 50.0


def test_a_pause_is_as_long_as_the_server_asks(behind):
    """Retry-After beyond the probe's own pace is honoured."""
    one = behind(1, [UplinkPausedError("refused: 403", min_delay_s=4000.0)])
    one.run()
    assert one.waits == [4000.0]


def test_a_batch_that_is_too_large_is_halved_and_the_bound_remembered(behind):
    """413: half as many, at once, and for an hour no more than that."""

    def at_most_30(ids):
        return OK if len(ids) <= 30 else (413, OK)

    one = behind(100, [at_most_30] * 20)
    one.run()
    assert sizes(one) == [100, 50, 25, 25, 25, 25]
    assert settled(one) == names(1, 100)
    assert one.waits == []


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("bad", [1, 37, 100])
def test_a_refused_batch_is_bisected_to_the_one_event(behind, status, bad):
    """The server rejects one by receipt: it alone is set aside, all others arrive, no wait."""

    def strict(ids):
        if f"id-{bad}" not in ids:
            return OK
        return (status, OK) if len(ids) > 1 else (status, REJECTED)

    one = behind(100, [strict] * 60)
    one.run()
    assert [name for name, _ in one.queue.quarantined] == [f"id-{bad}"]
    assert settled(one) == [name for name in names(1, 100) if name != f"id-{bad}"]
    assert one.waits == []
    assert len(one.requests) < 30


def test_a_rejection_in_a_batch_sets_that_event_aside(behind, caplog):
    """Receipts are judged one by one: `rejected` for one, settled for the others, told aloud."""
    one = behind(3, [lambda _: {"id-1": OK, "id-2": REJECTED, "id-3": OK}])
    one.run()
    words = dict(one.queue.settled)
    assert words == {
        "id-1": ReceiptStatus.OK,
        "id-2": ReceiptStatus.REJECTED,
        "id-3": ReceiptStatus.OK,
    }
    (alarm,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (alarm.message, alarm.fields["event_id"]) == ("uplink.rejected", "id-2")


def test_one_receipt_that_is_not_believed_keeps_only_its_event(behind):
    """The others are settled; that one is sent again after a wait."""
    one = behind(3, [lambda _: {"id-1": OK, "id-2": ReceiptError("SIG2"), "id-3": OK}])
    one.run()
    assert one.requests == [["id-1", "id-2", "id-3"], ["id-2"]]
    assert settled(one) == ["id-1", "id-3", "id-2"]
    assert len(one.waits) == 1


def test_the_longest_delay_of_a_batch_counts(behind):
    """RTO of any receipt holds back the next request."""
    one = behind(2, [lambda _: {"id-1": Receipt(ReceiptStatus.OK, 7.0), "id-2": OK}])
    one.run()
    assert one.clock.waits == [7.0]


def test_a_refusal_of_the_kiosk_pauses_a_batch_and_is_probed_by_one_event(behind):
    """401 and the like: nothing moves, and the probe is small."""
    one = behind(50, [PAUSED, PAUSED])
    one.run()
    assert sizes(one)[:3] == [50, 1, 1]
    assert one.waits == [300.0, 300.0]
    assert settled(one) == names(1, 50)


def test_a_link_that_carries_no_large_request_gets_smaller_ones(behind):
    """Time-outs halve the batch until it goes through; each success makes it larger again."""

    def slow(ids):
        return OK if len(ids) <= 40 else DOWN

    one = behind(100, [slow] * 40)
    one.run()
    assert sizes(one)[:5] == [100, 50, 25, 35, 40]
    assert settled(one) == names(1, 100)


def test_a_link_that_is_down_leaves_the_pace_alone(behind):
    """Where nothing was sent nothing was learnt: the first request that goes is a full one."""
    one = behind(100)
    post = one.post
    failures = [DOWN] * 5

    def down(letter, **form):
        if failures:
            raise failures.pop()
        return post(letter, **form)

    one.post = down
    one.run()
    assert sizes(one) == [100]


def test_a_server_that_fails_at_every_batch_gets_single_events_after_a_while(behind):
    """403 for batches alone is found out: three times, then an hour of single events."""

    def only_single(ids):
        return OK if len(ids) == 1 else PAUSED

    one = behind(40, [only_single] * 100)
    one.run()
    assert settled(one) == names(1, 40)
    assert len(one.waits) == 4


BARE = [400, 422]


@pytest.mark.parametrize("status", BARE)
def test_without_signatures_a_bare_refusal_needs_a_witness(behind, bare, status):
    """Refused, the next one taken, refused again: only then is it this event. All others go on."""

    def plain(ids):
        return (status, bare) if "id-2" in ids else OK

    one = behind(4, [plain] * 30)
    one.run()
    ((name, reason),) = one.queue.quarantined
    assert name == "id-2"
    assert "took another event in between" in reason
    assert sorted(settled(one)) == ["id-1", "id-3", "id-4"]
    assert one.waits == []


@pytest.mark.parametrize("careless", [True, False])
def test_a_portal_that_answers_400_to_all_sets_nothing_aside(behind, bare, monkeypatch, careless):
    """The witness is refused too: the queue pauses, whole. Without a witness it runs empty."""
    if careless:
        monkeypatch.setattr(Suspicion, "refused", lambda *_, **__: Next.SET_ASIDE)
        one = behind(30, [(400, bare)] * 40)
        one.run()
        assert len(one.queue.quarantined) == 30
        return
    one = behind(30, [(400, bare)] * 40)
    one.clock.on_wait = lambda _: one.stop.set() if len(one.clock.waits) == 3 else None
    one.sender.run(one.stop)
    assert one.queue.quarantined == []
    assert len(one.queue.waiting) == 30
    assert one.clock.waits == [300.0] * 3


def test_a_portal_that_comes_and_goes_sets_nothing_aside(behind, bare):
    """The witness is taken, and so is the suspect: a proxy had a moment, no more."""
    one = behind(2, [(400, OK), (400, bare), OK, OK])
    one.run()
    assert one.queue.quarantined == []
    assert one.requests == [["id-1", "id-2"], ["id-1"], ["id-2"], ["id-1"]]


@pytest.mark.parametrize("between", [DOWN, PAUSED, ReceiptError("a page")])
def test_a_failure_in_between_ends_the_suspicion(behind, bare, between):
    """The three answers must follow each other: else they may come from three places."""
    one = behind(2, [(400, OK), (400, bare), between, (400, bare), OK, OK])
    one.run()
    assert one.queue.quarantined == []


def test_the_last_event_alone_is_never_set_aside_for_a_status(behind, bare):
    """Nobody can witness: it waits, and is found out when the next punch comes."""
    one = behind(1, [(400, bare)] * 3)
    one.run()
    assert one.queue.quarantined == []
    assert one.waits == [300.0] * 3


def test_a_suspect_is_let_go_when_no_witness_is_left(behind, bare):
    """The next one was set aside while it was leased: nothing is sent, nothing concluded."""
    one = behind(2, [(400, OK), (400, bare)])
    lease = one.queue.lease

    def gone(limit, *, beyond=None):
        if beyond is None:
            return lease(limit)
        one.queue.waiting = one.queue.waiting[:1]
        return []

    one.queue.lease = gone
    one.run()
    assert one.queue.quarantined == []
    assert settled(one) == ["id-1"]


def test_the_pace_never_leaves_its_bounds(quick):
    """1 to 100 whatever happens."""
    pace = Pace(quick, single=False)
    for _ in range(20):
        pace.went(100)
    assert pace.limit() == MAX_MESSAGES
    for _ in range(20):
        pace.failed(pace.limit())
    assert pace.limit() == 1
    single = Pace(quick, single=True)
    for _ in range(20):
        single.went(1)
    assert single.limit() == 1


def test_an_array_is_taken_apart_byte_for_byte():
    """Elements keep their bytes, whatever space stands between them."""
    bodies = [b'{"a": "],["}', b'{"b":[1,{"c":"\xc3\xa9"}]}', b"[]", b'"\\ud800"']
    assert split(join(bodies), ReceiptError) == bodies
    assert split(b" [\n" + b" ,\t".join(bodies) + b" ]\r\n", ReceiptError) == bodies
    assert split(b"[]", ReceiptError) == []


@pytest.mark.parametrize(
    "body", [b"", b"[", b"]", b"[1", b"[1,]", b"[,1]", b"[1 2]", b"[1]]", b"{}", b"[1],", b"\xff"]
)
def test_what_is_no_array_is_an_error_of_the_readers_kind(body):
    """The error is the one that was asked for."""
    with pytest.raises(ReceiptError, match="array"):
        split(body, ReceiptError)
