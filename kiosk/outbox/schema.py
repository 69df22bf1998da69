"""The file of the outbox: its settings, its tables, and how one version becomes the next.

Every event has one small row in `event` for ever, so that its id stays unique and its number
accounted for. What is large and personal lies beside it in `waiting`, or in `quarantine` once it
was set aside, and is deleted when the server has the event: freed pages hold the next ones, and
neither a lease nor a status ever looks at settled rows.
"""

from __future__ import annotations

APPLICATION_ID = 0x4B51_4F42
"""Marks the file as an outbox (`PRAGMA application_id`)."""

PAGE_BYTES = 1024

LOCKING_MODE = ("locking_mode", "EXCLUSIVE", "exclusive")
"""Set before anything is read: then WAL needs no shared-memory file and admits no second opener."""

PRAGMAS: tuple[tuple[str, str, object], ...] = (
    # name, value to set, what must be read back
    # A commit writes whole pages to the log: with small ones a punch costs 9 KB of the card's
    # life instead of 22.
    ("page_size", str(PAGE_BYTES), PAGE_BYTES),
    # Freed pages stay until they are given back in small steps; only a new file takes this.
    ("auto_vacuum", "INCREMENTAL", 2),
    ("journal_mode", "WAL", "wal"),
    # The log is folded in by `Database`: SQLite's own way swallows the error of a failed sync.
    ("wal_autocheckpoint", "0", 0),
    # What the log has taken of the disk it keeps.
    ("journal_size_limit", "-1", -1),
    ("synchronous", "FULL", 2),
    ("secure_delete", "ON", 1),
    ("foreign_keys", "ON", 1),
    ("trusted_schema", "OFF", 0),
    ("cell_size_check", "ON", 1),
    ("mmap_size", "0", 0),
    ("temp_store", "MEMORY", 2),
)

TABLES = (
    "epoch",
    "boot",
    "good_time",
    "event",
    "waiting",
    "quarantine",
    "last_punch",
    "device",
    "reserve",
    "reader",
)
"""Every table, in no order that matters."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        # The newest epoch is the one that gives numbers. A stored counter, not AUTOINCREMENT or
        # max(): a write-ahead log damaged in the middle is cut without a word, and numbers that
        # the server has seen must not be given again without a new epoch.
        """
        CREATE TABLE epoch (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE CHECK (length(name) = 8),
            highest INTEGER NOT NULL DEFAULT 0,
            queued INTEGER NOT NULL DEFAULT 0 CHECK (queued >= 0),
            quarantined INTEGER NOT NULL DEFAULT 0 CHECK (quarantined >= 0),
            settled INTEGER NOT NULL DEFAULT 0 CHECK (settled >= 0),
            CHECK (queued + quarantined + settled <= highest)
        ) STRICT
        """,
        "INSERT INTO epoch (name) VALUES (lower(hex(randomblob(4))))",
        """
        CREATE TABLE boot (
            id INTEGER PRIMARY KEY,
            boot_id TEXT NOT NULL UNIQUE
        ) STRICT
        """,
        # `position` is the order of recording. Rows are never deleted, so it never repeats.
        """
        CREATE TABLE event (
            position INTEGER PRIMARY KEY,
            event_id BLOB NOT NULL UNIQUE CHECK (length(event_id) = 16),
            epoch INTEGER NOT NULL REFERENCES epoch (id),
            number INTEGER NOT NULL CHECK (number > 0),
            utc_ms INTEGER NOT NULL,
            boottime_ns INTEGER NOT NULL,
            boot INTEGER NOT NULL REFERENCES boot (id),
            trust TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'queued'
                CHECK (state IN ('queued', 'settled', 'quarantined')),
            attempts INTEGER NOT NULL DEFAULT 0,
            body_sha256 BLOB CHECK (length(body_sha256) = 32),
            answer TEXT
        ) STRICT
        """,
        # A sealed draft until the first lease, the sealed frozen body from then on.
        """
        CREATE TABLE waiting (
            position INTEGER PRIMARY KEY REFERENCES event (position),
            draft BLOB,
            body BLOB,
            CHECK ((draft IS NULL) <> (body IS NULL))
        ) STRICT
        """,
        """
        CREATE TABLE quarantine (
            position INTEGER PRIMARY KEY REFERENCES event (position),
            draft BLOB,
            body BLOB,
            reason TEXT NOT NULL,
            CHECK ((draft IS NULL) <> (body IS NULL))
        ) STRICT
        """,
        # Who is a keyed hash; one row for a person and direction ('' for none), not a history.
        """
        CREATE TABLE last_punch (
            employee_tag BLOB NOT NULL,
            kind TEXT NOT NULL,
            position INTEGER NOT NULL REFERENCES event (position),
            PRIMARY KEY (employee_tag, kind)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        # Whose queue this is: keyed hashes of the secret and the device id that it is sealed
        # under. The gallery's newest number lies here too, sealed: whoever puts an older gallery
        # back would have to put the whole queue back with it, and the server sees that.
        """
        CREATE TABLE device (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            secret_check BLOB NOT NULL CHECK (length(secret_check) = 16),
            device_check BLOB NOT NULL CHECK (length(device_check) = 16),
            gallery_mark BLOB
        ) STRICT
        """,
        "ALTER TABLE quarantine ADD COLUMN utc_ms INTEGER",
    ),
    (
        # Whether that boot's board had a clock that runs while it is off; NULL: not noted.
        "ALTER TABLE boot ADD COLUMN rtc INTEGER",
        # Moments in which the clock was synchronised: what dates and bounds the events of boots
        # and hours in which it was not.
        """
        CREATE TABLE good_time (
            boot INTEGER NOT NULL REFERENCES boot (id),
            boottime_ns INTEGER NOT NULL,
            utc_ms INTEGER NOT NULL,
            tag BLOB NOT NULL CHECK (length(tag) = 16),
            PRIMARY KEY (boot, boottime_ns)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        # Nothing but room: a row is deleted when the disk is full, and its pages hold punches.
        """
        CREATE TABLE reserve (
            id INTEGER PRIMARY KEY,
            filler BLOB NOT NULL
        ) STRICT
        """,
    ),
    (
        # A release is rolled back with its queue as it is. A version that only adds (tables,
        # columns with a default) leaves `least` as it stands, and the release before goes on with
        # the file; one that cannot raises it, and is then the only one.
        """
        CREATE TABLE reader (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            least INTEGER NOT NULL
        ) STRICT
        """,
        "INSERT INTO reader VALUES (1, 5)",
    ),
)
"""The statements of each version; `PRAGMA user_version` says how many versions were applied."""
