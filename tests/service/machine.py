"""A machine with systemd as its first process: this system's own, in a container."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from service.asking import Asking

REPOSITORY = Path(__file__).parent.parent.parent
HANG_S = 120
# Nobody sets it: what is looked for happens in other processes.
_PAUSE = threading.Event()
_BOOT = Path(__file__).with_name("boot.py")
_VENV = "/opt/kiosk/current/venv"
_SYSTEMD_PYTHON = Path("/usr/lib/python3/dist-packages/systemd")

_TARGET = """[Unit]
Description=What the test needs and nothing else
Requires=sysinit.target basic.target
After=sysinit.target basic.target
AllowIsolate=yes
"""


_KIOSK_USER = {
    "passwd": ["kiosk:x:990:990::/var/lib/kiosk:/usr/sbin/nologin"],
    "group": ["kiosk:x:990:"],
}


def reason_to_skip():
    """Why no container can be booted here, "" where one can."""
    if os.geteuid() != 0:
        return "a container needs root"
    missing = [n for n in ("systemd-nspawn", "unshare", "nsenter", "ip") if not shutil.which(n)]
    return f"missing: {', '.join(missing)}" if missing else ""


class Machine(Asking):
    """A running container; `leader` is its first process, seen from here."""

    def __init__(self, leader):
        self._leader = self.leader = leader
        self._started = []

    def run(self, *command, check=True, **named):
        """Run a command in it as root; the finished process with its output as text."""
        inside = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        environment = {"LD_LIBRARY_PATH": "/opt/python/lib", "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [*inside, *map(str, command)],
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
            env=environment,
            **named,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def put(self, path, content):
        """Write a file there."""
        inside = ["nsenter", "-t", str(self._leader), "-m", "-p", "--"]
        subprocess.run([*inside, "tee", path], input=content, stdout=subprocess.DEVNULL, check=True)

    def start(self, *command):
        """The same, left running until the machine ends."""
        inside = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        environment = {"LD_LIBRARY_PATH": "/opt/python/lib", "PATH": os.environ["PATH"]}
        self._started.append(subprocess.Popen([*inside, *map(str, command)], env=environment))

    def end(self):
        """End what was started; the machine itself goes on."""
        for process in self._started:
            process.terminate()
            process.wait(HANG_S)

    def kiosk(self, *arguments, check=True):
        """The kiosk's command line, as root."""
        return self.run(f"{_VENV}/bin/kiosk", *arguments, check=check)

    def events(self, unit="kiosk.service"):
        """The happenings that a unit journalled, in order."""
        entries = self.journal("-u", unit)
        return [entry["KIOSK_EVENT"] for entry in entries if "KIOSK_EVENT" in entry]

    def until(self, what, condition, within_s=HANG_S):
        """Look until `condition` is truthy, which is returned; AssertionError with `what`."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            _PAUSE.wait(0.1)
        journal = self.run("journalctl", "--no-pager", "-n", "60", check=False).stdout
        raise AssertionError(f"{what} expected within {within_s} s\n{journal}")


def _children(pid):
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _leader_of(process):
    """The container's first process: systemd, a child of nspawn."""
    deadline = time.monotonic() + HANG_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the container ended: {process.returncode}")
        for child in _children(process.pid):
            try:
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return child
            except FileNotFoundError:
                continue
        _PAUSE.wait(0.05)
    raise AssertionError("the container did not boot")


@contextmanager
def booted(folder, files, links=None, *, bare=False, lower="/", users=None):
    """A machine with these files in it, booted; ended with everything in it afterwards.

    `bare`: as fresh from its card, without the kiosk. `lower`: the root that it is a copy of.
    """
    root = folder / "machine"
    root.mkdir()
    links = dict(links or {})
    if _SYSTEMD_PYTHON.is_dir() and not bare:
        links["/opt/extra/systemd"] = str(_SYSTEMD_PYTHON)
    spec = {
        "root": str(root),
        "python": sys.base_prefix,
        "site_packages": sysconfig.get_path("purelib"),
        "files": {"/etc/systemd/system/kiosk-test.target": _TARGET, **files},
        "links": links,
        "bare": bare,
        "lower": str(lower),
        "users": users or _KIOSK_USER,
        "group": f"kiosk-test-{os.getpid()}-{time.monotonic_ns()}",
    }
    command = ["unshare", "--mount", "--net", "--cgroup", sys.executable, _BOOT, json.dumps(spec)]
    with (folder / "console.log").open("wb") as console:
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
        try:
            machine = Machine(_leader_of(process))
            machine.until(
                "a system that runs",
                lambda: (
                    machine.run(
                        "systemctl", "is-active", "kiosk-test.target", check=False
                    ).stdout.strip()
                    == "active"
                ),
            )
            yield machine
            machine.end()
        finally:
            _end(process)


def _end(process):
    """Ask systemd to halt, and end what is left of it by its own pid."""
    leaders = _children(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        for leader in leaders:
            os.kill(leader, signal.SIGKILL)
        process.kill()
        process.wait(HANG_S)
