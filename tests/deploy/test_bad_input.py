"""A Pi that cannot be deployed to: said in words with what to do, and nothing there is changed."""

import copy
import subprocess
from contextlib import contextmanager

import pytest

# A key that is nobody's here.
STRANGER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGuGfWlVJ4GZGyPgMqCJyyh8ZQ3pCSBsUWJYXGZHOMQx"
NOISE = """printf '42\\n"x"\\n{"say": 1\\nkiosk-deploy:/tmp/elsewhere \\nkiosk-answer:\\nno end'
printf 'Permission denied, is not in the sudoers file\\n' >&2
"""
KIOSK = """#!/bin/sh
echo '{"state": "running", "outbox": {"pending": 0, "quarantined": 0}, "online": true,
 "camera": "running", "model": "m"}'
"""
PEOPLE = """
for name in asked plain few barred keyless; do
  useradd --create-home --shell /bin/bash $name
  cp -r /home/pi/.ssh /home/$name/ && chown -R $name: /home/$name/.ssh
done
rm -r /home/keyless/.ssh
printf '#!/bin/sh\necho This account is currently not available.; exit 1' >/usr/bin/barred
chmod 755 /usr/bin/barred; usermod --shell /usr/bin/barred barred
echo 'asked ALL=(ALL) ALL' >/etc/sudoers.d/asked
echo 'few ALL=(ALL) NOPASSWD: /usr/bin/true' >/etc/sudoers.d/few
chmod 440 /etc/sudoers.d/*
"""


@pytest.fixture(scope="module", autouse=True)
def people(site):
    """Users of every kind: `pi` may do it all."""
    site.machine.run("sh", "-c", PEOPLE)
    # The host's key is known from here on.
    assert site.make("deploy", check=False)[0] != 0
    return site


PLACES = ("/opt/kiosk", "/etc/kiosk", "/var/lib/kiosk", "/etc/systemd/system/kiosk.service")


@pytest.fixture(autouse=True)
def _untouched(site):
    """Whatever a test does, the Pi is as it was: nothing of a deploy, no program left behind."""
    yield
    for path in PLACES:
        assert not site.machine.exists(path), path
    left = site.machine.run("find", "/tmp", "/dev/shm", "-name", "board.pyz").stdout
    assert not left


def refused(site, *variables, target="deploy", user="pi"):
    """What a command that must fail says."""
    status, said = site.make(target, *variables, user=user, check=False)
    assert status != 0, said
    assert "Traceback" not in said, said
    return said


@contextmanager
def asking(site, **options):
    """The same site, reached with other options of ssh."""
    folder = site.folder / "other"
    folder.mkdir(exist_ok=True)
    config, ssh = folder / "ssh_config", folder / "ssh"
    own = "".join(f" {name} {value}\n" for name, value in options.items())
    common = (site.folder / "ssh_config").read_text().replace("Host *\n", "")
    # ssh takes the first value of an option.
    kept = [line for line in common.splitlines() if line.split()[0] not in options]
    config.write_text("Host *\n" + own + "\n".join(kept) + "\n")
    ssh.write_text(f'#!/bin/sh\nexec {" ".join(site.inside)} /usr/bin/ssh -F {config} "$@"\n')
    ssh.chmod(0o755)
    other = copy.copy(site)
    other.ssh = ssh
    yield other


def test_a_port_that_nobody_listens_at(site):
    """Named, with how the ssh server is switched on."""
    said = refused(site, "PI_PORT=1")
    assert "expected an ssh server at port 1, none answers" in said
    assert "systemctl enable --now ssh" in said


def test_a_name_without_an_address(site):
    """Named, and what to look at."""
    said = refused(site, "PI=nowhere.invalid")
    assert "expected a name with an address, nowhere.invalid has none; check PI=" in said


def test_a_key_that_the_pi_does_not_know(site, tmp_path):
    """No password is asked for; how the right key gets there is said."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with asking(site, IdentityFile=key) as other:
        said = refused(other)
    assert "expected to be let in as pi by a key, it was refused" in said
    assert "ssh-copy-id -p 22 pi@127.0.0.1" in said


def test_a_user_whom_ssh_asks_for_a_password(site):
    """The same words: nobody is there to type it."""
    said = refused(site, user="keyless")
    assert "expected to be let in as keyless by a key, it was refused" in said


@pytest.mark.parametrize("port", [22, 2222])
def test_a_host_key_that_is_another_one(site, tmp_path, port):
    """Not taken, whatever the port; the command that forgets the old one is the right one."""
    name = "127.0.0.1" if port == 22 else f"[127.0.0.1]:{port}"
    known = tmp_path / "known_hosts"
    known.write_text(f"{name} {STRANGER}\n")
    if port != 22:
        site.machine.run("mkdir", "-p", "/run/sshd")
        site.machine.run("/usr/sbin/sshd", "-p", port, "-o", "PidFile=/run/other.pid")
    try:
        with asking(site, UserKnownHostsFile=known, StrictHostKeyChecking="ask") as other:
            said = refused(other, f"PI_PORT={port}")
    finally:
        if port != 22:
            site.machine.run("sh", "-c", "kill $(cat /run/other.pid)")
    assert "expected the host key of before, got another one" in said
    assert f"ssh-keygen -R '{name}'" in said
    assert known.read_text() == f"{name} {STRANGER}\n"


def test_a_host_key_that_is_not_known_yet(site, tmp_path):
    """Nobody accepts it unseen; how it is looked at is said."""
    known = tmp_path / "known_hosts"
    with asking(site, UserKnownHostsFile=known, StrictHostKeyChecking="ask") as other:
        said = refused(other)
    assert "expected a host key that is known here, got one that is not" in said
    assert "ssh -p 22 pi@127.0.0.1 true" in said
    assert not known.exists()


@pytest.mark.parametrize("user", ["asked", "plain", "few"])
def test_a_user_who_cannot_use_sudo_unasked(site, user):
    """With a password, not at all, or not for everything: named, with the way out."""
    said = refused(site, user=user)
    assert f"expected that {user} may use " in said
    assert "PI_USER=root" in said


def test_a_user_who_may_not_log_in(site):
    """His shell says so, and the words are not lost."""
    said = refused(site, user="barred")
    assert "expected that barred may log in there, it is not so; say another one: PI_USER=" in said


@contextmanager
def over_opt(site, *options):
    site.machine.run("mount", *options, "/opt")
    try:
        yield
    finally:
        site.machine.run("umount", "/opt")


def test_a_full_card(site):
    """Both figures, before anything is built or sent."""
    with over_opt(site, "-t", "tmpfs", "-o", "size=50m", "tmpfs"):
        said = refused(site, f"CONFIG={site.config}")
        assert not site.machine.run("ls", "/opt").stdout
    assert "/opt: expected 200 MB free at least, got 50 MB (make room" in said
    assert "nothing was changed" in said
    assert "building" not in said


def test_a_card_that_is_mounted_read_only(site):
    """As an overlay of Raspberry Pi OS makes it: what to undo is said."""
    with over_opt(site, "--bind", "-o", "ro", "/opt"):
        said = refused(site, f"CONFIG={site.config}")
    assert "/opt: expected to be writable, it is not (undo the read-only root" in said
    assert "nothing was changed" in said


@pytest.fixture
def noisy(site):
    """A login script that prints, over and over what a deploy looks for."""
    site.machine.run("mv", "/home/pi/.bashrc", "/home/pi/.bashrc.old", check=False)
    site.machine.put("/home/pi/.bashrc", NOISE.encode())
    yield site
    site.machine.run("rm", "/home/pi/.bashrc")
    site.machine.run("mv", "/home/pi/.bashrc.old", "/home/pi/.bashrc", check=False)


def test_a_login_script_that_prints_does_not_disturb_a_deploy(noisy):
    """It goes as far as it would without: to the configuration that is not there."""
    assert "elsewhere" in noisy.machine.run("su", "pi", "-c", "bash -ic true").stdout
    said = refused(noisy)
    assert "MB free, time zone" in said
    assert "expected a configuration there, or CONFIG=file here; got neither" in said


def test_a_login_script_that_prints_does_not_disturb_a_table(noisy):
    """What the kiosk says is told from what the script says."""
    folder = "/opt/kiosk/releases/1.0.0-x/venv/bin"
    noisy.machine.run("mkdir", "-p", folder)
    noisy.machine.put(f"{folder}/kiosk", KIOSK.encode())
    noisy.machine.run("chmod", "755", f"{folder}/kiosk")
    noisy.machine.run("ln", "-s", "releases/1.0.0-x", "/opt/kiosk/current")
    try:
        _, said = noisy.make("status")
    finally:
        noisy.machine.run("rm", "-r", "/opt/kiosk")
    (row,) = said.splitlines()[1:]
    assert row.split()[:4] == ["127.0.0.1", "1.0.0-x", "running", "running"]


def test_what_a_deploy_can_do_without_is_a_warning(site):
    """No camera, a clock that is not synchronised: named, and it goes on."""
    said = refused(site)
    assert "warning: no camera was found" in said
    assert "warning: the clock is not synchronised" in said
    assert "got neither; copy deploy/kiosk.example.toml" in said


@pytest.mark.parametrize("target", ["status", "doctor", "rollback", "enrol"])
def test_what_wants_a_kiosk_says_that_there_is_none(site, target):
    """And makes none, not even its folder."""
    picture = site.checkout.folder / "kiosk/demo/people/obama.jpg"
    said = refused(site, "PERSON=anna", f"IMAGES={picture}", target=target)
    assert "expected a release to go back to" in said or "no kiosk there yet" in said


def test_words_for_the_journal_are_words_and_no_commands(site):
    """They go to journalctl, quoted as they were said; no shell of root's reads them."""
    said = refused(site, "WORDS=-n 1 ; touch /opt/kiosk", target="logs")
    assert "journal" in said.lower() or "match" in said.lower()
    _, said = site.make("logs", "WORDS=-n 1 --since '1 hour ago'")
    assert "WORDS: expected options of journalctl" in refused(site, "WORDS='", target="logs")
