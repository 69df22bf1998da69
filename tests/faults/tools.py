"""What the harness needs of the operating system, and how it is had."""

import os
import shutil
import subprocess
from pathlib import Path

# CAP_SYS_PTRACE and CAP_SYS_ADMIN: root in a container often is without them.
_CAPABILITIES = 1 << 19 | 1 << 21
_PACKAGES = {"strace": "strace", "mkfs.xfs": "xfsprogs", "mkfs.ext4": "e2fsprogs"}


class MissingToolError(Exception):
    """A fault cannot be made here; the message says what is missing."""


def have(*names: str, install: bool) -> None:
    """Make sure of root and of these tools; MissingToolError, in words, without."""
    if os.geteuid() != 0 or not _allowed():
        raise MissingToolError("only root can mount a disk or stop a thread that is not its own")
    missing = [_PACKAGES[name] for name in names if shutil.which(name) is None]
    if missing and install:
        _install(missing)
    elif missing:
        raise MissingToolError(f"missing: {' '.join(missing)} (make test-faults installs them)")


def _allowed() -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (effective,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    return int(effective, 16) & _CAPABILITIES == _CAPABILITIES


def _install(packages: list[str]) -> None:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
        if done.returncode != 0:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise MissingToolError(f"{' '.join(command)} failed: {last}")
