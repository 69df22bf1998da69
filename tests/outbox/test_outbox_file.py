"""The file: its settings, who may open it, and what is not taken for an outbox."""

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kiosk.errors import OutboxBrokenError, OutboxError, OutboxLockedError, VaultError
from kiosk.outbox import database, schema
from kiosk.outbox.ledger import Ledger
from kiosk.vault import Vault

NOBODY = 65534


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("locking_mode", "exclusive"),
        ("journal_mode", "wal"),
        ("page_size", 1024),
        ("wal_autocheckpoint", 0),
        ("journal_size_limit", -1),
        ("auto_vacuum", 2),
        ("synchronous", 2),
        ("secure_delete", 1),
        ("foreign_keys", 1),
        ("trusted_schema", 0),
        ("cell_size_check", 1),
        ("mmap_size", 0),
        ("temp_store", 2),
    ],
)
def test_settings_are_in_force(outbox, ask, pragma, value):
    """What durability rests on holds on the very connection that commits."""
    assert ask(outbox, f"PRAGMA {pragma}") == [(value,)]


def test_all_tables_are_strict(outbox, ask):
    """A column holds its type or nothing."""
    tables = ask(outbox, "SELECT name, strict FROM pragma_table_list WHERE name NOT LIKE 'sqlite%'")
    assert {name for name, _ in tables} == set(schema.TABLES)
    assert all(strict for _, strict in tables)


def test_a_setting_that_does_not_take_is_refused(build, monkeypatch):
    """SQLite ignores what it cannot do; the outbox does not."""
    broken = (*schema.PRAGMAS[:1], ("trusted_schema", "ON", 0))
    monkeypatch.setattr(database, "PRAGMAS", broken)
    with pytest.raises(OutboxBrokenError, match="PRAGMA trusted_schema to become 0, got 1"):
        build().start()


def test_a_second_opener_is_turned_away(outbox, build):
    """Two owners would corrupt the queue; the second is told what to do."""
    with pytest.raises(OutboxLockedError, match="another process") as caught:
        build().start()
    assert "stop the other kiosk" in caught.value.hint


def test_another_process_is_turned_away(outbox, path):
    """Not even a reader gets in: it is asked through the daemon."""
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute(sys.argv[2])"
    command = [sys.executable, "-c", code, str(path), "SELECT * FROM event"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "database is locked" in done.stderr


def test_a_failed_start_leaves_nothing_open(outbox, build, path, reopen):
    """Who was turned away can come again when the first has left."""
    second = build()
    with pytest.raises(OutboxLockedError):
        second.start()
    outbox.close(10.0)
    second = build()
    second.start()
    second.close(10.0)


def test_the_files_are_private(outbox, punches, path):
    """Database and log are readable by the kiosk's user only, whatever the umask."""
    outbox.put(punches.make())
    modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in path.parent.iterdir()}
    assert modes == {"outbox.db": 0o600, "outbox.db-wal": 0o600, "outbox.mark": 0o600}


def test_a_missing_folder_is_named(build, path):
    """Where it cannot be written: path, reason, and what to do."""
    path.parent.rmdir()
    with pytest.raises(OutboxError, match=r"outbox\.mark: expected a file that can be written"):
        build().start()


def test_a_folder_in_its_place_is_named(build, path):
    """A path that is no file."""
    path.mkdir()
    with pytest.raises(OutboxError, match="Is a directory"):
        build().start()


def test_a_path_below_a_file_is_named(build, path, vault, device, clock):
    """A parent that is no folder."""
    path.write_bytes(b"")
    outbox = type(build())(path / "x.db", vault=vault, device_id=device, signer=None, clock=clock)
    with pytest.raises(OutboxError, match="Not a directory"):
        outbox.start()


@pytest.fixture
def unprivileged():
    """This process as a user who may not write everywhere; as itself again after the test."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


@pytest.fixture
def read_only_folder():
    """A folder that everybody may look into and nobody but root write in."""
    # Not below tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o700)


def test_a_read_only_folder_is_named(read_only_folder, build, vault, device, clock, unprivileged):
    """A folder of somebody else's, for root in the part of somebody else."""
    list(read_only_folder.iterdir())
    path = read_only_folder / "outbox.db"
    outbox = type(build())(path, vault=vault, device_id=device, signer=None, clock=clock)
    with pytest.raises(OutboxError, match="Permission denied"):
        outbox.start()


def test_a_file_that_is_no_database_is_left_alone(build, path):
    """Refused by name, not a byte changed."""
    content = b"these are not the pages you are looking for\n" * 200
    path.write_bytes(content)
    with pytest.raises(OutboxBrokenError, match="no database"):
        build().start()
    assert path.read_bytes() == content


def test_another_programs_database_is_left_alone(build, path):
    """Refused by name before its journal mode or anything else is changed."""
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE diary (line TEXT)")
    other.commit()
    other.close()
    content = path.read_bytes()
    with pytest.raises(OutboxError, match="another program's"):
        build().start()
    assert path.read_bytes() == content


def test_a_migration_is_applied_whole_or_not_at_all(reopen, build, punches, monkeypatch):
    """A step that fails leaves tables and version as they were; repaired, it is applied once."""
    reopen().put(punches.make())
    reopen().close(10.0)
    half = (*schema.MIGRATIONS, ("CREATE TABLE extra (a INTEGER) STRICT", "CREATE NONSENSE"))
    monkeypatch.setattr(database, "MIGRATIONS", half)
    with pytest.raises(OutboxBrokenError, match="NONSENSE"):
        build().start()
    whole = (*schema.MIGRATIONS, ("CREATE TABLE extra (a INTEGER) STRICT",))
    monkeypatch.setattr(database, "MIGRATIONS", whole)
    for _ in range(2):
        assert reopen().status().pending == 1


def test_a_queue_of_the_first_version_is_taken_over(reopen, build, punches, path, monkeypatch):
    """What waits in an older kiosk's file is sent by the newer one, which then owns the file."""
    monkeypatch.setattr(database, "MIGRATIONS", schema.MIGRATIONS[:1])
    monkeypatch.setattr(Ledger, "bind", lambda *_: None)
    old = build()
    old.start()
    punch = punches.make()
    old.put(punch)
    old.close(10.0)
    monkeypatch.undo()
    assert reopen().lease(1)[0].event_id == punch.event_id
    with pytest.raises(OutboxError, match=r"device\.secret"):
        reopen(vault=Vault(bytes(32)))


@pytest.mark.parametrize("other", [{"vault": Vault(bytes(32))}, {"device_id": "another"}])
def test_a_queue_of_another_device_is_not_opened(reopen, build, punches, other):
    """Another secret opens none of its events, another id sends them as another kiosk's.

    The start is refused by name, nothing is set aside, and with the right one all is there.
    """
    reopen().put(punches.make())
    reopen().close(10.0)
    name = "device.secret" if "vault" in other else "device.id"
    with pytest.raises(OutboxError, match=f"expected the {name} .* restore {name}"):
        build(**other).start()
    status = reopen().status()
    assert (status.pending, status.quarantined) == (1, 0)


def test_the_gallery_mark_is_kept_and_cannot_be_written_by_hand(reopen, ask):
    """0 until the first; the last one after a restart; a changed one is an error, not a number."""
    outbox = reopen()
    assert outbox.gallery_mark() == 0
    for number in (4, 7):
        outbox.mark_gallery(number)
    outbox = reopen()
    assert outbox.gallery_mark() == 7
    ask(outbox, "UPDATE device SET gallery_mark = zeroblob(40)")
    with pytest.raises(VaultError):
        outbox.gallery_mark()
