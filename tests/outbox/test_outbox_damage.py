"""Damage: it always starts, nothing false is sent, the old file is kept, the loss is counted."""

import json
import random
import sqlite3

import pytest

from kiosk.errors import OutboxDamagedError
from kiosk.outbox.bodies import Bodies
from kiosk.types import Receipt, ReceiptStatus

PAGE = 1024
ROUNDS = 50


def tend_all(outbox):
    while outbox.tend():
        pass


def told(caplog, name):
    return [r.fields for r in caplog.records if r.message == name]


def fill(outbox, punches, waiting=40, settled=40, aside=5):
    """Events in every state; returns the ids of those that wait."""
    names = [punches.make(f"E-{number % 7}") for number in range(settled + aside + waiting)]
    for punch in names:
        outbox.put(punch)
    for _ in range(settled):
        outbox.settle(outbox.lease(1)[0].event_id, Receipt(ReceiptStatus.OK, 0.0))
    for punch in names[settled : settled + aside]:
        outbox.quarantine(punch.event_id, "test")
    return [punch.event_id for punch in names[settled + aside :]]


def drain(outbox):
    """All that is sent, in order."""
    sent = []
    while leased := outbox.lease(1):
        (envelope,) = leased
        sent.append(envelope)
        outbox.settle(envelope.event_id, Receipt(ReceiptStatus.OK, 0.0))
    return sent


def root_page(path, table):
    with sqlite3.connect(path) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)
        ).fetchone()
    connection.close()
    return page


def pages_of(path, table):
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT pageno FROM dbstat WHERE name = ? ORDER BY pageno", (table,))
    found = [number for (number,) in rows]
    connection.close()
    return found


def overwrite(path, page, data):
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(data)


@pytest.fixture
def closed(reopen, punches, path):
    """A queue with events in every state, closed cleanly; returns the ids that wait."""
    outbox = reopen()
    waiting = fill(outbox, punches)
    outbox.close(10.0)
    return waiting


def test_a_damaged_page_costs_what_was_on_it(closed, reopen, path, punches, caplog):
    """The file is set aside as it was, all other events are sent in order, the loss is told."""
    pages = pages_of(path, "waiting")
    overwrite(path, pages[len(pages) // 2], random.Random(3).randbytes(PAGE))
    before = path.read_bytes()
    outbox = reopen()
    (found,) = told(caplog, "outbox.salvaged")
    status = outbox.status()
    assert 0 < 40 - status.pending < 5
    assert int(found["waiting"]) == status.pending
    assert int(found["unreadable"]) == 40 - status.pending
    assert (status.quarantined, status.settled) == (5, 40)
    (aside,) = path.parent.glob("outbox.db.damaged-*[0-9]")
    assert aside.read_bytes() == before
    assert found["aside"] == str(aside)
    sent = [envelope.event_id for envelope in drain(outbox)]
    assert sent == [name for name in closed if name in set(sent)]
    assert outbox.put(punches.make()).endswith(":1")


def test_a_damaged_index_costs_nothing(closed, reopen, path, caplog):
    """What only finds events by id is built anew from the events."""
    pages = pages_of(path, "sqlite_autoindex_event_1")
    for page in pages:
        overwrite(path, page, bytes(PAGE))
    outbox = reopen()
    (found,) = told(caplog, "outbox.salvaged")
    assert (found["unreadable"], found["refused"]) == ("0", "0")
    assert [envelope.event_id for envelope in drain(outbox)] == closed


def test_damage_among_settled_events_is_found_afterwards(reopen, punches, path, caplog):
    """READY does not wait for it; once found the process ends, and the next start salvages."""
    outbox = reopen()
    fill(outbox, punches, settled=150)
    outbox.close(10.0)
    pages = pages_of(path, "event")
    overwrite(path, pages[1], random.Random(4).randbytes(PAGE))
    outbox = reopen()
    assert [f["reason"] for f in told(caplog, "outbox.salvaged")] == []
    with pytest.raises(OutboxDamagedError):
        tend_all(outbox)
    with pytest.raises(OutboxDamagedError):
        outbox.status()
    outbox = reopen()
    (found,) = told(caplog, "outbox.salvaged")
    assert int(found["unreadable"]) > 0
    assert outbox.status().pending == 40
    while outbox.tend():
        pass


def test_a_changed_row_is_never_sent(closed, reopen, path, caplog):
    """A flipped bit in sealed bytes that SQLite cannot see: set aside, all others are sent."""
    connection = sqlite3.connect(path)
    connection.execute(
        "UPDATE waiting SET draft ="
        " CAST(substr(draft, 1, 60) || x'00' || substr(draft, 62) AS BLOB)"
        " WHERE position = (SELECT max(position) FROM waiting)"
    )
    connection.commit()
    connection.close()
    outbox = reopen()
    assert outbox.status().quarantined == 6
    (name,) = [fields["event_id"] for fields in told(caplog, "outbox.unsendable")]
    assert name == closed[-1]
    assert [envelope.event_id for envelope in drain(outbox)] == closed[:-1]


@pytest.mark.parametrize("how", ["gone", "emptied", "header", "half", "no database", "version"])
def test_it_always_starts(closed, reopen, path, punches, caplog, how):
    """Whatever became of the file: the kiosk records again at once, and says what it lost."""
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        changed = {
            "emptied": b"",
            "header": bytes(PAGE) + data[PAGE:],
            "half": data[: len(data) // 2 // PAGE * PAGE + 100],
            "no database": b"nothing of the kind\n" * 1000,
            "version": data[:60] + (99).to_bytes(4, "big") + data[64:],
        }[how]
        path.write_bytes(changed)
    outbox = reopen()
    assert len(told(caplog, "outbox.salvaged")) == 1
    assert told(caplog, "outbox.lost") or outbox.status().settled > 0
    seq = outbox.put(punches.make())
    sent = drain(outbox)
    assert sent[-1].seq == seq
    assert {envelope.event_id for envelope in sent[:-1]} <= set(closed)
    if how not in {"gone", "emptied"}:
        assert [p for p in path.parent.glob("outbox.db.damaged-*") if p.stat().st_size > 0]


def test_counters_that_do_not_add_up_are_counted_anew(closed, reopen, path, caplog):
    """A wrong count is found at the start, and what is there is counted."""
    connection = sqlite3.connect(path)
    connection.execute("UPDATE epoch SET queued = 0")
    connection.commit()
    connection.close()
    outbox = reopen()
    assert len(told(caplog, "outbox.salvaged")) == 1
    assert (outbox.status().pending, outbox.status().settled) == (40, 40)


def test_the_salvage_can_be_cut_off_anywhere(closed, reopen, path, punches, monkeypatch, caplog):
    """A power cut in the middle of a salvage: the next start does it again, or goes on with it."""
    from pathlib import Path

    overwrite(path, root_page(path, "boot"), random.Random(3).randbytes(PAGE))
    rename, budget = Path.rename, [0]

    def cut_off(self, target):
        if budget[0] == 0:
            raise KeyboardInterrupt
        budget[0] -= 1
        return rename(self, target)

    for renames in range(20):
        budget[0] = renames
        monkeypatch.setattr(Path, "rename", cut_off)
        try:
            outbox = reopen()
        except KeyboardInterrupt:
            monkeypatch.undo()
            continue
        monkeypatch.undo()
        break
    assert renames > 1
    assert outbox.status().pending == 40
    assert [envelope.event_id for envelope in drain(outbox)] == closed


def flip(rng, path):
    """One damage of the kinds that cards do: a bit, a page of noise, of zeros, swapped, cut."""
    data = bytearray(path.read_bytes())
    pages = len(data) // PAGE
    one, other = rng.randrange(pages) * PAGE, rng.randrange(pages) * PAGE
    match rng.randrange(5):
        case 0:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            data[one : one + PAGE] = rng.randbytes(PAGE)
        case 2:
            data[one : one + PAGE] = bytes(PAGE)
        case 3:
            data[one : one + PAGE], data[other : other + PAGE] = (
                data[other : other + PAGE],
                data[one : one + PAGE],
            )
        case 4:
            del data[rng.randrange(len(data)) :]
    path.write_bytes(data)


def works_through(reopen, punches):
    """Restart until it runs, as the service does; everything is sent, then one punch more."""
    for _ in range(4):
        outbox = reopen()
        try:
            while outbox.tend():
                pass
            sent = drain(outbox)
            outbox.put(punches.make())
            return sent + drain(outbox)
        except OutboxDamagedError:
            continue
    raise AssertionError("expected a queue that runs after a few restarts")


def test_random_damage_never_stops_it_and_sends_nothing_false(
    closed, reopen, path, punches, signer
):
    """Flips, noise, zeros, swaps and cuts in database, log and mark: it starts, records, sends.

    Whatever is sent is byte for byte an event that was recorded.
    """
    files = [path, path.with_name(path.name + "-wal"), path.with_name("outbox.mark")]
    sound = {file: file.read_bytes() for file in files}
    outbox = reopen()
    known = {*closed, *(aside.event.event_id for aside in outbox.in_quarantine(10))}
    outbox.close(10.0)
    rng, lost = random.Random(20), 0
    for _ in range(ROUNDS):
        for file in path.parent.iterdir():
            file.unlink()
        for file, data in sound.items():
            file.write_bytes(data)
        flip(rng, rng.choice([path, path, path, path.with_name("outbox.mark")]))
        sent = works_through(reopen, punches)
        names = [envelope.event_id for envelope in sent[:-1]]
        assert len(set(names)) == len(names)
        assert set(names) <= known
        for envelope in sent:
            assert signer.message_is_authentic(json.loads(envelope.body))
        lost += len(set(closed) - set(names))
    print(f"{ROUNDS} damages, {ROUNDS * len(closed)} events, {lost} lost")


def test_without_seals_a_swapped_draft_would_be_sent(closed, reopen, path, monkeypatch):
    """What the tests above rest on: only the seal tells that a draft is another event's."""
    connection = sqlite3.connect(path)
    low, high = connection.execute("SELECT min(position), max(position) FROM waiting").fetchone()
    connection.execute(
        "UPDATE waiting SET draft = (SELECT draft FROM waiting WHERE position = ?)"
        " WHERE position = ?",
        (high, low),
    )
    connection.commit()
    connection.close()
    sound = path.read_bytes()
    outbox = reopen()
    assert [envelope.event_id for envelope in drain(outbox)] == closed[1:]
    outbox.close(10.0)
    path.write_bytes(sound)
    path.with_name("outbox.mark").unlink()
    monkeypatch.setattr(Bodies, "_context", lambda self, purpose, _: f"outbox.{purpose}")
    outbox = reopen()
    assert outbox.status().quarantined > 6
