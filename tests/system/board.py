"""The virtual Pi as the deploy's tests see a machine: commands as root, units, files."""

import shlex
import subprocess
from types import SimpleNamespace

from service.asking import Asking
from system.machine import VirtualPi
from system.network import PI


class Board(Asking):
    """The same questions that `service.machine.Machine` answers of a container."""

    def __init__(self, pi: VirtualPi, network) -> None:
        self.pi = pi
        self._network = network

    def run(self, *command, check=True):
        """Run a command as root; the finished process with its output as text."""
        return self.pi.ssh(shlex.join(map(str, command)), check=check)

    def put(self, path, content):
        """Write a file."""
        command = self._network.inside(*self.pi.ssh_command(), PI, f"cat >{shlex.quote(path)}")
        subprocess.run(command, input=content, check=True, timeout=120)

    def events(self, *names):
        """The kiosk's happenings of these names in this boot, oldest first, as attributes."""
        matches = [f"KIOSK_EVENT={name}" for name in names]
        return [
            SimpleNamespace(**{key.lower(): value for key, value in entry.items()})
            for entry in self.journal("-b", "-u", "kiosk", *matches)
        ]
