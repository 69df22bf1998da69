"""A full disk, a failing disk, a hanging disk: what the caller is told, and what is on disk."""

import errno
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kiosk.errors import OutboxBrokenError, OutboxError, OutboxFullError
from kiosk.types import Receipt, ReceiptStatus

# A hang detector: five times what a slow machine would need.
HANG_S = 25.0


def fill(outbox, punches):
    for _ in range(100):
        outbox.put(punches.make())


def test_a_full_disk_records_nothing_and_breaks_nothing(outbox, punches, ask):
    """SQLITE_FULL: rolled back, told by name, no number lost; with space it goes on."""
    outbox.put(punches.make())
    ((pages,),) = ask(outbox, "PRAGMA page_count")
    ask(outbox, f"PRAGMA max_page_count = {pages + 2}")
    for _ in range(2):
        with pytest.raises(OutboxFullError, match="nothing was recorded"):
            fill(outbox, punches)
    recorded = outbox.status().pending
    ask(outbox, "PRAGMA max_page_count = 100000")
    assert outbox.put(punches.make()).endswith(f":{recorded + 1}")
    lease = outbox.lease(1)[0]
    outbox.settle(lease.event_id, Receipt(ReceiptStatus.OK, 0.0))
    assert outbox.status().pending == recorded
    assert ask(outbox, "PRAGMA integrity_check") == [("ok",)]


CHILD = """
import resource, sys
sys.path.insert(0, sys.argv[2])
import punching
from pathlib import Path
from kiosk.errors import OutboxBrokenError
from kiosk.outbox.store import Outbox
from kiosk.vault import Vault

clock = punching.StillClock()
punches = punching.Punches(clock)
path = Path(sys.argv[1])
outbox = Outbox(path, vault=Vault(bytes(range(32))), device_id=punching.DEVICE, signer=None,
                clock=clock)
outbox.start()
print(outbox.put(punches.make()))
size = path.with_name(path.name + "-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 6000, resource.RLIM_INFINITY))
for attempt in range(2):
    try:
        outbox.put(punches.make())
    except OutboxBrokenError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    outbox.put(punches.make())
except OutboxBrokenError as error:
    print("still refused")
"""


def test_a_failing_write_stops_everything(path, reopen):
    """An I/O error: not recorded, and refused from then on even if the disk seems well again.

    The failure is the operating system's own (EFBIG at the n-th byte of the log). The next
    process finds exactly what was acknowledged, and numbers anew: the last one was given out.
    """
    command = [sys.executable, "-c", CHILD, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    acknowledged, first, second, third = done.stdout.splitlines()
    assert "SQLITE_IOERR_WRITE" in first
    assert "uncertain" in first
    assert first == second
    assert third == "still refused"
    outbox = reopen()
    assert outbox.status().pending == 1
    assert outbox.lease(1)[0].seq == acknowledged
    assert outbox.status().epoch != acknowledged.split(":")[0]


def test_the_limit_of_the_test_above_bites(tmp_path):
    """Without an error the test above would prove nothing: the limit really fails writes."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10, -1));"
        "open(sys.argv[1], 'wb', 0).write(b'x' * 10); open(sys.argv[1], 'ab', 0).write(b'x')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert f"Errno {errno.EFBIG}" in done.stderr
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_hanging_disk_is_noticed(build, punches, monkeypatch):
    """No answer within the deadline is an error, never a wait for ever; nothing is called done."""
    outbox = build()
    outbox.start()
    monkeypatch.setattr(outbox._owner, "_deadline_s", 0.2)
    release = threading.Event()
    outbox._owner._hand_in(lambda: release.wait(HANG_S))
    with pytest.raises(OutboxBrokenError, match=r"within 0\.2 s") as caught:
        outbox.put(punches.make())
    assert "was not recorded" in caught.value.hint
    with pytest.raises(OutboxBrokenError, match="expected the outbox to end"):
        outbox.close(0.1)
    release.set()
    outbox.close(HANG_S)


def test_what_was_given_up_before_it_began_is_never_done(build, reopen, punches, monkeypatch):
    """A put that was told "not recorded" must not be recorded afterwards."""
    outbox = build()
    outbox.start()
    monkeypatch.setattr(outbox._owner, "_deadline_s", 0.2)
    release = threading.Event()
    outbox._owner._hand_in(lambda: release.wait(HANG_S))
    with pytest.raises(OutboxBrokenError):
        outbox.put(punches.make())
    release.set()
    outbox.close(HANG_S)
    assert reopen().status().highest == 0


def test_every_call_after_close_is_named(outbox, punches):
    """A closed outbox says so, whatever is asked of it."""
    outbox.close(HANG_S)
    calls = (
        lambda: outbox.put(punches.make()),
        lambda: outbox.last_recorded("E-1", None),
        lambda: outbox.lease(1),
        lambda: outbox.settle("x", Receipt(ReceiptStatus.OK, 0.0)),
        lambda: outbox.quarantine("x", "y"),
        outbox.status,
    )
    for call in calls:
        with pytest.raises(OutboxError, match="it is closed"):
            call()


def test_before_start_nothing_is_taken(build, punches):
    """Nor is one that was not opened yet; closing it is no error."""
    outbox = build()
    with pytest.raises(OutboxError, match="it is closed"):
        outbox.put(punches.make())
    outbox.close(1.0)


def test_closing_twice_is_closing_once(outbox):
    """Whoever ends the daemon need not know who else does."""
    outbox.close(HANG_S)
    outbox.close(HANG_S)
    assert not outbox._owner._thread.is_alive()
