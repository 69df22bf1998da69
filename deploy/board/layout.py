"""Where everything lies on the Pi."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SERVICE = "kiosk.service"
USER = "kiosk"
READY = "release.json"
"""In a release's folder once that is whole."""
# So many bytes must stay free beside what is sent and unpacked.
SPARE_BYTES = 200 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below a root, which only a test chooses."""

    root: Path = Path("/")

    @property
    def home(self) -> Path:
        """Releases, what they share, and what a trial notes."""
        return self.root / "opt/kiosk"

    @property
    def releases(self) -> Path:
        """A folder for each release, named after it."""
        return self.home / "releases"

    @property
    def current(self) -> Path:
        """The link that decides which release runs."""
        return self.home / "current"

    @property
    def previous(self) -> Path:
        """The link to the release that a rollback goes to."""
        return self.home / "previous"

    @property
    def wheels(self) -> Path:
        """Packages as they were sent, those of the last releases."""
        return self.home / "wheels"

    @property
    def libraries(self) -> Path:
        """Installed packages, a folder for each lock: releases with one lock share it."""
        return self.home / "libraries"

    @property
    def incoming(self) -> Path:
        """What is being sent."""
        return self.home / "incoming"

    @property
    def program(self) -> Path:
        """This program, for the trial and for the next boot."""
        return self.home / "board.pyz"

    @property
    def trial(self) -> Path:
        """There while a release is on trial: what to go back to."""
        return self.home / "trial.json"

    @property
    def plan(self) -> Path:
        """What a trial is begun with, until it begins."""
        return self.home / "trial.plan"

    @property
    def begun(self) -> Path:
        """The same once it has: nothing begins it a second time."""
        return self.home / "trial.begun"

    @property
    def trial_log(self) -> Path:
        """What the trial says, a JSON object a line."""
        return self.home / "trial.log"

    @property
    def history(self) -> Path:
        """Who deployed what, when, and what became of it; a JSON object a line."""
        return self.home / "history.jsonl"

    @property
    def settings(self) -> Path:
        """The kiosk's configuration."""
        return self.root / "etc/kiosk/kiosk.toml"

    @property
    def state(self) -> Path:
        """Queue, gallery, id."""
        return self.root / "var/lib/kiosk"

    @property
    def command(self) -> Path:
        """The running release's command, on everybody's path: the documents say `kiosk`."""
        return self.root / "usr/local/bin/kiosk"

    @property
    def units(self) -> Path:
        """Where systemd reads its units."""
        return self.root / "etc/systemd/system"

    @property
    def credential(self) -> Path:
        """The device's secret, sealed for this machine."""
        return self.root / "etc/credstore.encrypted/kiosk.secret"

    @property
    def lock(self) -> Path:
        """Held by whoever deploys."""
        return self.root / "run/kiosk-deploy.lock"

    def release(self, name: str) -> Path:
        """The folder of a release."""
        return self.releases / name

    def kiosk(self, release: Path) -> Path:
        """The command of a release."""
        return release / "venv/bin/kiosk"

    def named(self, link: Path) -> str:
        """The release that a link names, "" where it names none that is there."""
        if not link.is_symlink() or not link.exists():
            return ""
        return link.readlink().name


def folders(parent: Path) -> list[Path]:
    """The folders in a folder, none where that is not there; a link to one is none."""
    found = list(parent.iterdir()) if parent.exists() else []
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def point(link: Path, target: Path) -> None:
    """Make a link name another target, at once and for good: before or after, never between."""
    half = link.with_name(f"{link.name}.new")
    half.unlink(missing_ok=True)
    half.symlink_to(target)
    half.replace(link)
    sync_folder(link.parent)


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file as a whole, and wait until it is on the disk."""
    half = path.with_name(f"{path.name}.new")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    half.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
