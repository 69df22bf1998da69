"""The virtual Pi as the deploy's tests see a machine: commands as root, units, files."""

import json
import shlex
import subprocess
from types import SimpleNamespace

from system.machine import VirtualPi
from system.network import PI


class Board:
    """The same questions that `service.machine.Machine` answers of a container."""

    def __init__(self, pi: VirtualPi, network) -> None:
        self.pi = pi
        self._network = network

    def run(self, *command, check=True):
        """Run a command as root; the finished process with its output as text."""
        return self.pi.ssh(shlex.join(map(str, command)), check=check)

    def exists(self, path):
        """Whether something is there."""
        return self.run("test", "-e", path, check=False).returncode == 0

    def put(self, path, content):
        """Write a file."""
        command = self._network.inside(*self.pi.ssh_command(), PI, f"cat >{shlex.quote(path)}")
        subprocess.run(command, input=content, check=True, timeout=120)

    def property(self, unit, name):
        """What systemd says of a unit."""
        return self.run("systemctl", "show", unit, "-p", name, "--value").stdout.strip()

    def pid(self, unit):
        """The main process of a unit, 0 for none."""
        return int(self.property(unit, "MainPID") or 0)

    def journal(self, *matches):
        """The journal's entries that match, the oldest first."""
        lines = self.run("journalctl", "-o", "json", "--all", "--no-pager", *matches).stdout
        return [json.loads(line) for line in lines.splitlines() if line.startswith("{")]

    def events(self, *names):
        """The kiosk's happenings of these names in this boot, oldest first, as attributes."""
        matches = [f"KIOSK_EVENT={name}" for name in names]
        return [
            SimpleNamespace(**{key.lower(): value for key, value in entry.items()})
            for entry in self.journal("-b", "-u", "kiosk", *matches)
        ]
