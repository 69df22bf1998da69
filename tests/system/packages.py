"""What the virtual Pi needs of this host's Debian, and how it is had."""

import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = {
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "modprobe": "kmod",
    "cpio": "cpio",
    "xz": "xz-utils",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "ip": "iproute2",
}


class UnavailableError(Exception):
    """The virtual Pi cannot be made here; the message says what is missing."""


def run(*command: str | Path, **options) -> str:
    """Its output; UnavailableError with the last line that it wrote when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise UnavailableError(f"{command[0]} failed: {last}")
    return done.stdout


def have() -> None:
    """Make sure of root and of every tool; installs those that are missing, and no other.

    Raises UnavailableError, in words, when that is not possible.
    """
    if os.geteuid() != 0:
        raise UnavailableError("a network and a system's files need root")
    missing = [package for tool, package in PACKAGES.items() if shutil.which(tool) is None]
    if missing:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "--no-remove")
        run("apt-get", "update", "-qq")
        run(*install, *missing, env=quiet)


def chronyd(folder: Path) -> Path:
    """The program of the NTP server, this host's or one unpacked below `folder`.

    Installed, chrony would throw out the host's own time service and take over its clock.
    """
    found = shutil.which("chronyd")
    if found is not None:
        return Path(found)
    program = folder / "usr/sbin/chronyd"
    if not program.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # As the user of its own that apt downloads as, it could not write there.
        run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "chrony", cwd=folder)
        (package,) = folder.glob("chrony_*.deb")
        run("dpkg-deb", "--extract", package, folder)
        package.unlink()
    return program
