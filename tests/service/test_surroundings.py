"""Surroundings that go bad under the service: no room in /run, a read-only disk, no journal."""

import pytest


@pytest.fixture
def stopped(site):
    """A machine whose kiosk is stopped before and after."""
    site.machine.run("systemctl", "stop", "kiosk.service")
    yield site
    site.machine.run("systemctl", "stop", "kiosk.service", check=False)
    site.machine.run("systemctl", "reset-failed", check=False)


def test_a_full_run_does_not_keep_it_from_starting(stopped):
    """What lies there is a convenience, but for the socket, which takes no space."""
    machine = stopped.machine
    machine.run("sh", "-c", "dd if=/dev/zero of=/run/filler bs=64k 2>/dev/null; true")
    try:
        machine.run("systemctl", "start", "kiosk.service", check=False)
        stopped.ready()
        assert stopped.status()["state"] in ("running", "degraded")
    finally:
        machine.run("rm", "-f", "/run/filler")


def test_a_read_only_state_is_named_and_over_by_itself(stopped):
    """The start fails with what to do; once the disk can be written, a restart finds it so."""
    machine = stopped.machine
    machine.run("systemctl", "start", "kiosk.service")
    machine.run("systemctl", "stop", "kiosk.service")
    # A folder of the service that is a mount of its own, and read-only.
    machine.run("mount", "--bind", "/var/lib/kiosk", "/var/lib/kiosk")
    machine.run("mount", "-o", "remount,bind,ro", "/var/lib/kiosk")
    try:
        machine.run("systemctl", "start", "--no-block", "kiosk.service")
        machine.until(
            "the reason",
            lambda: [
                entry
                for entry in machine.journal("-u", "kiosk", "-p", "err")
                if "Read-only" in str(entry) or "read-only" in str(entry)
            ],
        )
    finally:
        machine.run("umount", "/var/lib/kiosk")
    stopped.ready()


def test_without_a_journal_it_works_all_the_same(stopped):
    """Nobody reads its lines: punches go on, and the control socket answers."""
    machine = stopped.machine
    sockets = ("systemd-journald.socket", "systemd-journald-dev-log.socket")
    machine.run("systemctl", "start", "kiosk.service")
    machine.run("systemctl", "stop", *sockets, "systemd-journald.service", check=False)
    try:
        before = stopped.status()["counts"].get("frames", 0)
        machine.until(
            "frames without a journal",
            lambda: stopped.status()["counts"].get("frames", 0) > before + 20,
        )
    finally:
        machine.run("systemctl", "start", *sockets, "systemd-journald.service")
