"""The life of an event: put, lease, settle, quarantine, and what stays of it."""

import hashlib
import json
import logging

import pytest

from kiosk.errors import MessageError, OutboxError, UserError
from kiosk.outbox.hindsight import EARLIEST_MS, LATEST_MS
from kiosk.outbox.operations import operations
from kiosk.types import Direction, Receipt, ReceiptStatus, Stamp, Trust
from kiosk.wire import message
from kiosk.wire.signing import Signer

OK = Receipt(ReceiptStatus.OK, 0.0)
HELD = "SELECT draft, body FROM waiting UNION ALL SELECT draft, body FROM quarantine"


def test_numbers_are_gapless_from_one(outbox, punches):
    """SEQ is epoch:number, and the numbers of an epoch have no gap."""
    seqs = [outbox.put(punches.make()) for _ in range(5)]
    epoch = outbox.status().epoch
    assert len(epoch) == 8
    assert seqs == [f"{epoch}:{number}" for number in range(1, 6)]


def test_a_refused_put_takes_no_number(outbox, punches):
    """A put that is rolled back leaves no gap for a server to wonder at."""
    first = punches.make()
    outbox.put(first)
    with pytest.raises(OutboxError):
        outbox.put(first)
    assert outbox.put(punches.make()).endswith(":2")


def test_epoch_and_numbers_go_on_after_a_restart(reopen, punches):
    """A restart is no new epoch."""
    first = reopen()
    seq = first.put(punches.make())
    epoch = first.status().epoch
    assert seq == f"{epoch}:1"
    assert reopen().put(punches.make()) == f"{epoch}:2"


def test_two_files_have_two_epochs(tmp_path, build, path, punches):
    """The epoch is random: a new file cannot continue another one's numbers."""
    names = set()
    for _ in range(3):
        outbox = build()
        outbox.start()
        names.add(outbox.status().epoch)
        outbox.close(10.0)
        path.rename(tmp_path / f"{len(names)}.db")
    assert len(names) == 3


@pytest.mark.parametrize("fate", ["queued", "settled", "quarantined"])
def test_an_event_id_is_never_taken_twice(outbox, punches, fate):
    """Unique for ever: also after the event was settled or set aside, and for the same content."""
    punch = punches.make()
    seq = outbox.put(punch)
    outbox.lease(1)
    if fate == "settled":
        outbox.settle(punch.event_id, OK)
    if fate == "quarantined":
        outbox.quarantine(punch.event_id, "test")
    with pytest.raises(OutboxError, match=f"{punch.event_id} was recorded as {seq}"):
        outbox.put(punch)
    assert outbox.status().highest == 1


def test_a_punch_that_makes_no_message_is_refused_before_it_is_stored(outbox, punches):
    """What no server could read must fail while the person still stands there."""
    with pytest.raises(MessageError, match="A1"):
        outbox.put(punches.make(event_id="not-an-id"))
    assert outbox.status().highest == 0


def test_the_oldest_is_sent_first(outbox, punches):
    """Order of recording, not of event ids or of the wall clock."""
    later, earlier = punches.make(), None
    outbox.put(later)
    punches.clock.utc_ms -= 86_400_000
    earlier = punches.make()
    outbox.put(earlier)
    assert outbox.lease(1)[0].event_id == later.event_id
    outbox.settle(later.event_id, OK)
    assert outbox.lease(1)[0].event_id == earlier.event_id


def test_an_empty_queue_leases_nothing(outbox):
    """Nothing waits, nothing is leased."""
    assert outbox.lease(1) == []


def test_the_same_event_is_leased_until_it_is_settled(outbox, punches):
    """One in flight: nobody overtakes, and each lease counts an attempt."""
    outbox.put(punches.make())
    outbox.put(punches.make())
    leases = [outbox.lease(1)[0] for _ in range(3)]
    assert {lease.event_id for lease in leases} == {leases[0].event_id}
    assert [lease.attempts for lease in leases] == [1, 2, 3]


def test_the_body_is_what_the_wire_says(outbox, punches, device, signer):
    """The body is the frozen message of this punch, signed, with time and SEQ of its row."""
    punch = punches.make("E-7", Direction.OUT)
    seq = outbox.put(punch)
    lease = outbox.lease(1)[0]
    assert (lease.seq, lease.event_id) == (seq, punch.event_id)
    read = message.parse(lease.body)
    assert (read.employee, read.kind, read.device_id) == ("E-7", Direction.OUT, device)
    assert (read.seq, read.seen_ms) == (seq, punch.seen.utc_ms)
    assert signer.message_is_authentic(read.fields)


def test_the_body_never_changes_once_it_was_leased(reopen, punches, vault):
    """Frozen on disk: a restart, and even another sign key, change no byte of it."""
    outbox = reopen()
    outbox.put(punches.make())
    body = outbox.lease(1)[0].body
    outbox = reopen(signer=Signer("hall-2", vault.sign_key))
    assert outbox.lease(1)[0].body == body
    outbox = reopen(signer=None)
    again = outbox.lease(1)[0]
    assert again.body == body
    assert again.attempts == 3


def test_until_the_first_lease_nothing_is_frozen(reopen, punches, vault):
    """A key set before the first attempt still signs what already waits."""
    outbox = reopen(signer=None)
    outbox.put(punches.make())
    body = reopen(signer=Signer("hall-9", vault.sign_key)).lease(1)[0].body
    assert json.loads(body)["K1"] == "hall-9"


@pytest.mark.parametrize("word", ["ok", "duplicate", "pending"])
def test_settling_erases_all_but_what_identifies(outbox, punches, ask, word):
    """Nothing of a face or a name stays; id, SEQ, time and a hash of the body do."""
    punch = punches.make()
    seq = outbox.put(punch)
    body = outbox.lease(1)[0].body
    outbox.settle(punch.event_id, Receipt(ReceiptStatus(word), 0.0))
    assert ask(outbox, HELD) == []
    row = ask(
        outbox,
        "SELECT lower(hex(event_id)), name || ':' || number, utc_ms, body_sha256, answer, state"
        " FROM event JOIN epoch ON epoch.id = event.epoch",
    )
    digest = hashlib.sha256(body).digest()
    hexadecimal = punch.event_id.replace("-", "")
    assert row == [(hexadecimal, seq, punch.seen.utc_ms, digest, word, "settled")]
    assert outbox.lease(1) == []


def test_a_rejected_event_is_kept_whole(outbox, punches, ask, vault):
    """`rejected` is quarantine: the body stays, sealed, and nothing is sent again."""
    punch = punches.make()
    outbox.put(punch)
    body = outbox.lease(1)[0].body
    outbox.settle(punch.event_id, Receipt(ReceiptStatus.REJECTED, 0.0))
    assert outbox.lease(1) == []
    ((sealed, reason),) = ask(outbox, "SELECT body, reason FROM quarantine")
    assert vault.unseal(sealed, f"outbox.body/{punch.event_id}") == body
    assert reason == "rejected by the server"
    assert outbox.status().quarantined == 1
    assert ask(outbox, "SELECT answer FROM event") == [("rejected",)]


def test_a_refused_event_lets_the_next_one_pass(outbox, punches, ask):
    """Quarantine keeps the event and its reason and frees the way."""
    first, second = punches.make(), punches.make()
    outbox.put(first)
    outbox.put(second)
    outbox.lease(1)
    outbox.quarantine(first.event_id, "status 400")
    assert outbox.lease(1)[0].event_id == second.event_id
    assert ask(outbox, "SELECT reason, body IS NOT NULL FROM quarantine") == [("status 400", 1)]


@pytest.mark.parametrize("end", ["settle", "quarantine"])
def test_an_event_ends_once(outbox, punches, end):
    """Ending what is not queued is an error that names the state, and changes no count."""
    punch = punches.make()
    outbox.put(punch)
    outbox.lease(1)
    outbox.settle(punch.event_id, OK)
    again = {"settle": outbox.settle, "quarantine": outbox.quarantine}[end]
    with pytest.raises(OutboxError, match="is settled"):
        again(punch.event_id, {"settle": OK, "quarantine": "late"}[end])
    status = outbox.status()
    assert (status.pending, status.settled, status.quarantined) == (0, 1, 0)


def test_what_was_never_sent_cannot_be_settled(outbox, punches):
    """A receipt for an event that never left is not believed."""
    punch = punches.make()
    outbox.put(punch)
    with pytest.raises(OutboxError, match="leased"):
        outbox.settle(punch.event_id, OK)
    assert outbox.status().pending == 1


@pytest.mark.parametrize("unknown", ["", "x", "01890a5d-ac96-774b-bcce-b302099a8057"])
def test_an_unknown_event_is_named(outbox, unknown):
    """An id that was never recorded is an error, whatever it looks like."""
    with pytest.raises(OutboxError, match="never was recorded"):
        outbox.settle(unknown, OK)


def test_the_last_punch_is_by_person_and_direction(outbox, punches):
    """The repeat window asks for one person and one direction; directions do not mix."""
    seen = {}
    for kind in (Direction.IN, Direction.OUT, None):
        punches.clock.forward(60)
        punch = punches.make("E-1", kind)
        outbox.put(punch)
        seen[kind] = punch.seen
    outbox.put(punches.make("E-2", Direction.IN))
    outbox.put(punches.make(None))
    for kind, stamp in seen.items():
        assert outbox.last_recorded("E-1", kind) == stamp
    assert outbox.last_recorded("E-2", Direction.OUT) is None
    assert outbox.last_recorded("E-3", Direction.IN) is None


def test_the_last_punch_is_by_order_of_recording(reopen, punches):
    """A clock set back, a restart and settlement change nothing about which was the last."""
    outbox = reopen()
    outbox.put(punches.make())
    punches.clock.utc_ms -= 3_600_000
    punches.clock.boot_id, punches.clock.boot_ns = "boot-2", 5
    latest = punches.make(seen=Stamp(punches.clock.utc_ms, 5, "boot-2", Trust.SYNCED))
    outbox.put(latest)
    for lease in outbox.lease(10):
        outbox.settle(lease.event_id, OK)
    assert reopen().last_recorded("E-1", Direction.IN) == latest.seen


def test_status_counts_and_tells_the_oldest(reopen, punches):
    """Counts survive a restart; `oldest` is the event that is sent next."""
    outbox = reopen()
    made = [punches.make() for _ in range(4)]
    for punch in made:
        punches.clock.forward(1)
        outbox.put(punch)
    outbox.lease(1)
    outbox.settle(made[0].event_id, OK)
    outbox.quarantine(made[1].event_id, "test")
    status = reopen().status()
    assert (status.pending, status.settled, status.quarantined, status.highest) == (2, 1, 1, 4)
    assert status.oldest == made[2].seen


def test_arrived_is_set_by_a_put(outbox, punches):
    """The sender wakes at once."""
    assert not outbox.arrived.is_set()
    outbox.put(punches.make())
    assert outbox.arrived.is_set()


def test_an_event_that_does_not_authenticate_is_set_aside_and_told(outbox, punches, ask, caplog):
    """A changed row is never sent, is kept, and does not hold up what waits behind it."""
    bad, good = punches.make(), punches.make()
    outbox.put(bad)
    outbox.put(good)
    ask(outbox, "UPDATE waiting SET draft = zeroblob(500) WHERE position = 1")
    with caplog.at_level(logging.ERROR):
        assert outbox.lease(1)[0].event_id == good.event_id
    assert [record.message for record in caplog.records] == ["outbox.unsendable"]
    assert outbox.status().quarantined == 1


def test_rows_cannot_be_swapped(outbox, punches, ask):
    """A seal is bound to its event: a draft in another row does not open."""
    outbox.put(punches.make("E-1"))
    outbox.put(punches.make("E-2"))
    ask(
        outbox,
        "UPDATE waiting SET draft = (SELECT draft FROM waiting WHERE position = 3 - w.position)"
        " FROM waiting AS w WHERE w.position = waiting.position AND w.position = 1",
    )
    assert outbox.lease(1)[0].seq.endswith(":2")
    assert outbox.status().quarantined == 1


def test_a_body_that_can_never_be_written_is_set_aside(outbox, punches):
    """A time beyond what the wire can say must not stop the queue for ever."""
    outbox.put(punches.make(seen=Stamp(10**15, 1, "boot-0", Trust.SYNCED)))
    good = punches.make()
    outbox.put(good)
    assert outbox.lease(1)[0].event_id == good.event_id


def test_neither_name_nor_embedding_lies_in_the_files(outbox, punches, path):
    """Sealed on disk: file and log hold neither the employee id nor the token."""
    punch = punches.make("EMPLOYEE-TELLTALE")
    outbox.put(punch)
    body = outbox.lease(1)[0].body
    token = json.loads(body)["F2_DATA"].encode()
    on_disk = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert punch.event_id.replace("-", "") in on_disk.hex()
    assert b"TELLTALE" not in on_disk
    assert token[:24] not in on_disk


def test_the_journal_tells_what_happened_and_no_name(outbox, punches, caplog, clock):
    """Each step is told with its ids; who it was is not."""
    with caplog.at_level(logging.INFO):
        punch = punches.make("EMPLOYEE-TELLTALE")
        seq = outbox.put(punch)
        outbox.lease(1)
        clock.forward(90)
        outbox.settle(punch.event_id, OK)
    committed, settled = caplog.records
    assert committed.message == "outbox.committed"
    assert committed.fields == {"event_id": punch.event_id, "seq": seq}
    assert settled.fields["age_s"] == 90.0
    assert "TELLTALE" not in repr([record.__dict__ for record in caplog.records])


def test_asking_whether_something_waits_changes_nothing(outbox, punches, ask):
    """A look freezes no body and counts no attempt."""
    assert outbox.waits() is False
    outbox.put(punches.make())
    assert outbox.waits() is True
    assert ask(outbox, "SELECT attempts, body_sha256 FROM event") == [(0, None)]
    assert ask(outbox, "SELECT body FROM waiting") == [(None,)]


def test_a_clock_that_is_set_right_dates_what_waits(outbox, punches, clock, ask):
    """Same boot, synchronised by now: the true time is known exactly, and CLK says how."""
    true_ms = clock.utc_ms
    clock.trust, clock.utc_ms = Trust.UNSYNCED, 5000
    punch = punches.make()
    outbox.put(punch)
    clock.forward(90.0005)
    clock.trust, clock.utc_ms = Trust.SYNCED, true_ms + 90_000
    read = message.parse(outbox.lease(1)[0].body)
    assert read.clock == "corrected"
    # Down to the millisecond, and never into the future.
    assert read.seen_ms == true_ms - 1
    assert ask(outbox, "SELECT utc_ms, trust FROM event") == [(true_ms - 1, "corrected")]
    seen = outbox.last_recorded("E-1", Direction.IN)
    assert (seen.utc_ms, seen.boottime_ns) == (true_ms - 1, punch.seen.boottime_ns)


def test_what_is_frozen_is_not_dated_anew(outbox, punches, clock):
    """Sent once with a wrong time, the bytes stay: the server may have them."""
    clock.trust, clock.utc_ms = Trust.UNSYNCED, 5000
    outbox.put(punches.make())
    body = outbox.lease(1)[0].body
    assert json.loads(body)["CLK"] == "estimated"
    clock.trust, clock.utc_ms = Trust.SYNCED, 1_800_000_000_000
    assert outbox.lease(1)[0].body == body


def test_what_nothing_dates_is_sent_with_what_bounds_it(outbox, punches, clock):
    """After the last good moment before its boot, before the first boot that was synchronised."""
    good_ms = clock.utc_ms
    outbox.note_time(clock.now(), rtc=False)
    seen = Stamp(5000, 7_000_000_000, "boot-2", Trust.UNSYNCED)
    outbox.put(punches.make(seen=seen))
    clock.boot_id, clock.boot_ns, clock.utc_ms = "boot-3", 9_000_000_000, good_ms + 600_000
    read = message.parse(outbox.lease(1)[0].body)
    assert read.clock == "estimated"
    assert read.seen_bounds_ms == (good_ms + 7_000, good_ms + 600_000 - 9_000)
    assert read.seen_ms == good_ms + 7_000


def test_what_nothing_bounds_says_so(outbox, punches, clock):
    """A kiosk that was never synchronised promises no more than it knows."""
    clock.trust = Trust.UNSYNCED
    outbox.put(punches.make(seen=Stamp(5000, 7, clock.boot_id, Trust.UNSYNCED)))
    read = message.parse(outbox.lease(1)[0].body)
    assert (read.clock, read.seen_ms) == ("estimated", 5000)
    assert read.seen_bounds_ms == (EARLIEST_MS, LATEST_MS)


def test_a_time_that_was_synchronised_stays_as_it_was(outbox, punches):
    """Nothing that comes later changes what was right."""
    outbox.put(punches.make(seen=Stamp(5000, 7, "boot-0", Trust.SYNCED)))
    read = message.parse(outbox.lease(1)[0].body)
    assert (read.clock, read.seen_ms, read.seen_bounds_ms) == ("synced", 5000, None)


def test_good_moments_are_kept_only_while_something_needs_them(outbox, punches, clock, ask):
    """One an hour for years would fill the card; one bounds whatever comes next."""
    undated = punches.make(seen=Stamp(5000, 7, "boot-2", Trust.UNSYNCED))
    outbox.put(undated)
    for _ in range(3):
        outbox.note_time(clock.now(), rtc=True)
        clock.forward(3600)
    assert ask(outbox, "SELECT count(*) FROM good_time") == [(3,)]
    assert ask(outbox, "SELECT rtc FROM boot ORDER BY id") == [(None,), (1,)]
    outbox.lease(1)
    outbox.note_time(clock.now(), rtc=True)
    kept = ask(outbox, "SELECT utc_ms FROM good_time")
    assert kept == [(clock.utc_ms,)]


def test_quarantine_tells_why_and_when(outbox, punches, clock):
    """The oldest first: number, id, reason, and the moment in which it was set aside."""
    made = [punches.make() for _ in range(3)]
    seqs = [outbox.put(punch) for punch in made]
    clock.forward(60)
    for punch, reason in zip(reversed(made), ("third", "second", "first"), strict=True):
        outbox.quarantine(punch.event_id, reason)
    aside = outbox.in_quarantine(2)
    assert [(a.event.seq, a.event.event_id, a.reason) for a in aside] == [
        (seqs[0], made[0].event_id, "first"),
        (seqs[1], made[1].event_id, "second"),
    ]
    assert {a.utc_ms for a in aside} == {clock.utc_ms}


def test_what_is_dropped_is_erased_and_stays_accounted_for(reopen, punches, ask, caplog):
    """Settled as `dropped`: number, id and hash stay for ever, the message does not; journalled;
    the others go on, also after a restart."""
    outbox = reopen()
    first, second = punches.make(), punches.make()
    seq = outbox.put(first)
    outbox.put(second)
    body = outbox.lease(1)[0].body
    outbox.settle(first.event_id, Receipt(ReceiptStatus.REJECTED, 0.0))
    digest = hashlib.sha256(body).digest()
    caplog.clear()
    assert outbox.drop(first.event_id, digest).seq == seq
    (said,) = [r for r in caplog.records if r.message == "outbox.dropped"]
    assert said.levelno == logging.WARNING
    facts = {"event_id": first.event_id, "seq": seq, "body_sha256": digest.hex()}
    assert facts.items() <= said.fields.items()
    outbox = reopen()
    status = outbox.status()
    assert (status.pending, status.quarantined, status.settled, status.highest) == (1, 0, 1, 2)
    shown = outbox.show(first.event_id)
    assert (shown.event.state, shown.answer, shown.body) == ("settled", "dropped", None)
    assert (shown.event.seq, shown.event.body_sha256) == (seq, digest)
    assert ask(outbox, "SELECT count(*) FROM quarantine") == [(0,)]
    with pytest.raises(OutboxError, match="new event id"):
        outbox.put(first)
    for gone in (
        lambda: outbox.drop(first.event_id, digest),
        lambda: outbox.retry([first.event_id]),
    ):
        with pytest.raises(UserError, match="is settled"):
            gone()
    outbox.lease(1)
    outbox.settle(second.event_id, OK)
    assert outbox.status().settled == 2


def test_nothing_is_dropped_without_the_hash_of_its_message(outbox, punches):
    """Of another message, of none that was frozen yet, or of what still waits: all stays."""
    first, second = punches.make(), punches.make()
    for punch in (first, second):
        outbox.put(punch)
    outbox.quarantine(first.event_id, "refused")
    for name, why in ((first.event_id, "none yet"), (second.event_id, "is queued")):
        with pytest.raises(UserError, match=why):
            outbox.drop(name, bytes(32))
    (copy, _) = outbox.export(2, beyond=0)
    with pytest.raises(UserError, match="expected the SHA-256 of the message"):
        outbox.drop(first.event_id, bytes(32))
    assert (outbox.status().pending, outbox.status().quarantined) == (1, 1)
    outbox.drop(first.event_id, hashlib.sha256(copy.body).digest())
    assert (outbox.status().pending, outbox.status().quarantined) == (1, 0)


@pytest.mark.parametrize("everything", [False, True])
def test_what_was_set_aside_is_queued_again(reopen, punches, everything):
    """The same body, in its old place, counted as waiting; also after a restart."""
    outbox = reopen()
    first, second = punches.make(), punches.make()
    outbox.put(first)
    outbox.put(second)
    body = outbox.lease(1)[0].body
    outbox.settle(first.event_id, Receipt(ReceiptStatus.REJECTED, 0.0))
    outbox.arrived.clear()
    assert outbox.retry(None if everything else [first.event_id] * 2) == [first.event_id]
    assert outbox.arrived.is_set()
    outbox = reopen()
    assert outbox.in_quarantine(10) == []
    status = outbox.status()
    assert (status.pending, status.quarantined, status.settled) == (2, 0, 0)
    lease = outbox.lease(1)[0]
    assert (lease.event_id, lease.body) == (first.event_id, body)
    outbox.settle(first.event_id, OK)
    assert outbox.status().settled == 1


@pytest.mark.parametrize("wrong", ["queued", "settled", "unknown", "no id"])
def test_only_what_was_set_aside_is_queued_again(outbox, punches, wrong):
    """A wrong id is told with its state, and those beside it stay where they are."""
    aside, other = punches.make(), punches.make()
    outbox.put(aside)
    outbox.put(other)
    outbox.quarantine(aside.event_id, "test")
    name = {"unknown": punches.make().event_id, "no id": "x"}.get(wrong, other.event_id)
    if wrong == "settled":
        outbox.lease(1)
        outbox.settle(other.event_id, OK)
    with pytest.raises(UserError, match=name):
        outbox.retry([aside.event_id, name])
    assert outbox.status().quarantined == 1


def test_what_does_not_authenticate_is_set_aside_again(outbox, punches, ask):
    """Another try cannot send what was changed on disk, and still holds up nobody."""
    bad, good = punches.make(), punches.make()
    outbox.put(bad)
    outbox.put(good)
    ask(outbox, "UPDATE waiting SET draft = zeroblob(500) WHERE position = 1")
    outbox.lease(1)
    assert outbox.retry(None) == [bad.event_id]
    assert outbox.lease(1)[0].event_id == good.event_id
    assert outbox.status().quarantined == 1


def test_the_operations_speak_json(outbox, punches):
    """What the socket and the command line get: counts, the list, and another try."""
    known = operations(outbox)
    punch = punches.make()
    seq = outbox.put(punch)
    outbox.quarantine(punch.event_id, "test")
    listed = json.loads(json.dumps(known["outbox.quarantine"]({})))
    assert listed["quarantined"] == 1
    (event,) = listed["events"]
    assert (event["seq"], event["event_id"], event["reason"]) == (seq, punch.event_id, "test")
    for events in ("none", 7, [7], None):
        with pytest.raises(UserError, match="events"):
            known["outbox.retry"]({"events": events})
    assert known["outbox.retry"]({"events": [punch.event_id]}) == {"queued": 1}
    assert known["outbox"]({})["pending"] == 1


@pytest.mark.parametrize("name", ["ann\udcff", "anna\x85x", "x" * 201])
def test_a_name_that_no_message_can_carry_breaks_nothing(outbox, punches, name):
    """Enrolled by an older kiosk: the window can be asked, and the punch is refused by name."""
    assert outbox.last_recorded(name, Direction.IN) is None
    with pytest.raises(MessageError, match="E1"):
        outbox.put(punches.make(name))
    assert outbox.status().highest == 0
