"""A Pi as fresh from its card, a sender's checkout, and a server, for deploys over real ssh."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.machine import REPOSITORY, booted, reason_to_skip

HANG_S = 300
PORT = 8320
USER = "pi"
_TOOLS = ("mmdebstrap", "ssh", "ssh-keygen", "git", "make")
_INCLUDE = "systemd,systemd-sysv,dbus,openssh-server,python3,procps,iproute2,sudo,systemd-timesyncd"
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
# A machine of its own needs no more than this; the test says what is started.
_SSH = """[Unit]
Wants=ssh.service dbus.service systemd-user-sessions.service
"""

CONFIG = f"""
[server]
url = "http://127.0.0.1:{PORT}"
backoff_base_s = 0.1
backoff_cap_s = 1.0
[journal]
names = true
[feedback]
page_port = 0
[camera]
source = "replay"
width = 640
height = 480
replay_loops = 0
[[camera.replay]]
path = "/srv/people/obama3.jpg"
focus_x = 0.54
focus_y = 0.18
zoom = 2.3
seconds = 2.0
"""


def debian(folder, codename="trixie"):
    """A root file system of Debian, made with the host's own package source."""
    shown = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    (source, *_) = [uri for uri in shown if "security" not in uri] or [None]
    if source is None:
        pytest.skip("apt has no list of packages here: apt-get update")
    options = [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
    command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={_INCLUDE}", *options]
    command += [codename, str(folder), f"deb {source} {codename} main"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


class Checkout:
    """A checkout of this very tree, with commits of its own."""

    def __init__(self, folder):
        self.folder = folder
        names = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in filter(None, names.split("\0")):
            source, target = REPOSITORY / name, folder / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        cache = REPOSITORY / ".cache"
        cache.mkdir(exist_ok=True)
        (folder / ".cache").symlink_to(cache)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("one")
        self.git("tag", "v1.0.0")

    @staticmethod
    def _git(*words):
        done = subprocess.run(["git", "-C", REPOSITORY, *words], capture_output=True, check=True)
        return done.stdout.decode()

    def git(self, *words):
        by = {
            f"GIT_{who}_{what}": "test"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        command = ["git", "-C", self.folder, *words]
        return subprocess.run(command, capture_output=True, check=True, env={**os.environ, **by})

    def commit(self, word):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", word)

    def change(self, name, old, new):
        """Change a file and commit it; the text that is replaced must be there."""
        path = self.folder / name
        text = path.read_text()
        assert old in text, (name, old)
        path.write_text(text.replace(old, new, 1))
        self.commit(f"change {name}")

    def undo(self):
        """The commit before, as if the last had never been."""
        self.git("reset", "--quiet", "--hard", "HEAD~1")


class Site:
    """A Pi that ssh reaches, and whoever deploys to it."""

    def __init__(self, machine, folder, checkout, key):
        self.machine, self.folder, self.checkout = machine, folder, checkout
        self.server = None
        options = folder / "ssh_config"
        options.write_text(
            f"Host *\n IdentityFile {key}\n IdentitiesOnly yes\n"
            f" StrictHostKeyChecking accept-new\n UserKnownHostsFile {folder}/known_hosts\n"
        )
        self.ssh = folder / "bin/ssh"
        self.ssh.parent.mkdir()
        # The machine has no network but its own loopback.
        inside = f"nsenter --target {machine.leader} --net"
        self.ssh.write_text(f'#!/bin/sh\nexec {inside} /usr/bin/ssh -F {options} "$@"\n')
        self.ssh.chmod(0o755)
        self.config = folder / "kiosk.toml"
        self.config.write_text(CONFIG)

    def environ(self):
        return {**os.environ, "PATH": f"{self.ssh.parent}:{os.environ['PATH']}"}

    def command(self, target, *variables, user=USER, health_s=3):
        words = ["make", "--silent", target, "PI=127.0.0.1", f"PI_USER={user}"]
        return [*words, f"HEALTH_S={health_s}", f"PYTHON={sys.executable}", *variables]

    def make(self, target, *variables, check=True, **named):
        """Run a command of the Makefile against the Pi: its exit status and what it said."""
        done = subprocess.run(
            self.command(target, *variables, **named),
            cwd=self.checkout.folder,
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        said = done.stdout + done.stderr
        assert not check or done.returncode == 0, said
        return done.returncode, said

    def begin(self, target, *variables, **named):
        """The same, left running."""
        return subprocess.Popen(
            self.command(target, *variables, **named),
            cwd=self.checkout.folder,
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @staticmethod
    def read_to(sender, words):
        """Read what a deploy says up to a line with these words."""
        said = ""
        for line in sender.stdout:
            said += line
            if words in line:
                return
        raise AssertionError(f"{words!r} expected, got:\n{said}")

    def killed_at(self, words):
        """A deploy whose sender dies, with its link, at the line that has these words."""
        with self.begin("deploy") as sender:
            self.read_to(sender, words)
            os.killpg(sender.pid, signal.SIGKILL)

    def serve(self):
        """The reference server, as the Pi sees it."""
        inside = ["nsenter", "--target", str(self.machine.leader), "--net"]
        store = f"sqlite:///{self.folder}/attendance.db"
        script = [sys.executable, "-m", "kiosk.server"]
        options = ["--store", store, "--listen", f"127.0.0.1:{PORT}"]
        self.server = subprocess.Popen([*inside, *script, *options], stdout=subprocess.DEVNULL)

    def end(self):
        if self.server is not None:
            self.server.terminate()
            self.server.wait(HANG_S)

    def asked(self, route):
        """What the server says."""
        url = f"http://127.0.0.1:{PORT}{route}"
        script = f"import urllib.request; print(urllib.request.urlopen({url!r}).read().decode())"
        inside = ["nsenter", "--target", str(self.machine.leader), "--net"]
        done = subprocess.run(
            [*inside, sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    def running(self):
        """The release that the service runs, and its process."""
        pid = self.machine.pid("kiosk")
        return self.link("current"), pid

    def link(self, name):
        done = self.machine.run("readlink", f"/opt/kiosk/{name}", check=False)
        return done.stdout.strip().rpartition("/")[2]

    def kiosk(self, *arguments):
        """The kiosk's command line there, as root; its standard output."""
        script = "/opt/kiosk/current/venv/bin/kiosk"
        return self.machine.run(script, *arguments, "--config", "/etc/kiosk/kiosk.toml").stdout

    def status(self):
        return json.loads(self.kiosk("status", "--json"))

    def sessions(self):
        """Deploys that hold the Pi's lock now."""
        done = self.machine.run("pgrep", "-f", "board.pyz serve", check=False)
        return done.stdout.split()

    def history(self):
        lines = self.machine.run("cat", "/opt/kiosk/history.jsonl").stdout.splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def trixie(tmp_path_factory):
    """Debian trixie for this machine's own processor, as a Raspberry Pi OS is for its."""
    _skip_where_it_cannot_be()
    folder = tmp_path_factory.mktemp("trixie") / "root"
    yield debian(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("sender") / "kiosk")


@pytest.fixture(scope="module")
def site(tmp_path_factory, trixie, checkout):
    """A fresh Pi, which nothing was deployed to yet."""
    folder = tmp_path_factory.mktemp("site")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with booted(folder, files(key), bare=True, lower=trixie, users=users()) as machine:
        machine.run("sh", "-c", PREPARE)
        site = Site(machine, folder, checkout, key)
        pictures = REPOSITORY / "kiosk/demo/people/obama3.jpg"
        machine.run("sh", "-c", "mkdir -p /srv/people")
        machine.put("/srv/people/obama3.jpg", pictures.read_bytes())
        yield site
        site.end()


PREPARE = (
    f"chown -R 1000:1000 /home/{USER} && chmod 700 /home/{USER}/.ssh &&"
    f" chmod 600 /home/{USER}/.ssh/authorized_keys && chmod 440 /etc/sudoers.d/{USER}"
    " && until test -S /run/systemd/private; do sleep 0.1; done"
)


def users():
    return {
        "passwd": [f"{USER}:x:1000:1000::/home/{USER}:/bin/bash"],
        "group": [f"{USER}:x:1000:"],
        "shadow": [f"{USER}:*:20000:0:99999:7:::"],
    }


def files(key):
    public = key.with_suffix(".pub").read_text()
    return {
        f"/home/{USER}/.ssh/authorized_keys": public,
        "/root/.ssh/authorized_keys": public,
        f"/etc/sudoers.d/{USER}": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
        "/etc/systemd/system/kiosk-test.target.d/ssh.conf": _SSH,
    }


def _skip_where_it_cannot_be():
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    missing = [name for name in _TOOLS if not shutil.which(name)]
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")


def until(what, condition, within_s=60):
    """Look until `condition` is truthy; AssertionError with `what`."""
    from threading import Event

    pause, deadline = Event(), time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        pause.wait(0.2)
    raise AssertionError(f"{what} expected within {within_s} s")


assert Path(REPOSITORY).is_dir()
