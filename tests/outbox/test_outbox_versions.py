"""From one version of the tables to the next and back, and what is tried on a copy first."""

import sqlite3
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest

from kiosk.errors import OutboxBrokenError, OutboxError
from kiosk.outbox import database, mark, room, schema
from kiosk.outbox.ledger import Ledger
from kiosk.outbox.rehearsal import Rehearsal, rehearse


class PowerGoneError(Exception):
    """The process ends here."""


def power_goes(*_):
    raise PowerGoneError


def later(monkeypatch, *statements):
    """From here on a kiosk whose tables are one version further."""
    for module in (database, mark):
        monkeypatch.setattr(module, "MIGRATIONS", (*schema.MIGRATIONS, statements))


def test_a_later_version_is_left_alone(reopen, build, path, monkeypatch):
    """An older kiosk does not guess at a newer file, nor take it for damage."""
    now = len(schema.MIGRATIONS)
    later(monkeypatch, f"UPDATE reader SET least = {now + 1}")
    reopen().close(10.0)
    monkeypatch.undo()
    content = path.read_bytes()
    with pytest.raises(OutboxError, match=f"version {now} or older, got {now + 1}"):
        build().start()
    assert path.read_bytes() == content


ADDS = (
    "ALTER TABLE event ADD COLUMN door TEXT",
    "ALTER TABLE boot ADD COLUMN mains INTEGER NOT NULL DEFAULT 1",
    "CREATE TABLE door (id INTEGER PRIMARY KEY) STRICT",
)


def test_a_version_that_only_adds_can_be_gone_back_from(reopen, punches, monkeypatch, ask):
    """Forward, back and forward again: every punch of all three is there, and the additions."""
    made = [punches.make() for _ in range(3)]
    later(monkeypatch, *ADDS)
    reopen().put(made[0])
    monkeypatch.undo()
    reopen().put(made[1])
    later(monkeypatch, *ADDS)
    outbox = reopen()
    outbox.put(made[2])
    assert [each.event_id for each in outbox.lease(9)] == [each.event_id for each in made]
    assert ask(outbox, "SELECT count(*) FROM event WHERE door IS NULL") == [(3,)]
    outbox.close(10.0)


def test_a_later_file_that_lacks_something_of_ours_is_damaged(reopen, build, path, monkeypatch):
    """That it is newer excuses no missing column: it is set aside, and what is there taken over."""
    later(monkeypatch, "ALTER TABLE quarantine DROP COLUMN utc_ms")
    reopen().close(10.0)
    monkeypatch.undo()
    reopen().close(10.0)
    assert list(path.parent.glob("outbox.db.damaged-*"))


def test_power_lost_in_a_migration_is_no_damage_to_the_version_before(
    reopen, build, path, monkeypatch
):
    """The tables are new, the numbers not counted yet: the older kiosk names the later one."""
    reopen().close(10.0)
    now = len(schema.MIGRATIONS)
    later(monkeypatch, f"UPDATE reader SET least = {now + 1}")
    monkeypatch.setattr(Ledger, "bind", power_goes)
    with pytest.raises(PowerGoneError):
        build().start()
    monkeypatch.undo()
    with pytest.raises(OutboxError, match="a later kiosk wrote it"):
        build().start()
    assert not list(path.parent.glob("outbox.db.damaged-*"))


def test_a_backup_is_the_queue_as_it_is_and_opens_anywhere(outbox, punches, path):
    """Taken while it is in use, sealed, private; tried on, it says both versions."""
    outbox.put(punches.make())
    copy = outbox.backup()
    assert copy.stat().st_mode & 0o077 == 0
    assert b"E-1" not in copy.read_bytes()
    here = len(schema.MIGRATIONS)
    assert rehearse(copy) == Rehearsal(here, here)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM waiting").fetchone() == (1,)


def test_punches_are_recorded_while_a_backup_is_written(outbox, punches, monkeypatch, path):
    """Nobody waits for the whole of it, and what was recorded meanwhile is in the copy."""
    monkeypatch.setattr(database, "_BACKUP_PAGES", 1)
    outbox.put(punches.make())
    seen, threads = [], []
    give_way = outbox._owner.give_way

    def meanwhile():
        if not threads:
            put = threading.Thread(target=lambda: seen.append(outbox.put(punches.make())))
            threads.append(put)
            put.start()
        while not seen:
            give_way()
        give_way()

    monkeypatch.setattr(outbox._owner, "give_way", meanwhile)
    copy = outbox.backup()
    threads[0].join(50.0)
    assert seen
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM waiting").fetchone() == (2,)


def test_a_backup_without_room_leaves_the_queue_as_it_was(outbox, punches, monkeypatch, path):
    """Refused with the bytes that are missing; nothing is left of it, punches go on."""
    facts = SimpleNamespace(f_bavail=10, f_frsize=1024, f_blocks=100, f_bfree=10)
    monkeypatch.setattr(room.os, "statvfs", lambda _: facts)
    with pytest.raises(OutboxError, match="bytes free for a copy"):
        outbox.backup()
    monkeypatch.undo()
    outbox.put(punches.make())
    assert not list(path.parent.glob("outbox.backup*"))


def test_one_backup_at_a_time_and_none_while_it_closes(outbox, monkeypatch, path):
    """A second one asked for from within, and an end in the middle: both by name, nothing left."""
    errors = []

    def give_way():
        for work in (outbox._back_up, outbox._back_up):
            try:
                work(outbox._queue, path.with_name("second"))
            except OutboxError as error:
                errors.append(str(error))
        raise OutboxError("expected an open outbox, it is being closed")

    monkeypatch.setattr(outbox._owner, "give_way", give_way)
    with pytest.raises(OutboxError, match="being closed"):
        outbox.backup()
    assert all("one backup at a time" in said for said in errors)
    assert len(errors) == 2
    assert not list(path.parent.glob("*.half"))


def test_a_migration_that_fails_on_the_copy_fails_there_only(outbox, punches, monkeypatch):
    """What a new version would be refused for is seen on the copy; the queue goes on."""
    outbox.put(punches.make())
    copy = outbox.backup()
    later(monkeypatch, "CREATE NONSENSE")
    with pytest.raises(OutboxBrokenError, match="NONSENSE"):
        rehearse(copy)
    monkeypatch.undo()
    outbox.put(punches.make())
    with pytest.raises(OutboxError, match="expected a copy of a queue, there is none"):
        rehearse(copy.with_name("nowhere"))
