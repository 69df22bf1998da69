"""Whoever deploys, the Pi it goes to, and the server that the kiosk reports to."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

from service.machine import REPOSITORY

HANG_S = 1200
PORT = 8320
USER = "pi"
_PAUSE = threading.Event()

CONFIG = """
[server]
url = "{server}"
key_id = "1"
{more}
backoff_base_s = 0.1
backoff_cap_s = 1.0
[journal]
names = true
[recognition]
repeat_window_s = 0
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


# Asks as somebody beside the Pi: URL, then certificate and token where the server has them.
_ASK = """
import ssl, sys, urllib.request
url, *known = sys.argv[1:]
context = ssl.create_default_context(cafile=known[0]) if known else None
headers = {"Authorization": f"Bearer {known[1]}"} if known else {}
request = urllib.request.Request(url, headers=headers)
print(urllib.request.urlopen(request, timeout=60, context=context).read().decode())
"""


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

    @classmethod
    def over(cls, folder):
        """One that is there already."""
        checkout = cls.__new__(cls)
        checkout.folder = folder
        return checkout

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


class Secrets:
    """A certificate of the server's own, and its token."""

    def __init__(self, folder, address):
        folder.mkdir(exist_ok=True)
        self.cert, self.key, self.token = (folder / name for name in ("cert", "key", "token"))
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]
        command += ["-nodes", "-days", "3650", "-subj", f"/CN={address}", "-addext"]
        command += [f"subjectAltName=IP:{address}", "-keyout", self.key, "-out", self.cert]
        if not self.cert.exists():
            subprocess.run(command, capture_output=True, check=True)
        self.token.write_text("a-token-that-is-long-enough")
        self.token.chmod(0o600)
        self.options = ["--cert", self.cert, "--key", self.key, "--token-file", self.token]
        self.asking = [self.cert, self.token.read_text()]
        self.settings = 'ca_file = "/etc/kiosk/server.pem"'


class Site:
    """A Pi that ssh reaches, and whoever deploys to it.

    `machine`: where commands are run as root, beside ssh. `inside`: what puts a command where the
    Pi is reached at `address` and reaches the server at `listen`.
    """

    def __init__(self, machine, folder, checkout, key, inside, *, address, listen, exposed=False):
        self.machine, self.folder, self.checkout = machine, folder, checkout
        self.inside, self.address, self.listen = list(map(str, inside)), address, listen
        self.server = None
        # A server that others reach wants TLS and a token.
        self.secrets = Secrets(folder / "secrets", listen) if exposed else None
        options = folder / "ssh_config"
        options.write_text(
            f"Host *\n IdentityFile {key}\n IdentitiesOnly yes\n"
            f" StrictHostKeyChecking accept-new\n UserKnownHostsFile {folder}/known_hosts\n"
        )
        self.ssh = folder / "bin/ssh"
        self.ssh.parent.mkdir(exist_ok=True)
        # The machine has no network but the test's own.
        self.ssh.write_text(
            f'#!/bin/sh\nexec {" ".join(self.inside)} /usr/bin/ssh -F {options} "$@"\n'
        )
        self.ssh.chmod(0o755)
        self.config = folder / "kiosk.toml"
        self.config.write_text(
            CONFIG.format(server=self.url, more=self.secrets.settings if exposed else "")
        )

    def environ(self):
        return {**os.environ, "PATH": f"{self.ssh.parent}:{os.environ['PATH']}"}

    def command(self, target, *variables, user=USER, health_s=3):
        words = ["make", "--silent", target, f"PI={self.address}", f"PI_USER={user}"]
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
        """Read what a deploy says up to a line with these words; all of that."""
        said = ""
        for line in sender.stdout:
            said += line
            if words in line:
                return said
        raise AssertionError(f"{words!r} expected, got:\n{said}")

    def killed_at(self, words):
        """A deploy whose sender dies, with its link, at the line that has these words."""
        with self.begin("deploy") as sender:
            self.read_to(sender, words)
            os.killpg(sender.pid, signal.SIGKILL)

    def serve(self):
        """The reference server, as the Pi sees it."""
        script = [sys.executable, "-m", "kiosk.server"]
        options = [
            "--store",
            self.store,
            "--listen",
            f"{self.listen}:{PORT}",
            *(self.secrets.options if self.secrets else ()),
        ]
        self.server = subprocess.Popen([*self.inside, *script, *options], stdout=subprocess.DEVNULL)
        until("a server that answers", self._answers)

    def _answers(self):
        try:
            return self.asked("/healthz")
        except subprocess.CalledProcessError:
            # It is starting.
            return None

    def end(self):
        if self.server is not None:
            self.server.terminate()
            self.server.wait(HANG_S)

    def asked(self, route):
        """What the server says."""
        known = self.secrets.asking if self.secrets else ()
        command = [*self.inside, sys.executable, "-c", _ASK, f"{self.url}{route}", *known]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    @property
    def url(self):
        return f"{'https' if self.secrets else 'http'}://{self.listen}:{PORT}"

    @property
    def store(self):
        return f"sqlite:///{self.folder}/attendance.db"

    def code(self):
        """A code with which one kiosk registers its key."""
        command = [sys.executable, "-m", "kiosk.server", "invite", "--store", self.store]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

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

    def exposure(self, unit):
        """How exposed the Pi's own systemd finds a unit, 0 to 10."""
        command = ("systemd-analyze", "security", f"{unit}.service")
        told = self.machine.run(*command, check=False).stdout
        return float(told.rsplit("Overall exposure level for", 1)[1].split(":", 1)[1].split()[0])

    def sessions(self):
        """Deploys that hold the Pi's lock now."""
        done = self.machine.run("pgrep", "-f", "board.pyz serve", check=False)
        return done.stdout.split()

    def history(self):
        lines = self.machine.run("cat", "/opt/kiosk/history.jsonl").stdout.splitlines()
        return [json.loads(line) for line in lines]


def until(what, condition, within_s=60, every_s=0.2):
    """Look until `condition` is truthy; AssertionError with `what`."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        _PAUSE.wait(every_s)
    raise AssertionError(f"{what} expected within {within_s} s")
