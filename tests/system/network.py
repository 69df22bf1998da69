"""A network of two, cut off from every other: the test's side and the Pi's."""

import itertools
import os
import subprocess
from pathlib import Path

from system.packages import UnavailableError, chronyd, run

HOST = "10.77.0.1"
PI = "10.77.0.2"
TAP = "pi0"
HANG_S = 120
_NUMBERS = itertools.count()

_CHRONY = """local stratum 8
allow {pi}
bindaddress {host}
cmdport 0
bindcmdaddress /
pidfile {folder}/chronyd.pid
"""


def end(process: subprocess.Popen) -> None:
    """Ask it to end, and make it end when it does not."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(HANG_S)


class Network:
    """A network namespace for one machine, with an NTP server in it and no way out.

    `programs`: a folder where the NTP server's program is kept, or found when it was there before.
    Raises packages.UnavailableError, in words, where it cannot be made.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self.name = f"pi-{os.getpid()}-{next(_NUMBERS)}"
        self._folder = folder
        self._started: list[subprocess.Popen] = []
        run("ip", "netns", "add", self.name)
        try:
            self._set_up(programs)
        except BaseException:
            self.close()
            raise

    def _set_up(self, programs: Path) -> None:
        for command in (
            "ip link set lo up",
            f"ip tuntap add {TAP} mode tap",
            f"ip address add {HOST}/24 dev {TAP}",
            f"ip link set {TAP} up",
        ):
            run(*self.inside(*command.split()))
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "chrony.conf"
        configuration.write_text(
            _CHRONY.format(pi=PI, host=HOST, folder=self._folder), encoding="ascii"
        )
        # -x: it must never touch this host's clock.
        self.start(chronyd(programs), "-d", "-x", "-u", "root", "-f", configuration, log="chronyd")

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def inside(self, *command: str | Path) -> list[str]:
        """The command that runs this one in the namespace, with the same process number.

        Not by ip-netns(8), which makes a mount namespace too: that would hold on to every mount.
        """
        return ["nsenter", f"--net=/run/netns/{self.name}", *map(str, command)]

    def run(self, *command: str | Path, check: bool = True, **named) -> subprocess.CompletedProcess:
        """Run a command on the test's side; the finished process with its output as text."""
        options = {"capture_output": True, "timeout": HANG_S, **named}
        done = subprocess.run(self.inside(*command), text=True, check=False, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *command: str | Path, log: str, **named) -> subprocess.Popen:
        """The same, left running until the network ends; writes to `log`.log in its folder."""
        with (self._folder / f"{log}.log").open("ab") as output:
            options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, **named}
            process = subprocess.Popen(self.inside(*command), **options)
        self._started.append(process)
        return process

    def link_down(self) -> None:
        """Nothing gets through any more; the Pi's own plug stays in, it is told nothing."""
        self.run("ip", "link", "set", TAP, "down")

    def link_up(self) -> None:
        self.run("ip", "link", "set", TAP, "up")

    def close(self) -> None:
        for process in reversed(self._started):
            end(process)
        try:
            run("ip", "netns", "delete", self.name)
        except UnavailableError as error:
            raise AssertionError(f"the network does not end: {error}") from error
