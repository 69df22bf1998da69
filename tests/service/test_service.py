"""The unit as shipped, under a real systemd: ready, sandboxed, restarted, telling its story."""

import re

import pytest

from service.conftest import PEOPLE, PORT
from service.machine import REPOSITORY


@pytest.fixture(scope="module")
def running(site):
    """The site with a person enrolled and the service ready."""
    site.serve()
    site.machine.run("systemctl", "start", "kiosk-check.timer", "kiosk.service")
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


def test_figures_can_be_kept_where_the_sandbox_lets_it_write(running):
    """In its own folder below /run, which a collector of its group may read."""
    machine = running.machine
    machine.until("the figures", lambda: machine.exists("/run/kiosk/kiosk.prom"))
    modes = machine.run("stat", "-c", "%a %U %G", "/run/kiosk", "/run/kiosk/kiosk.prom").stdout
    assert modes.splitlines() == ["750 kiosk kiosk", "644 kiosk kiosk"]


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


def test_the_daily_check_asks_the_running_daemon(running):
    """Under its own sandbox, without network, database or camera; a stopped kiosk is not asked."""
    machine = running.machine
    machine.run("systemctl", "start", "kiosk-check.service")
    (entry,) = [e for e in machine.journal("-u", "kiosk-check") if "every event is there" in str(e)]
    assert entry["MESSAGE"].startswith("running: ")
    told = machine.run("systemd-analyze", "security", "kiosk-check.service", check=False).stdout
    assert float(told.rsplit("kiosk-check.service:", 1)[1].split()[0]) <= 1.3
    assert "kiosk-check.timer" in machine.run("systemctl", "list-timers", "--all").stdout


def test_the_catalogue_explains(running):
    """`journalctl -x` has cause and cure beside the line."""
    machine = running.machine
    machine.run("journalctl", "--update-catalog")
    told = machine.run("journalctl", "-x", "--no-pager", "-u", "kiosk").stdout
    assert "Subject: The kiosk is ready" in told
    assert "Subject: The kiosk starts, after: killed" in told
    assert "Read the lines before this" in told


def test_the_server_hears_the_heart(running):
    """How the kiosk stands, at the server, without anybody asking the kiosk."""
    machine = running.machine
    code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{PORT}/devices').read())"

    def heard():
        python = "/opt/kiosk/current/venv/bin/python"
        return "running" in machine.run(python, "-c", code).stdout

    machine.until("a heartbeat", heard)


ONE_LINERS = re.findall(
    r"^journalctl [^\n#]+", (REPOSITORY / "docs/operations.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize("line", ONE_LINERS)
def test_each_line_of_the_page_runs(running, line):
    """Every journalctl line of docs/operations.md, against this journal."""
    assert running.machine.run("sh", "-c", f"{line} --no-pager").returncode == 0


def test_the_page_has_lines():
    """The page is read at all."""
    assert len(ONE_LINERS) >= 8


def test_a_start_may_ask_for_the_time_that_a_salvage_takes(running):
    """The unit's own 90 s would end a start that has years of events to take over."""
    source = (REPOSITORY / "kiosk/app.py").read_text()
    assert "self._notifier.takes(_SALVAGE_S)" in source
    assert running.machine.property("kiosk", "TimeoutStartUSec") == "1min 30s"
