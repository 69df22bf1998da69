"""The unit as shipped, under a real systemd: ready, sandboxed, restarted, telling its story."""

import pytest

from service.conftest import PEOPLE


@pytest.fixture(scope="module")
def running(site):
    """The site with a person enrolled and the service ready."""
    site.serve()
    site.machine.run("systemctl", "start", "kiosk.service")
    site.ready()
    enrol = ("enrol", "obama", f"{PEOPLE}/obama.jpg", "--config", "/etc/kiosk/kiosk.toml")
    site.machine.kiosk(*enrol)
    return site


def test_a_walk_up_is_recorded_under_every_line_of_the_unit(running):
    """Frame to server with all of the sandbox in force, and a status that a person can read."""
    machine = running.machine
    machine.until("a punch at the server", lambda: "outbox.settled" in machine.events())
    assert "visit.recorded" in machine.events()
    line = machine.until(
        "a line that a person can read",
        lambda: (
            (line := machine.property("kiosk", "StatusText")).endswith(
                "server answers; 0 waiting to be sent"
            )
            and line
        ),
    )
    assert line.startswith("running; camera running; mobilefacenet-")


def test_the_service_has_the_least_rights(running):
    """Its own user, no capability, no new privileges, a system call filter, nothing to write in."""
    machine = running.machine
    pid = machine.pid("kiosk")
    told = machine.run("cat", f"/proc/{pid}/status").stdout
    status = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["990"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    inside = ("nsenter", "-t", pid, "-m", "-U", "--")
    for path in ("/etc/kiosk/x", "/usr/x", "/var/x", "/home/x", "/opt/x"):
        assert machine.run(*inside, "touch", path, check=False).returncode != 0
    assert machine.run("stat", "-c", "%a %U", "/var/lib/kiosk").stdout.strip() == "700 kiosk"


def test_the_exposure_is_at_most_1_3(running):
    """systemd's own judgement of the units as they are loaded."""
    for unit, most in (("kiosk.service", 1.3),):
        told = running.machine.run("systemd-analyze", "security", unit, check=False).stdout
        exposure = float(told.rsplit("Overall exposure level for", 1)[1].split(":")[1].split()[0])
        assert exposure <= most, told


def test_the_journal_has_native_fields(running):
    """KIOSK_EVENT and the facts as fields, with the priority that the happening has."""
    (entry, *_) = running.machine.journal("KIOSK_EVENT=visit.recorded")
    assert entry["KIOSK_EMPLOYEE"] == "obama"
    assert entry["PRIORITY"] == "6"
    assert entry["_SYSTEMD_UNIT"] == "kiosk.service"
    assert entry["SYSLOG_IDENTIFIER"] == "kiosk"


def test_killed_it_is_back_and_loses_nothing(running):
    """SIGKILL: another process is ready, knows why it began, and has what was recorded."""
    machine, before = running.machine, running.machine.pid("kiosk")
    machine.run("systemctl", "kill", "--signal=SIGKILL", "kiosk.service")
    running.ready(other_than=before)
    assert running.status()["restarts"]["cause"] == "killed"
    assert machine.property("kiosk", "NRestarts") == "1"


def test_a_second_one_is_refused_by_name(running):
    """Started twice, the second says who holds the state, and the first goes on."""
    as_user = ("setpriv", "--reuid=990", "--regid=990", "--clear-groups")
    kiosk = ("/opt/kiosk/current/venv/bin/kiosk", "run", "--config", "/etc/kiosk/kiosk.toml")
    second = running.machine.run(*as_user, *kiosk, check=False)
    assert second.returncode == 1
    assert "/var/lib/kiosk is held by another process" in second.stderr
    assert running.status()["state"] == "running"


def test_a_stop_is_clean(running):
    """`systemctl stop` ends it within its time, with status 0; the next start knows it."""
    machine = running.machine
    machine.run("systemctl", "stop", "kiosk.service")
    assert machine.property("kiosk", "Result") == "success"
    machine.until("the last word", lambda: machine.events()[-1] == "kiosk.stopped")
    machine.run("systemctl", "start", "kiosk.service")
    assert running.status()["restarts"]["cause"] == "stopped"
