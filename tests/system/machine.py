"""The virtual Pi: a whole aarch64 machine with Debian, without a single Pi's own part."""

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.site import until
from system.image import Image
from system.network import HANG_S, PI, TAP, Network, end
from system.packages import run
from system.rootfs import USER

# The slowest seen on a busy host is 50 s.
BOOT_S = 300
MEMORY = "1536M"
_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
_PANIC = "Kernel panic"
_CONSOLE_LINES = 40
# With page tables of its own for the kernel, which a Pi's has not, an emulated core flushes what it
# has translated at every system call. A program that lies elsewhere at each start is translated
# anew each time.
_COMMAND_LINE = (
    "root=/dev/vda rw console=ttyAMA0 loglevel=4 audit=0 systemd.show_status=1"
    " nokaslr norandmaps kpti=off mitigations=off"
)


@dataclass(frozen=True)
class Disk:
    """A second disk whose every write is kept, in order: /dev/vdb, by-id virtio-data."""

    path: Path
    """Raw and there already; crash_images.formatted() makes one."""

    @property
    def log(self) -> Path:
        """Every write since the last boot."""
        return self.path.with_suffix(".log")

    @property
    def before(self) -> Path:
        """What the disk held at the last boot."""
        return self.path.with_suffix(".before")

    def arguments(self) -> list[str]:
        """QEMU's, for a boot that begins a new log."""
        run("cp", "--sparse=always", self.path, self.before)
        self.log.write_bytes(b"")
        return [
            *("-blockdev", f"driver=file,node-name=data-file,filename={self.path}"),
            *("-blockdev", "driver=raw,node-name=data-raw,file=data-file"),
            *("-blockdev", f"driver=file,node-name=data-log,filename={self.log}"),
            *("-blockdev", "driver=blklogwrites,node-name=data,file=data-raw,log=data-log"),
            # What is given up is not written: a crash image could not show it.
            "-device",
            "virtio-blk-pci,drive=data,serial=data,discard=off,write-zeroes=off",
        ]


class VirtualPi:
    """One machine with a disk of its own over the image, kept in `folder` from boot to boot.

    `cpu`: "cortex-a72" (Pi 4) or "cortex-a76" (Pi 5). `pages`: "4k", or "16k", which only a
    cortex-a76 can. Off until boot().
    """

    def __init__(
        self,
        image: Image,
        network: Network,
        folder: Path,
        *,
        cpu: str = "cortex-a72",
        pages: str = "4k",
        second: Disk | None = None,
    ) -> None:
        self._image = image
        self._network = network
        self._folder = folder
        self._cpu = cpu
        self._pages = pages
        self._second = second
        self._process: subprocess.Popen | None = None
        self._connections: dict[str, subprocess.Popen] = {}
        # The path of a socket must not be long.
        self._sockets = tempfile.TemporaryDirectory(prefix="pi-")
        folder.mkdir(parents=True, exist_ok=True)
        self._overlay = folder / "root.qcow2"
        base = ("-b", image.disk, "-F", "qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", *base, self._overlay)

    def __enter__(self) -> "VirtualPi":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """QEMU's."""
        assert self._process is not None, "a machine that is on expected"
        return self._process.pid

    def boot(self, *, rtc: str | None = None) -> None:
        """Switch it on. `rtc`: the time that its clock shows ("2023-01-01T00:00:00")."""
        assert self._process is None, "a machine that is off expected"
        arguments = self._arguments()
        if rtc is not None:
            arguments += ["-rtc", f"base={rtc},clock=vm"]
        with (self._folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._network.inside("qemu-system-aarch64", *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _arguments(self) -> list[str]:
        return [
            # One core: with two the same work takes an eighth more, and most of it waits for one.
            *("-M", "virt", "-cpu", self._cpu, "-smp", "1", "-m", MEMORY),
            # Room for what it has translated: where that is full, it begins anew.
            *("-accel", "tcg,thread=multi,tb-size=1536", "-nodefaults", "-display", "none"),
            *("-kernel", str(self._image.kernel(self._pages))),
            *("-initrd", str(self._image.initrd(self._pages)), "-append", _COMMAND_LINE),
            # What QEMU was told to write is with the host's kernel when QEMU is killed.
            *("-drive", f"if=none,id=root,file={self._overlay},format=qcow2,cache=unsafe"),
            *("-device", "virtio-blk-pci,drive=root,serial=root"),
            *(self._second.arguments() if self._second is not None else ()),
            *("-netdev", f"tap,id=network,ifname={TAP},script=no,downscript=no"),
            *("-device", "virtio-net-pci,netdev=network,romfile="),
            *("-object", "rng-random,id=random,filename=/dev/urandom"),
            *("-device", "virtio-rng-pci,rng=random"),
            *("-device", "i6300esb", "-action", "watchdog=reset"),
            *("-qmp", f"unix:{self._monitor},server=on,wait=off"),
            *("-serial", f"file:{self._folder / 'console.log'}"),
        ]

    @property
    def _monitor(self) -> Path:
        return Path(self._sockets.name) / "monitor"

    def console(self) -> str:
        """What the kernel and systemd said since the last boot()."""
        path = self._folder / "console.log"
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return text.replace("\r", "")

    def _diagnosis(self) -> str:
        said = (self._folder / "qemu.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join([said, *self.console().splitlines()[-_CONSOLE_LINES:]])

    def ssh_command(self, user: str = "root") -> list[str]:
        """ssh with its options, for a program that wants to know it, as rsync does.

        It is to be run on the test's side of the network.
        """
        return [
            *("ssh", "-i", str(self._image.key), "-l", user, "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20"),
            *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
        ]

    def ssh(
        self, command: str, *, user: str = "root", check: bool = True, **named
    ) -> subprocess.CompletedProcess:
        """Have its shell run a command; the finished process with its output as text."""
        shared = ("-S", self._connection(user))
        return self._network.run(
            *self.ssh_command(user), *shared, PI, command, check=check, **named
        )

    def _connection(self, user: str) -> Path:
        """The socket of a connection that commands share: to make one takes seconds.

        Where it cannot be made, ssh tries again and says why.
        """
        path = Path(self._sockets.name) / user
        kept = self._connections.get(user)
        if kept is None or kept.poll() is not None:
            path.unlink(missing_ok=True)
            opening = (*self.ssh_command(user), "-M", "-N", "-S", path, PI)
            process = self._network.start(*opening, log="ssh")
            self._connections[user] = process
            until("a connection", lambda: path.exists() or process.poll() is not None, HANG_S)
        return path

    def _disconnect(self) -> None:
        """Nobody answers on what was connected to a machine that is no more."""
        while self._connections:
            end(self._connections.popitem()[1])

    def as_pi(self, command: str, *, check: bool = True, **named) -> subprocess.CompletedProcess:
        """The same, as the user of every Pi, who may sudo without a password."""
        return self.ssh(command, user=USER, check=check, **named)

    def wait_ready(self, within_s: float = BOOT_S, *, not_boot: str = "") -> str:
        """Wait until it has booted; what systemd says of it, "running" when nothing failed.

        `not_boot`: the boot_id that is to be over, where it is to boot by itself.
        """

        def state() -> str:
            assert self._process is not None, "a machine that is on expected"
            try:
                asked = (*self.ssh_command(), PI, f"{_BOOT_ID}; systemctl is-system-running --wait")
                said = self._network.run(*asked, check=False)
            except subprocess.TimeoutExpired:
                return ""
            if self._process.poll() is not None:
                raise AssertionError("QEMU ended")
            boot, _, rest = said.stdout.partition("\n")
            return rest.strip() if boot != not_boot else ""

        self._disconnect()
        try:
            return str(until("a machine that has booted", state, within_s))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._diagnosis()}") from error

    def boot_id(self) -> str:
        """Another with each boot."""
        return self.ssh(_BOOT_ID).stdout.strip()

    def crash(self) -> None:
        """Stop its kernel where it is: only the watchdog starts it again."""
        before = self.console().count(_PANIC)
        # Later, and on its own, so that ssh gets its answer.
        self.ssh("(sleep 1; echo c >/proc/sysrq-trigger) </dev/null >/dev/null 2>&1 &")
        until("a kernel that stopped", lambda: self.console().count(_PANIC) > before, HANG_S)

    def monitor(self, command: str) -> str:
        """Have QEMU's own monitor run a command ("set_link network off"); what it says."""

        def answers() -> socket.socket | None:
            """It has just been started, perhaps."""
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self._monitor))
            except OSError:
                connection.close()
                return None
            return connection

        connection = until("QEMU's monitor", answers, HANG_S)
        assert isinstance(connection, socket.socket)
        with connection:
            connection.settimeout(HANG_S)
            with connection.makefile("rwb") as stream:
                stream.readline()
                _ask(stream, "qmp_capabilities")
                arguments = {"command-line": command}
                return str(_ask(stream, "human-monitor-command", arguments))

    @contextmanager
    def disassembled(self, path: Path) -> Iterator[None]:
        """Meanwhile QEMU writes all code down that it meets for the first time, disassembled."""
        self.monitor(f"logfile {path}")
        self.monitor("log in_asm")
        try:
            yield
        finally:
            self.monitor("log none")

    def kill(self) -> None:
        """Pull the plug: nothing that runs in it, nor QEMU, gets to do anything more."""
        os.kill(self.pid, 9)
        self._ended()

    def wait_off(self, within_s: float = HANG_S) -> None:
        """Wait until it has switched itself off."""
        assert self._process is not None, "a machine that is on expected"
        self._process.wait(within_s)
        self._ended()

    def _ended(self) -> None:
        assert self._process is not None
        self._process.wait(HANG_S)
        self._disconnect()
        self._process = None

    def close(self) -> None:
        self._disconnect()
        if self._process is not None:
            end(self._process)
            self._process = None
        self._sockets.cleanup()


def _ask(stream, name: str, arguments: dict | None = None) -> object:
    """Its answer; the events that come before it are of no interest."""
    request = {"execute": name, "arguments": arguments or {}}
    stream.write(json.dumps(request).encode() + b"\n")
    stream.flush()
    for line in stream:
        answer = json.loads(line)
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            raise AssertionError(f"{name}: {answer['error']['desc']}")
    raise AssertionError(f"{name}: QEMU ended before it answered")
