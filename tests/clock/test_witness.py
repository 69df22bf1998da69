"""Who may say that the wall clock is right, and when that stops being true."""

import ctypes
import errno
import os
import subprocess
import sys

import pytest

from kiosk import clock
from kiosk.clock import SystemClock, Witness, comparable, elapsed_s, has_rtc, time_service
from kiosk.types import Stamp, Trust

S = 1_000_000_000


@pytest.fixture
def file(tmp_path):
    """timesyncd's file, just touched."""
    path = tmp_path / "synchronized"
    path.touch()
    return path


def test_without_the_kernel_the_file_vouches_until_the_clock_is_stepped(file):
    """A clock set by hand moves wall time against time since boot; the file knows nothing of it."""
    witness = Witness(file, ask_kernel=False)
    assert witness.vouches(5 * S)
    assert witness.vouches(5 * S + 10_000_000)
    assert not witness.vouches(5 * S + S)
    assert not witness.vouches(5 * S - 3600 * S)
    os.utime(file, ns=(1, 1))
    assert witness.vouches(5 * S + S)


def test_without_kernel_and_file_nobody_vouches(tmp_path, file):
    """Absent, or taken away again."""
    assert not Witness(tmp_path / "none", ask_kernel=False).vouches(0)
    witness = Witness(file, ask_kernel=False)
    assert witness.vouches(0)
    file.unlink()
    assert not witness.vouches(0)


@pytest.mark.parametrize("status", [0x2001, 0x0040, 0x0041])
def test_the_kernels_mark_decides_where_it_may_be_asked(file, monkeypatch, status):
    """STA_UNSYNC is lost by a clock that is set by hand; the file alone would still vouch."""

    class Kernel:
        def adjtimex(self, timex):
            ctypes.memmove(ctypes.addressof(timex) + 40, status.to_bytes(4, "little"), 4)
            return 0

    monkeypatch.setattr(clock, "_LIBC", Kernel())
    assert Witness(file).vouches(0) is not bool(status & 0x40)


def test_the_kernels_answer_is_read_where_it_stands():
    """The same bits as a C program's, or a refusal as under ProtectClock=."""
    code = (
        "import ctypes, sys; libc = ctypes.CDLL(None, use_errno=True);"
        "words = (ctypes.c_long * 26)(); state = libc.adjtimex(words);"
        "print('refused' if state < 0 else int(not words[5] & 0xffffffff & 0x40))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    said = {"refused": None, "1": True, "0": False}[done.stdout.strip()]
    assert clock._kernel_synced() is said


def test_a_refused_question_falls_back_to_the_file(file, monkeypatch):
    """seccomp answers EPERM; that is no word about the clock."""

    class Refusing:
        def adjtimex(self, _):
            ctypes.set_errno(errno.EPERM)
            return -1

    monkeypatch.setattr(clock, "_LIBC", Refusing())
    assert Witness(file).vouches(0)


def test_the_stamp_carries_the_mark(tmp_path, file):
    """Wall time rounded down, time since boot, the boot's id, and who vouches."""
    boot = tmp_path / "boot_id"
    boot.write_text("b-1\n")
    vouched = SystemClock(boot, Witness(file, ask_kernel=False)).now()
    assert (vouched.boot_id, vouched.trust) == ("b-1", Trust.SYNCED)
    alone = SystemClock(boot, Witness(tmp_path / "none", ask_kernel=False)).now()
    assert alone.trust is Trust.UNSYNCED
    assert alone.boottime_ns >= vouched.boottime_ns


def test_a_time_service_is_found_by_its_folder(tmp_path, monkeypatch):
    """timesyncd and chrony each make one below /run while they are at work."""
    monkeypatch.setattr(clock, "_SERVICES", (tmp_path / "none", tmp_path))
    assert time_service() == str(tmp_path)
    monkeypatch.setattr(clock, "_SERVICES", (tmp_path / "none",))
    assert time_service() == ""
    monkeypatch.setattr(clock, "_RTC", tmp_path)
    assert has_rtc()
    monkeypatch.setattr(clock, "_RTC", tmp_path / "none")
    assert not has_rtc()


@pytest.mark.parametrize("trust", list(Trust))
def test_across_boots_only_proven_times_compare(trust):
    """Within one boot time since boot is enough, whatever the clock said."""
    here = Stamp(100_000, 10 * S, "b-1", trust)
    later = Stamp(5_000, 70 * S, "b-1", Trust.UNSYNCED)
    assert comparable(here, later)
    assert elapsed_s(here, later) == 60.0
    other = Stamp(130_000, S, "b-2", Trust.SYNCED)
    assert comparable(here, other) is (trust in {Trust.SYNCED, Trust.CORRECTED})
    assert elapsed_s(here, other) == 30.0


def test_a_restart_does_not_vouch_for_a_clock_set_by_hand(tmp_path):
    """The offset of the first look at a synchronisation is kept below /run; without it, trusted."""
    file, memory = tmp_path / "synchronized", tmp_path / "memory"
    file.touch()
    assert Witness(file, ask_kernel=False, memory=memory).vouches(0)
    day_ns = 86_400 * 10**9
    assert not Witness(file, ask_kernel=False, memory=memory).vouches(day_ns)
    assert Witness(file, ask_kernel=False).vouches(day_ns)
    os.utime(file, ns=(1, 1))
    assert Witness(file, ask_kernel=False, memory=memory).vouches(day_ns)


def test_a_memory_that_says_something_else_is_none(tmp_path):
    """Whatever lies there, or where nothing can be written: the kiosk starts."""
    file, memory = tmp_path / "synchronized", tmp_path / "memory"
    file.touch()
    memory.write_text("x")
    assert Witness(file, ask_kernel=False, memory=memory).vouches(5)
    assert Witness(file, ask_kernel=False, memory=tmp_path / "no" / "where").vouches(5)
