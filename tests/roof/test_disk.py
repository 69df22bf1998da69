"""The disk under the daemon: it fails, it is full, it was full; what the person and status say."""

import contextlib
import os
import resource
import subprocess
import threading
from types import SimpleNamespace

import pytest

from kiosk.upkeep import Upkeep

ALWAYS = "[recognition]\nrepeat_window_s = 0\nvisit_gap_s = 0.5\n"


@pytest.fixture
def visits(daemon, people):
    """A daemon before which the same person appears again and again."""
    daemon.write("http://127.0.0.1:9", extra=ALWAYS, replay=[people / "obama.jpg", daemon.frames])
    assert daemon.cli("enrol", "obama", str(people / "obama.jpg")).returncode == 0
    return daemon


def test_a_disk_that_fails_ends_the_daemon_and_nothing_more_is_called_recorded(visits):
    """EFBIG at a write: told as cannot record, status 1 for systemd; what was said is there."""
    visits.start()
    first = visits.read_until("visit.recorded")
    # From here on the system refuses every write to a file, as a failed card does.
    resource.prlimit(visits.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    said = "".join(visits.process.stderr)
    assert visits.process.wait(60) == 1
    assert "thread.failed" in said
    assert "uncertain" in said
    recorded = [line for line in [first, *said.splitlines()] if "visit.recorded" in line]
    visits.write("http://127.0.0.1:9")
    assert visits.json("outbox", "status")["pending"] >= len(recorded)


def test_a_failed_sync_ends_the_daemon(visits):
    """EIO from the sync of a commit: not recorded, and the process ends, for pages may be lost."""
    visits.start()
    visits.read_until("visit.recorded")
    command = ["strace", "-f", "-qq", "-o", str(visits.folder / "trace"), "-e", "trace=fdatasync"]
    command += ["-e", "inject=fdatasync:error=EIO", "-p", str(visits.process.pid)]
    try:
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    said = "".join(visits.process.stderr)
    status = visits.process.wait(60)
    _, refused = tracer.communicate(timeout=60)
    if "ermitted" in refused:
        pytest.skip(f"strace may not trace here: {refused}")
    assert status == 1
    assert "SQLITE_IOERR_FSYNC" in said
    after = said[said.index("SQLITE_IOERR_FSYNC") :]
    assert "visit.recorded" not in after


STATE = ("device.id", "device.secret", "gallery.sealed", "outbox.db", "outbox.mark")


@pytest.fixture
def full_disk(visits):
    """The daemon's state on a file system of 32 MB, which another program has filled."""
    if os.geteuid() != 0:
        pytest.skip("to mount a file system takes root")
    state = visits.folder / "state"
    kept = {name: (state / name).read_bytes() for name in STATE}
    command = ["mount", "-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs", str(state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mount: {done.stderr}")
    for name, data in kept.items():
        (state / name).write_bytes(data)
        (state / name).chmod(0o600)
    other = state / "other"
    with other.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    yield other
    if visits.process.poll() is None:
        visits.process.kill()
        visits.process.wait(60)
    subprocess.run(["umount", str(state)], check=True)


def test_a_full_disk_is_told_everywhere_and_over_by_itself(visits, full_disk):
    """Person, journal, status and doctor say "cannot record" while it is so; then it records.

    The daemon stays up: it starts on a disk on which nothing could be kept for this case.
    """
    visits.start(wait_for="visit.cannot_record")
    status = visits.json("status")
    assert status["state"] == "cannot record"
    assert "no space left" in status["cannot_record"]
    assert status["disk"]["used"] > 0.99
    assert "cannot record" in visits.cli("status").stdout
    assert "failed  disk: " in visits.cli("doctor").stdout
    said = "".join(visits.said)
    assert "outbox.cannot_record" in said
    assert "visit.recorded" not in said
    full_disk.unlink()
    visits.read_until("outbox.records_again")
    visits.read_until("visit.recorded")
    assert visits.json("status")["state"] == "running"
    assert visits.stop() == 0
    assert visits.json("outbox", "status")["pending"] > 0


class Kept:
    """A queue that says what the test wants."""

    def __init__(self, states, stop):
        self.states, self.stop = list(states), stop
        self.cannot_record = ""

    def tend(self):
        self.cannot_record = self.states.pop(0)
        if not self.states:
            self.stop.set()
        return False

    def status(self):
        return SimpleNamespace(pending=len(self.states))


def test_the_screen_rests_on_what_is_true():
    """Told once when nothing can be recorded any more, and once when it can again."""
    stop, told, waited = threading.Event(), [], []
    screen = type("Screen", (), {"cannot_record": staticmethod(told.append)})
    clock = type("Clock", (), {"wait": staticmethod(lambda _, seconds: waited.append(seconds))})
    Upkeep(Kept(["", "full", "full", "", ""], stop), screen, clock=clock, beat=lambda *_: None).run(
        stop
    )
    assert told == [True, False]
    assert waited == [1.0] * 5
