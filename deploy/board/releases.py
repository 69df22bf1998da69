"""A release on the Pi: unpacked beside the one that runs, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from board.commands import must
from board.layout import READY, Layout, folders, write
from board.parcels import place
from board.refusal import RefusedError

Say = Callable[[str], None]
_PYTHON = "/usr/bin/python3"
_QUIET = (
    *("--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "--no-index"),
    # All cores compile, afterwards; pip has one.
    "--no-compile",
)
# What no kiosk imports; it is half of what there is to compile, and a small board takes its time.
_NEVER_RUN = r"/(tests|onnxruntime/(quantization|tools|transformers)|kiosk/(lab|server))/"


def unpack(
    layout: Layout,
    say: Say,
    *,
    release: str,
    parcel: dict[str, Any],
    wheels: list[dict[str, Any]],
    libraries: str,
    facts: dict[str, Any],
) -> dict[str, bool]:
    """Make the folder of a release from what was sent; nothing that runs is touched.

    `parcel` is the release itself (its wheel, its lock, units, documents), `wheels` what it needs,
    `libraries` the name under which releases with the same lock share those.
    """
    folder = layout.release(release)
    if (folder / READY).exists():
        return {"new": False}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with zipfile.ZipFile(place(layout, parcel["name"], parcel["sha256"])) as archive:
        archive.extractall(folder)
    _make_readable(folder)
    found = [place(layout, wheel["name"], wheel["sha256"]) for wheel in wheels]
    shared = layout.libraries / libraries
    if not shared.exists():
        say(f"installing {len(found)} packages (hashes checked, nothing is fetched)")
        _install(folder / "lock.txt", found, shared)
    say("making the release's own environment")
    _environment(folder, shared)
    # Power that is lost in the trial finds all of it, or no release.
    os.sync()
    whole = {"release": release, "libraries": libraries, "wheels": wheels, **facts}
    write(folder / READY, json.dumps(whole).encode() + b"\n")
    return {"new": True}


def described(layout: Layout, name: str) -> dict[str, Any]:
    """What is known of a release, nothing for one that never was whole, or is spoilt."""
    if not name:
        return {}
    try:
        return dict(json.loads((layout.release(name) / READY).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return {}


def drop_unused_wheels(layout: Layout) -> None:
    """Keep the packages of the running release and the one before: they need not be sent again."""
    kept = (layout.named(layout.current), layout.named(layout.previous))
    used = {
        wheel["sha256"][:16] for name in kept for wheel in described(layout, name).get("wheels", ())
    }
    for folder in folders(layout.wheels):
        if folder.name not in used:
            shutil.rmtree(folder)


def _install(lock: Path, wheels: list[Path], shared: Path) -> None:
    """Install what the lock names into a folder, which gets its name when it is whole."""
    half = shared.with_name(f"{shared.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    folders = [word for wheel in wheels for word in ("--find-links", str(wheel.parent))]
    must(
        *(_PYTHON, "-B", _pip(wheels), "install", *_QUIET, *folders),
        *(
            "--require-hashes",
            "--only-binary=:all:",
            "--ignore-installed",
            "--no-warn-script-location",
        ),
        *("--target", half, "-r", lock),
        hint="the lock does not fit this Python, or the card is full; nothing was switched",
    )
    _compile(half, shared)
    # Its name must not be on the disk before its bytes are: the next deploy goes by the name.
    os.sync()
    half.replace(shared)


def _environment(folder: Path, shared: Path) -> None:
    """The system's interpreter, with the release's package and the shared ones before its own."""
    venv = folder / "venv"
    must(_PYTHON, "-m", "venv", "--without-pip", "--system-site-packages", venv)
    (site,) = venv.glob("lib/python3*/site-packages")
    write(site / "libraries.pth", f"{shared}\n".encode())
    (package,) = folder.glob("*.whl")
    must(
        # The shared packages have pip, compiled; out of its wheel it would be compiled each time.
        *(venv / "bin/python", "-B", "-m", "pip", "install", *_QUIET, "--no-deps", package),
        hint="the release's wheel does not install; nothing was switched",
    )
    _compile(site, site)
    package.unlink()


def _compile(folder: Path, as_folder: Path) -> None:
    """Compile what a kiosk may import: it may not write, and would compile at every start."""
    # By itself it would start a pool for one core too.
    cores = str(os.cpu_count() or 1)
    must(
        *(_PYTHON, "-m", "compileall", "-q", "-j", cores, "-x", _NEVER_RUN),
        *("-s", folder, "-p", as_folder, folder),
        hint="the card is full, or failing; nothing was switched",
    )


def _pip(wheels: list[Path]) -> str:
    """pip out of its own wheel: the system's Python has none."""
    found = [wheel for wheel in wheels if wheel.name.startswith("pip-")]
    if not found:
        raise RefusedError("pip expected among the packages, it is not", "see deploy/locks")
    return f"{found[0]}/pip"


def _make_readable(folder: Path) -> None:
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
