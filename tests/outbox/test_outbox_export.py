"""Looking at the queue, and the way out of it: nothing is changed but that bodies are frozen."""

import json
from dataclasses import replace

import pytest

from kiosk.errors import UserError
from kiosk.outbox.operations import operations
from kiosk.types import Receipt, ReceiptStatus, Trust
from kiosk.wire import message
from kiosk.wire.signing import Signer

OK = Receipt(ReceiptStatus.OK, 0.0)
REJECTED = Receipt(ReceiptStatus.REJECTED, 0.0)


def everything(outbox):
    """All slices of an export: messages as read, and the unreadable."""
    known, messages, unreadable, beyond = operations(outbox), [], [], 0
    while beyond is not None:
        part = known["outbox.export"]({"beyond": beyond})
        messages += [json.loads(text) for text in part["messages"]]
        unreadable += part["unreadable"]
        beyond = part["beyond"]
    return messages, unreadable


def put(outbox, punches, count):
    made = [punches.make() for _ in range(count)]
    for punch in made:
        outbox.put(punch)
    return [punch.event_id for punch in made]


def test_an_export_holds_what_waits_and_what_was_set_aside_in_order(outbox, punches):
    """Settled events are the server's; all others are there once, oldest first, over slices."""
    ids = put(outbox, punches, 230)
    leased = outbox.lease(3)
    outbox.settle_all([(leased[0].event_id, OK), (leased[1].event_id, REJECTED)])
    outbox.quarantine(ids[150], "refused with status 400")
    messages, unreadable = everything(outbox)
    assert [sent["A1"] for sent in messages] == ids[1:]
    assert unreadable == []
    status = outbox.status()
    assert (status.pending, status.quarantined, status.settled) == (227, 2, 1)


def test_what_was_exported_is_what_is_sent_later(reopen, punches, vault, clock):
    """Byte for byte, also after a restart, a new key and a corrected clock: a duplicate."""
    clock.trust = Trust.UNSYNCED
    outbox = reopen()
    put(outbox, punches, 2)
    (first, second) = (one.body for one in outbox.export(10, beyond=0))
    clock.trust = Trust.SYNCED
    clock.utc_ms += 86_400_000
    again = reopen(signer=Signer("hall-9", vault.sign_key))
    leased = again.lease(10)
    assert [envelope.body for envelope in leased] == [first, second]
    assert [envelope.attempts for envelope in leased] == [1, 1]
    assert message.parse(first).key_id == "hall-1"


def test_an_export_after_an_attempt_is_the_same_bytes(outbox, punches):
    """What may have reached the server already is exported as it was sent."""
    put(outbox, punches, 1)
    body = outbox.lease(1)[0].body
    (exported,) = outbox.export(10, beyond=0)
    assert exported.body == body


def test_an_export_dates_what_it_freezes(outbox, punches, clock, ask):
    """A clock that is set right in the same boot still counts until that moment."""
    clock.trust = Trust.UNSYNCED
    put(outbox, punches, 1)
    clock.trust = Trust.SYNCED
    clock.utc_ms += 3_600_000
    (exported,) = outbox.export(10, beyond=0)
    assert message.parse(exported.body).clock == "corrected"
    assert ask(outbox, "SELECT trust FROM event") == [("corrected",)]


@pytest.mark.parametrize("place", ["waiting", "quarantine"])
def test_what_does_not_authenticate_is_left_out_by_name(outbox, punches, ask, place):
    """A damaged row neither goes out nor keeps the others in."""
    ids = put(outbox, punches, 3)
    if place == "quarantine":
        outbox.lease(2)
        outbox.quarantine(ids[1], "refused")
    column = "draft" if place == "waiting" else "body"
    ask(outbox, f"UPDATE {place} SET {column} = x'00' WHERE position = 2")
    messages, (left_out,) = everything(outbox)
    assert [sent["A1"] for sent in messages] == [ids[0], ids[2]]
    assert left_out["event_id"] == ids[1]
    assert left_out["reason"]


def test_a_body_that_was_set_aside_and_exported_can_be_sent_again(outbox, punches):
    """`retry` after an export sends those very bytes."""
    (name,) = put(outbox, punches, 1)
    outbox.quarantine(name, "set aside before it was ever sent")
    (exported,) = outbox.export(10, beyond=0)
    outbox.retry([name])
    assert outbox.lease(1)[0].body == exported.body


def test_the_list_shows_the_oldest_and_counts_all(outbox, punches, ask):
    """As many as asked for, and nothing is frozen or counted by looking."""
    ids = put(outbox, punches, 5)
    shown = operations(outbox)["outbox.list"]({"limit": 2})
    assert shown["pending"] == 5
    assert [event["event_id"] for event in shown["events"]] == ids[:2]
    assert shown["events"][0]["attempts"] == 0
    assert ask(outbox, "SELECT count(*) FROM waiting WHERE body IS NOT NULL") == [(0,)]


@pytest.mark.parametrize("limit", [0, 1001, -1, "10", None, 2.5])
def test_a_wrong_limit_is_refused(outbox, limit):
    """One reply has a bound."""
    with pytest.raises(UserError, match="limit"):
        operations(outbox)["outbox.list"]({"limit": limit})


def test_an_event_is_shown_at_every_stage_without_the_face(outbox, punches):
    """Draft, body, set aside, settled: state and message, and never the embedding."""
    first, second = put(outbox, punches, 2)

    def show(event_id):
        shown = operations(outbox)["outbox.show"]({"event": event_id})
        assert "F2_DATA" not in json.dumps(shown)
        return shown

    draft = show(first)
    assert (draft["state"], draft["message"]["E1"], draft["body_sha256"]) == ("queued", "E-1", None)
    outbox.lease(2)
    leased = show(first)
    assert (leased["attempts"], leased["message"]["D1"][:8]) == (1, "0b0e7a52")
    outbox.settle_all([(first, OK), (second, REJECTED)])
    settled, aside = show(first), show(second)
    assert (settled["state"], settled["answer"], settled["message"]) == ("settled", "ok", None)
    assert settled["body_sha256"] == leased["body_sha256"]
    assert (aside["state"], aside["reason"]) == ("quarantined", "rejected by the server")
    assert aside["message"]["A1"] == second


def test_a_damaged_event_is_shown_with_what_is_wrong(outbox, punches, ask):
    """Its row is told, and why its content cannot be read."""
    (name,) = put(outbox, punches, 1)
    ask(outbox, "UPDATE waiting SET draft = x'00'")
    shown = operations(outbox)["outbox.show"]({"event": name})
    assert shown["message"] is None
    assert shown["unreadable"]


@pytest.mark.parametrize("event", ["", "x", "01890a5d-ac96-774b-bcce-b302099a8057", None, 5])
def test_an_unknown_event_is_named(outbox, event):
    """A mistyped id is the caller's mistake."""
    with pytest.raises(UserError, match="expected"):
        operations(outbox)["outbox.show"]({"event": event})


def test_several_are_leased_in_one_commit(outbox, punches, ask):
    """Frozen together, counted together, oldest first, no more than asked for."""
    ids = put(outbox, punches, 5)
    leased = outbox.lease(3)
    assert [envelope.event_id for envelope in leased] == ids[:3]
    assert ask(outbox, "SELECT count(*) FROM waiting WHERE body IS NOT NULL") == [(3,)]
    assert [envelope.event_id for envelope in outbox.lease(2, beyond=ids[2])] == ids[3:]
    assert outbox.lease(2, beyond=ids[4]) == []
    assert (outbox.waits(5), outbox.waits(6)) == (True, False)


def test_one_that_cannot_be_sent_does_not_empty_the_lease(outbox, punches, ask):
    """Set aside in the same commit; the others are leased, or the next ones are."""
    ids = put(outbox, punches, 4)
    ask(outbox, "UPDATE waiting SET draft = x'00' WHERE position IN (1, 2)")
    assert [envelope.event_id for envelope in outbox.lease(1)] == ids[2:3]
    assert outbox.status().quarantined == 2
    ask(outbox, "UPDATE waiting SET body = x'00' WHERE position = 3")
    assert [envelope.event_id for envelope in outbox.lease(5)] == ids[3:]


def test_words_on_several_events_are_one_commit(outbox, punches):
    """One that is not queued leaves all as they were: a batch is never half settled."""
    ids = put(outbox, punches, 2)
    leased = outbox.lease(2)
    words = [(envelope.event_id, OK) for envelope in leased]
    with pytest.raises(Exception, match="never was recorded"):
        outbox.settle_all([*words, ("x", OK)])
    assert outbox.status().pending == 2
    outbox.settle_all([(ids[0], OK), (ids[1], replace(OK, status=ReceiptStatus.DUPLICATE))])
    assert outbox.status().settled == 2
