"""What this machine is, and what of it will not do."""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from board.commands import run, there
from board.layout import SPARE_BYTES, USER, Layout
from board.refusal import RefusedError

# The newest Debian that a wheel of the lock was built for is older than both.
MACHINES = {"aarch64": "arm64", "x86_64": "amd64"}
_LEAST_SYSTEMD = 252
# There where systemd is the first process (sd_booted).
_RUNNING = Path("/run/systemd/system")
# Firmware's word for the power supply: bit 0 now, bit 16 since the start (vcgencmd).
_UNDER_VOLTAGE = 0x1_0001
_TOOLS = ("runuser", "useradd", "systemd-run", "systemd-creds", "timedatectl")


@dataclass(slots=True)
class Facts:
    """What the sender needs to know; `missing` forbids a deploy, `warnings` do not."""

    board: str = ""
    machine: str = ""
    system: str = ""
    codename: str = ""
    python: str = ""
    systemd: int = 0
    free_mb: int = 0
    utc: float = 0.0
    synchronised: bool = False
    timezone: str = ""
    cameras: list[str] = field(default_factory=list)
    power: str = "unknown"
    modules: dict[str, bool] = field(default_factory=dict)
    release: str = ""
    previous: str = ""
    active: str = ""
    has_settings: bool = False
    settings: str = ""
    device: str = ""
    missing: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def examine(layout: Layout) -> Facts:
    """Look at everything; nothing is changed."""
    facts = Facts()
    facts.board = _read("/sys/firmware/devicetree/base/model") or "not a Raspberry Pi"
    facts.machine = platform.machine()
    facts.python = f"{sys.version_info.major}.{sys.version_info.minor}"
    facts.system, facts.codename = _system()
    facts.systemd = _systemd()
    facts.free_mb = shutil.disk_usage(_existing(layout.home)).free >> 20
    facts.utc = time.time()
    facts.synchronised = _property("NTPSynchronized") == "yes"
    facts.timezone = _property("Timezone")
    facts.cameras = _cameras()
    facts.power = _power()
    facts.modules = {name: imports(name) for name in ("systemd", "picamera2", "lgpio")}
    facts.release = layout.named(layout.current)
    facts.previous = layout.named(layout.previous)
    facts.active = _active()
    facts.has_settings = layout.settings.exists()
    if facts.has_settings:
        facts.settings = layout.settings.read_bytes().decode("utf-8", errors="replace")
    facts.missing = [{"what": what, "hint": hint} for what, hint in _missing(facts, layout)]
    facts.warnings = list(_warnings(facts))
    return facts


def _missing(facts: Facts, layout: Layout) -> Iterator[tuple[str, str]]:
    """What forbids a deploy."""
    if os.geteuid() != 0:
        yield "root expected, got another user", "deploy as a user that may use sudo"
    if facts.machine not in MACHINES or sys.maxsize < 1 << 32:
        bits = sys.maxsize.bit_length() + 1
        yield (
            f"a 64-bit system expected, got {facts.machine} with {bits} bits",
            "install the 64-bit Raspberry Pi OS",
        )
    if facts.codename not in {"bookworm", "trixie"}:
        yield (
            f"Raspberry Pi OS bookworm or trixie expected, got {facts.system or 'an unknown one'}",
            "there are locked packages for these two",
        )
    if not _RUNNING.is_dir():
        yield "systemd expected as the first process, it is not", "the kiosk is a service of it"
    elif facts.systemd < _LEAST_SYSTEMD:
        yield (
            f"systemd {_LEAST_SYSTEMD} or newer expected, got {facts.systemd}",
            "upgrade the system",
        )
    for tool in _TOOLS:
        if not there(tool):
            yield (
                f"{tool} expected, it is not there",
                "apt-get install util-linux passwd systemd tar",
            )
    yield from _somebody()
    place = _existing(layout.home)
    if not _writable(place):
        yield (
            f"{place}: expected to be writable, it is not",
            "undo the read-only root for the deploy",
        )
    elif facts.free_mb < SPARE_BYTES >> 20:
        yield (
            f"{place}: expected {SPARE_BYTES >> 20} MB free at least, got {facts.free_mb} MB",
            "make room, or use a larger card",
        )


def _warnings(facts: Facts) -> Iterator[str]:
    if not facts.synchronised:
        yield "the clock is not synchronised: times of punches are estimated until it is"
    if facts.power == "too weak":
        yield "the power supply is too weak (under-voltage): use the official one"
    if not facts.cameras:
        yield "no camera was found"


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().rstrip(b"\0\n").decode("utf-8", errors="replace")
    except OSError:
        return ""


def _system() -> tuple[str, str]:
    try:
        said = platform.freedesktop_os_release()
    except OSError:
        return "", ""
    return said.get("PRETTY_NAME", ""), said.get("VERSION_CODENAME", "")


def _systemd() -> int:
    if not there("systemctl"):
        return 0
    words = run("systemctl", "--version").stdout.split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _property(name: str) -> str:
    if not there("timedatectl"):
        return ""
    done = run("timedatectl", "show", "-p", name, "--value")
    return done.stdout.decode().strip() if done.returncode == 0 else ""


def _cameras() -> list[str]:
    """USB cameras by their stable names, and what a Pi's own camera shows up as."""
    found = sorted(str(path) for path in Path("/dev/v4l/by-id").glob("*-video-index0"))
    return found or sorted(str(path) for path in Path("/dev").glob("video[0-9]*"))


def _power() -> str:
    if not there("vcgencmd"):
        return "unknown"
    word = run("vcgencmd", "get_throttled").stdout.decode().partition("=")[2].strip()
    try:
        return "too weak" if int(word, 16) & _UNDER_VOLTAGE else "good"
    except ValueError:
        return "unknown"


def imports(module: str) -> bool:
    """Whether the system's own Python has a module: it is asked for it."""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", f"import {module}"],
        capture_output=True,
        cwd="/",
        check=False,
        timeout=120,
    )
    return done.returncode == 0


def _active() -> str:
    try:
        return run("systemctl", "is-active", "kiosk.service").stdout.decode().strip()
    except RefusedError:
        return ""


def _somebody() -> Iterator[tuple[str, str]]:
    """The name of the kiosk's user is a person's: with that one's rights, and gone uninstalled."""
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        return
    if not user.pw_shell.endswith(("/nologin", "/false")):
        yield (
            f"{USER} expected to be a service's user, it is one who logs in",
            f"let that person have another name than {USER}",
        )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return path if path.exists() else _existing(path.parent)


def _writable(folder: Path) -> bool:
    try:
        return not os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError:
        return False
