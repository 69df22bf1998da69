"""What a test asks of a machine, whichever way its commands get there."""

import json


class Asking:
    """For a machine whose `run` runs a command on it as root."""

    def exists(self, path):
        """Whether something is there."""
        return self.run("test", "-e", path, check=False).returncode == 0

    def property(self, unit, name):
        """What systemd says of a unit."""
        return self.run("systemctl", "show", unit, "-p", name, "--value").stdout.strip()

    def pid(self, unit):
        """The main process of a unit, 0 for none; a number of that machine."""
        return int(self.property(unit, "MainPID") or 0)

    def journal(self, *matches):
        """The journal's entries that match, each a dictionary, the oldest first."""
        lines = self.run("journalctl", "-o", "json", "--all", "--no-pager", *matches).stdout
        return [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
