"""What the store promises: on the disk before the reply, private, once, and nobody else's file."""

import sqlite3
import stat
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from kiosk.errors import UserError
from kiosk.server.store import Store, StoreError, path_of
from kiosk.server.tables import PRAGMAS, VERSION, Filter, Record
from kiosk.types import ReceiptStatus

RECORD = Record(
    event_id="e",
    device="d",
    body_sha256=b"1" * 32,
    employee="anna",
    claimed="anna",
    matched=None,
    similarity=None,
    kind=None,
    seen="2026-01-02T03:04:05.678Z",
    earliest=None,
    latest=None,
    score=None,
    quality=None,
    liveness=None,
    space=None,
    clock=None,
    seq=None,
    signed=False,
    disagrees=False,
    embedding=None,
)


def test_a_commit_is_on_the_disk_before_it_returns(store):
    """Write-ahead log and synchronous=FULL (2), on the very connection that writes."""
    values = [store._rows(f"PRAGMA {name}")[0][name] for name in ("journal_mode", "synchronous")]
    assert values == ["wal", 2]


def test_a_second_reader_sees_the_record_as_soon_as_it_is_promised(store, tmp_path):
    """What `record` returned for is committed: another connection finds it."""
    assert store.record([RECORD]) == [ReceiptStatus.OK]
    other = sqlite3.connect(tmp_path / "attendance.db")
    assert other.execute("SELECT event_id FROM attendance").fetchall() == [("e",)]
    other.close()


def test_keys_are_in_a_file_that_only_its_owner_reads(store, tmp_path):
    """Mode 0600 for the file and what SQLite puts beside it."""
    store.register_key("d", "k", b"x" * 32)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert "attendance.db-wal" in modes
    assert set(modes.values()) == {0o600}


def test_a_looser_mode_of_our_own_file_is_tightened(tmp_path, clock):
    """Once it proved to be ours, with the log that SQLite made meanwhile in the same mode."""
    path = tmp_path / "a.db"
    Store(path, clock=clock).close()
    path.chmod(0o644)
    again = Store(path, clock=clock)
    again.register_key("d", "k", b"x" * 32)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    again.close()
    assert "a.db-wal" in modes
    assert set(modes.values()) == {0o600}


def test_a_deleted_face_leaves_the_files_pages(store, tmp_path):
    """secure_delete: what was a face is overwritten, not only unlinked from its table."""
    # Asked for by name: some builds of SQLite have it by default, others do not.
    assert "secure_delete = ON" in PRAGMAS
    assert store._rows("PRAGMA secure_delete") == [{"secure_delete": 1}]
    vector = np.random.default_rng(1).standard_normal(192).astype("<f4")
    store.add_faces("anna", "space", [vector])
    store._rows("PRAGMA wal_checkpoint(TRUNCATE)")
    file = tmp_path / "attendance.db"
    assert vector.tobytes()[:256] in file.read_bytes()
    store.remove_employee("anna")
    store._rows("PRAGMA wal_checkpoint(TRUNCATE)")
    assert vector.tobytes()[:256] not in file.read_bytes()


@pytest.mark.parametrize("content", ["a diary\n" * 300, None])
def test_a_file_that_is_not_ours_is_left_as_it_was(tmp_path, clock, content):
    """Neither a text nor another program's database loses a byte or a bit of its mode."""
    path = tmp_path / "theirs"
    if content is None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE diary (line TEXT)")
            other.commit()
    else:
        path.write_text(content)
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(UserError, match="theirs"):
        Store(path, clock=clock)
    assert (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) == (0o644, before)


def test_the_file_is_found_again(tmp_path, clock):
    """Records, faces and keys survive a restart, and an event stays unique for ever."""
    for expected in (ReceiptStatus.OK, ReceiptStatus.DUPLICATE, ReceiptStatus.DUPLICATE):
        store = Store(tmp_path / "a.db", clock=clock)
        store.register_key("d", "k", b"x" * 32)
        assert store.record([RECORD]) == [expected]
        store.close()
    store = Store(tmp_path / "a.db", clock=clock)
    assert store.record([replace(RECORD, body_sha256=b"2" * 32)]) == [ReceiptStatus.REJECTED]
    assert store.keys("d") == {"k": b"x" * 32}
    store.close()


def test_a_full_disk_records_nothing_and_says_so(store):
    """The transaction is rolled back as a whole, and the store goes on once there is space."""
    store._rows("PRAGMA max_page_count = 1")
    (size,) = store._rows("PRAGMA max_page_count")
    store._rows("PRAGMA wal_checkpoint(TRUNCATE)")
    large = replace(RECORD, event_id="large", embedding=bytes(1_000_000))
    with pytest.raises(StoreError, match="full"):
        store.record([large])
    before = len(store.attendance(Filter(), limit=1000))
    store._rows("PRAGMA max_page_count = 100000")
    assert size["max_page_count"] < 100_000
    assert store.record([RECORD]) == [ReceiptStatus.OK]
    assert len(store.attendance(Filter(), limit=1000)) == before + 1


def test_another_program_s_file_is_left_alone(tmp_path, clock):
    """A database that is not ours, or of a later version, is refused and not changed."""
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE precious (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="another program"):
        Store(path, clock=clock)
    assert path.read_bytes() == before
    Store(tmp_path / "a.db", clock=clock).close()
    later = sqlite3.connect(tmp_path / "a.db")
    later.execute(f"PRAGMA user_version = {VERSION + 1}")
    later.close()
    with pytest.raises(UserError, match=f"version {VERSION + 1}"):
        Store(tmp_path / "a.db", clock=clock)


def test_what_cannot_be_a_store_is_refused_by_name(tmp_path, clock):
    """No such folder, a folder, a text: one error that names the path."""
    text = tmp_path / "text.db"
    text.write_text("no database, and longer than a header of a hundred bytes " * 3)
    for path in (tmp_path / "none" / "a.db", tmp_path, text):
        with pytest.raises(UserError, match=path.name):
            Store(path, clock=clock)


@pytest.mark.parametrize("url", ["postgresql://host/db", "sqlite://a.db", "a.db", "sqlite:///"])
def test_only_sqlite_urls_are_stores(url):
    """Other schemes are refused by name."""
    with pytest.raises(UserError, match="sqlite:///PATH"):
        path_of(url)
    assert str(path_of("sqlite:////var/a.db")) == "/var/a.db"
    assert str(path_of("sqlite:///a.db")) == "a.db"
