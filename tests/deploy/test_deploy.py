"""From a fresh card to a kiosk, to the next release and back: over ssh, under a real systemd."""

import subprocess
import time
from contextlib import contextmanager

import pytest

from deploy.site import until

LAST = "say(f\"{status['state']}, up {status['uptime_s']:.0f} s, version {status['version']}\")"


pytestmark = pytest.mark.usefixtures("deployed")


def test_a_fresh_pi_becomes_a_kiosk(site):
    """User, folders, sealed secret, service and its timer; what was done is said line by line."""
    assert "is healthy and stays" in site.said
    assert "device secret made here and sealed for this machine" in site.said
    assert site.machine.property("kiosk", "SubState") == "running"
    assert site.machine.property("kiosk-check.timer", "ActiveState") == "active"
    assert site.machine.run("systemctl", "is-enabled", "kiosk").stdout.strip() == "enabled"
    assert site.machine.run("id", "-un", "kiosk").stdout.strip() == "kiosk"
    modes = site.machine.run("stat", "-c", "%a %U", "/var/lib/kiosk", "/etc/credstore.encrypted")
    assert modes.stdout.split("\n")[:2] == ["700 kiosk", "700 root"]
    assert not site.machine.run("find", "/var/lib/kiosk", "-name", "device.secret").stdout
    # As the documents say it.
    assert site.machine.run("runuser", "-u", "kiosk", "--", "/usr/local/bin/kiosk", "status").stdout


@pytest.mark.parametrize("unit", ["kiosk", "kiosk-check", "kiosk-settle", "kiosk-reboot"])
def test_a_newer_systemd_finds_each_unit_as_safe(site, unit):
    """Trixie's judges by more than bookworm's; the exposure stays at most 1.3."""
    assert site.exposure(unit) <= 1.3


# Of what the daemon imports, the modules of the release and its libraries that are not compiled.
_UNCOMPILED = """
import os, sys
import kiosk.app
specs = [module.__spec__ for module in list(sys.modules.values()) if module.__spec__]
ours = [spec for spec in specs if spec.cached and spec.cached.startswith("/opt/kiosk/")]
print(len(ours), [spec.name for spec in ours if not os.path.exists(spec.cached)])
"""


def test_what_the_daemon_imports_is_compiled(site):
    """It may not write there, and would compile at every start."""
    python = "/opt/kiosk/current/venv/bin/python"
    count, _, uncompiled = site.machine.run(python, "-B", "-c", _UNCOMPILED).stdout.partition(" ")
    assert int(count) > 100
    assert uncompiled.strip() == "[]"


def test_the_pi_knows_who_deployed_what(site):
    """Who, from where, which commit, and what became of it."""
    (entry, *_) = site.history()
    head = site.checkout.git("rev-parse", "v1.0.0").stdout.decode().strip()
    assert (entry["commit"], entry["outcome"], entry["dirty"]) == (head, "kept", False)
    assert entry["release"] == f"1.0.0-{head[:10]}"
    assert entry["who"]
    assert entry["at"].endswith("Z")


def test_the_server_knows_the_new_kiosks_key(site):
    """Handed in by the kiosk itself for a one-time code, before its first message."""
    assert "knows the key 1 of" in site.said
    heard = until("a heartbeat", lambda: site.asked("/devices"))
    assert heard[0]["D1"] == site.status()["device"]


def test_modules_that_nothing_needs_are_named_and_left_alone(site):
    """A configuration without a Pi camera needs no picamera2."""
    assert "python3-picamera2: absent (not needed)" in site.said


def test_the_same_again_changes_nothing(site):
    """A second deploy of what runs says so, and the process is the same."""
    before = site.running()
    _, said = site.make("deploy")
    assert "nothing to do" in said
    assert site.running() == before


def test_a_code_is_handed_in_by_the_same_release_too(site):
    """A first deploy without one is mended by the same command with it: a wrong one is told."""
    before = site.running()
    status, said = site.make("deploy", "CODE=AAAA-AAAA-AAAA-AAAA", check=False)
    assert status != 0
    assert "expected the key to be taken, got status 403" in said
    assert "systemd-run" not in said
    assert site.running() == before


def test_what_wants_the_daemon_says_that_it_does_not_run(site):
    """Doctor opens the gallery with the service's secret; pictures have no one to go to."""
    site.machine.run("systemctl", "stop", "kiosk")
    _, said = site.make("doctor", check=False)
    picture = site.checkout.folder / "kiosk/demo/people/obama.jpg"
    status, told = site.make("enrol", "PERSON=anna", f"IMAGES={picture}", check=False)
    site.machine.run("systemctl", "start", "kiosk")
    assert "device.secret" not in said
    assert status != 0
    assert "expected the kiosk to run, it does not: sudo systemctl start kiosk" in told


def test_people_and_punches_survive_the_next_release(site):
    """Enrolled from here, recorded, upgraded: the gallery, the numbers and the id stay."""
    picture = site.checkout.folder / "kiosk/demo/people/obama.jpg"
    site.make("enrol", "PERSON=anna", f"IMAGES={picture}")
    until("a punch at the server", lambda: site.asked("/attendance")["attendance"], 90)
    device = site.status()["device"]
    before = site.link("current")
    site.checkout.change("kiosk/commands/daemon.py", LAST, LAST.replace("up ", "up for "))
    _, said = site.make("deploy")
    assert "sending 1 of" in said
    assert "the Pi is furnished already, nothing was changed" in said
    assert "the running release can go back to them" in said
    assert site.link("previous") == before
    status = site.status()
    assert (status["device"], status["people"]) == (device, 1)
    assert "up for" in site.kiosk("status")


def test_a_rollback_goes_back(site):
    """The release before runs again, and the one after it is what a rollback would go to now."""
    new, old = site.link("current"), site.link("previous")
    _, said = site.make("rollback")
    assert f"{old} is healthy and stays" in said
    assert (site.link("current"), site.link("previous")) == (old, new)


@pytest.mark.system
def test_another_configuration_brings_no_files(site):
    """It is tried and watched all the same, and is in force afterwards."""
    text = site.config.read_text()
    site.config.write_text(text.replace("repeat_window_s = 0", "repeat_window_s = 1"))
    _, said = site.make("deploy", f"CONFIG={site.config}")
    assert "sending" not in said
    assert "golden faces" in said
    assert "is healthy and stays" in said
    there = site.machine.run("cat", "/etc/kiosk/kiosk.toml").stdout
    assert there == site.config.read_text()


@contextmanager
def limited(site, rate):
    """No faster than that, either way: what goes to the Pi and what it answers."""

    def tc(*words):
        subprocess.run([*site.inside, "tc", "qdisc", *words], check=True)

    # The largest packet there is, four times.
    tc("add", "dev", "lo", "root", "tbf", "rate", rate, "burst", "256kb", "latency", "400ms")
    try:
        yield
    finally:
        tc("delete", "dev", "lo", "root")


@pytest.mark.system
def test_a_small_change_is_switched_to_soon_over_a_slow_link(site):
    """At 10 Mbit/s, from `make deploy` to the switch; 60 s are wanted, five times that hangs."""
    site.checkout.change("kiosk/aim.py", '"""', '"""A small change. ')
    with limited(site, "10mbit"):
        began = time.monotonic()
        with site.begin("deploy") as sender:
            said = site.read_to(sender, "switched to")
            took = time.monotonic() - began
            said += sender.stdout.read()
    print(f"{took:.0f} s to the switch at 10 Mbit/s:\n{said}")
    assert took < 300
    assert "is healthy and stays" in said
    site.checkout.undo()


BAD = {
    "does not start": (
        "kiosk/commands/daemon.py",
        "    signal.signal(signal.SIGINT, signal.SIG_DFL)\n    from kiosk.memory",
        '    raise SystemExit("no such luck")\n    from kiosk.memory',
    ),
    "crashes at once": (
        "kiosk/reception.py",
        "    def receive(self, frame",
        "    def receive(self, frame):\n        raise RuntimeError('no such luck')\n\n"
        "    def received(self, frame",
    ),
    "sees nothing": (
        "kiosk/capture/replay.py",
        "        frames, closed = self._frames, self._closed\n",
        "        raise CameraError('no such luck')\n"
        "        frames, closed = self._frames, self._closed\n",
    ),
}


def first_of(names):
    """One in every run of the suite, all of them in the long one."""
    first, *others = names
    return [first, *(pytest.param(name, marks=pytest.mark.system) for name in others)]


@pytest.mark.parametrize("how", first_of(BAD))
def test_a_bad_release_is_gone_back_from(site, how):
    """By itself, with the reason and the journal's last lines; the old one runs and sends."""
    before = site.link("current")
    site.checkout.change(*BAD[how])
    status, said = site.make("deploy", check=False)
    assert status != 0
    assert "went back" in said
    assert "the release before runs again (active)" in said
    assert "no such luck" in said
    assert site.link("current") == before
    assert site.machine.property("kiosk", "SubState") == "running"
    assert site.history()[-1]["outcome"] == "went back"
    site.checkout.undo()


REFUSED = {
    "its tables": (
        "kiosk/outbox/schema.py",
        '        "INSERT INTO reader VALUES (1, 5)",\n    ),\n',
        '        "INSERT INTO reader VALUES (1, 5)",\n    ),\n    ("CREATE NONSENSE",),\n',
        "NONSENSE",
    ),
    "a way without return": (
        "kiosk/outbox/schema.py",
        '        "INSERT INTO reader VALUES (1, 5)",\n    ),\n',
        '        "INSERT INTO reader VALUES (1, 5)",\n    ),\n'
        '    ("UPDATE reader SET least = 6",),\n',
        "a rollback would not open the queue any more",
    ),
    "its models": (
        "models/manifest.toml",
        'sha256 = "',
        'sha256 = "0000',
        "nothing was switched",
    ),
}


@pytest.mark.parametrize("what", first_of(REFUSED))
def test_what_shows_beforehand_is_not_even_switched_to(site, what):
    """Tried on a copy and with the new code; the process that runs is not touched."""
    before = site.running()
    *change, told = REFUSED[what]
    site.checkout.change(*change)
    status, said = site.make("deploy", check=False)
    assert status != 0
    assert told in said
    assert "nothing was switched" in said
    assert site.running() == before
    site.checkout.undo()


@pytest.mark.system
def test_a_bad_configuration_is_refused_and_a_good_one_goes_back_with_its_release(site):
    """Checked by the new code before the switch; after a bad trial the old one is in force."""
    before = site.running()
    good = site.config.read_text()
    site.config.write_text(good.replace("[recognition]\n", "[recognition]\nthreshold = 7\n"))
    status, said = site.make("deploy", f"CONFIG={site.config}", check=False)
    assert status != 0
    assert "recognition.threshold" in said
    assert site.running() == before
    site.config.write_text(good.replace("/srv/people/obama3.jpg", "/srv/people/nobody.jpg"))
    status, said = site.make("deploy", f"CONFIG={site.config}", check=False)
    assert status != 0
    assert "went back" in said
    assert "obama3.jpg" in site.machine.run("cat", "/etc/kiosk/kiosk.toml").stdout
    assert site.status()["camera"] == "running"
    site.config.write_text(good)


def test_two_deploys_at_once(site):
    """The second is refused by the name of the first; the first ends well."""
    site.checkout.commit("another")
    with site.begin("deploy", health_s=8) as first:
        site.read_to(first, "on trial now")
        status, said = site.make("deploy", check=False)
        rest = first.stdout.read()
    assert status != 0
    assert "expected to be the only deploy to this Pi" in said
    assert "since" in said
    assert first.returncode == 0, rest


@pytest.mark.parametrize(
    "step", first_of(["making the release's own", "sending", "the configuration, libraries"])
)
def test_a_sender_that_is_killed_leaves_the_old_release(site, step):
    """With its link, before the switch: what runs is not touched, the next deploy clears away."""
    before = site.running()
    site.checkout.commit(f"killed at {step}")
    site.killed_at(step)
    assert site.running() == before
    until("the session to have ended", lambda: not site.sessions(), 60)
    _, said = site.make("deploy")
    assert "is healthy and stays" in said


@pytest.mark.system
def test_a_sender_that_is_killed_in_the_trial_changes_nothing(site):
    """The Pi watches by itself, and keeps what is healthy."""
    site.checkout.commit("killed in the trial")
    site.killed_at("switched to")
    until("a verdict", lambda: not site.machine.exists("/opt/kiosk/trial.json"), 60)
    assert site.history()[-1]["outcome"] == "kept"


def test_a_trial_that_is_killed_goes_back(site):
    """Without a verdict nothing is trusted, whoever killed it."""
    before = site.link("current")
    site.checkout.commit("trial killed")
    with site.begin("deploy", health_s=60) as sender:
        site.read_to(sender, "switched to")
        site.machine.run("systemctl", "kill", "--signal=KILL", "kiosk-trial")
        rest = sender.stdout.read()
    assert sender.returncode != 0
    assert "the trial was cut short" in rest
    assert site.link("current") == before
    until("the old one", lambda: site.machine.property("kiosk", "SubState") == "running")


def test_power_lost_in_a_trial_goes_back_at_the_next_boot(site):
    """The note is found before the service starts; without it nothing is done."""
    before, former = site.link("current"), site.link("previous")
    site.machine.run("systemctl", "stop", "kiosk")
    plan = f'{{"release": "{before}", "former": "{former}", "action": "deploy"}}'
    site.machine.put("/opt/kiosk/trial.json", plan.encode())
    site.machine.run("systemctl", "start", "kiosk-settle")
    assert site.link("current") == former
    assert not site.machine.exists("/opt/kiosk/trial.json")
    until("the old one", lambda: site.machine.property("kiosk", "SubState") == "running")
    order = site.machine.property("kiosk-settle", "Before")
    assert "kiosk.service" in order
    site.machine.run("systemctl", "start", "kiosk-settle")
    assert site.link("current") == former


def test_status_and_doctor_are_one_table(site):
    """A row for each kiosk; one that does not answer is a row too, and the status says so."""
    _, said = site.make("status")
    head, row = said.splitlines()
    assert head.split()[:3] == ["kiosk", "release", "state"]
    assert "running" in row
    status, said = site.make("status", "PI=127.0.0.1 127.0.0.1:1", check=False)
    assert status != 0
    _, said = site.make("doctor", check=False)
    assert "liveness" in said


def test_an_uninstalled_pi_has_no_template_and_no_key(site):
    """Not while events wait that only it has; then everything goes, and is looked for."""
    site.server.terminate()
    site.server.wait(60)
    site.server = None
    site.machine.run("systemctl", "restart", "kiosk")
    until("an event that waits", lambda: site.status()["outbox"]["pending"], 90)
    status, said = site.make("uninstall", check=False)
    assert status != 0
    assert "expected no event that only this Pi has" in said
    _, said = site.make("uninstall", "LOSE_EVENTS=1")
    assert "the secret is gone" in said
    for path in (
        "/opt/kiosk",
        "/etc/kiosk",
        "/var/lib/kiosk",
        "/etc/credstore.encrypted/kiosk.secret",
        "/usr/local/bin/kiosk",
    ):
        assert not site.machine.exists(path), path
    assert site.machine.run("id", "kiosk", check=False).returncode != 0
