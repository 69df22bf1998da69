"""What is sent: the release's wheel, and the packages that it needs on the Pi's own Python."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sender.commit import Commit, described, tree_of
from sender.refusal import DeployError

Say = Callable[[str], None]
# Zip knows no earlier time.
_EARLIEST = 315_532_800
_FROM_PYPI = "the first deploy fetches from PyPI: see to this machine's network, or pip's index"
_TARGETS = {"aarch64": "aarch64", "x86_64": "x86_64"}
# Newest first; bookworm's C library is 2.36, trixie's 2.41.
_GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014")


@dataclass(frozen=True, slots=True)
class Target:
    """A Pi's system, as far as packages go: which lock, which Python, which processor."""

    codename: str
    python: str
    machine: str

    @property
    def lock(self) -> str:
        """The lock's name in `deploy/locks`."""
        return f"pi-{self.codename}.txt"


@dataclass(frozen=True, slots=True)
class File:
    """A file to send."""

    path: Path
    sha256: str
    size: int

    @property
    def facts(self) -> dict[str, Any]:
        """As the Pi is told of it."""
        return {"name": self.path.name, "sha256": self.sha256, "size": self.size}


def file_at(path: Path) -> File:
    """A file with its hash."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return File(path, digest, path.stat().st_size)


@dataclass(frozen=True, slots=True)
class Release:
    """All of a release for one target."""

    name: str
    version: str
    parcel: File
    wheels: tuple[File, ...]
    libraries: str


def release_for(checkout: Path, commit: Commit, target: Target, say: Say) -> Release:
    """Build the release of a commit for a Pi; what was built before is taken from `.cache`.

    DeployError when a package of the lock cannot be had or has another hash.
    """
    cache = checkout / ".cache"
    # Two deploys at once, to two Pis, would build it into one another's folder.
    with alone(cache / "parcels" / commit.id), tree_of(checkout, commit) as tree:
        wheel = build_wheel(tree, commit, cache, say)
        lock = tree / "deploy/locks" / target.lock
        if not lock.exists():
            raise DeployError(f"{lock.name}: expected among the locks, it is not there")
        wheels = wheelhouse(lock, target, cache, say)
        lock_hash = hashlib.sha256(lock.read_bytes()).hexdigest()
        libraries = f"{target.codename}-py{target.python}-{target.machine}-{lock_hash[:12]}"
        version = wheel.name.split("-")[1]
        name = f"{version.partition('+')[0]}-{commit.short}{'-dirty' if commit.dirty else ''}"
        parcel = _parcel(tree, wheel, lock, cache / "parcels" / f"{name}-{target.codename}.zip")
    return Release(name, version, file_at(parcel), tuple(map(file_at, wheels)), libraries)


def build_wheel(tree: Path, commit: Commit, cache: Path, say: Say) -> Path:
    """The wheel of a tree, the same bytes from the same commit wherever it is built."""
    # A tag that came later gives the same commit another version.
    folder = cache / "wheels" / f"{commit.id}-{described(tree)}"
    found = list(folder.glob("face_kiosk-*.whl"))
    if found:
        return found[0]
    say("building the wheel")
    return build(tree, commit, cache, folder, "wheel")[0]


def build(tree: Path, commit: Commit, cache: Path, folder: Path, *kinds: str) -> list[Path]:
    """Build wheel or sdist of a tree into a folder, with the locked tools."""
    tools = build_tools(tree, cache)
    half = folder.with_name(f"{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    environ = {"SOURCE_DATE_EPOCH": str(max(commit.time, _EARLIEST)), "PYTHONHASHSEED": "0"}
    targets = [word for kind in kinds for word in ("-t", kind)]
    hatchling = (tools / "bin/python", "-m", "hatchling", "build")
    run(*hatchling, *targets, "-d", half, at=tree, env=environ)
    shutil.rmtree(folder, ignore_errors=True)
    half.replace(folder)
    return sorted(folder.iterdir())


def build_tools(tree: Path, cache: Path) -> Path:
    """An environment with the locked build tools, made once for a lock and a Python."""
    lock = tree / "deploy/locks/build.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = cache / "tools" / f"{digest}-py{sys.version_info.major}.{sys.version_info.minor}"
    with alone(folder):
        if (folder / "whole").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        pip = (folder / "bin/python", "-m", "pip", "install", "--quiet")
        run(*pip, "--disable-pip-version-check", "--require-hashes", "-r", lock)
        (folder / "whole").touch()
    return folder


def wheelhouse(lock: Path, target: Target, cache: Path, say: Say) -> list[Path]:
    """The lock's packages for a target, their hashes checked; fetched once for each lock."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = cache / "wheelhouse" / f"{target.codename}-py{target.python}-{target.machine}-{digest}"
    with alone(folder):
        if not folder.exists():
            say(f"fetching the packages of {lock.name} for {target.machine}")
            half = folder.with_name(f"{folder.name}.half")
            shutil.rmtree(half, ignore_errors=True)
            fetch(build_tools(lock.parent.parent.parent, cache), lock, target, half)
            half.replace(folder)
    return sorted(folder.glob("*.whl"))


def fetch(tools: Path, lock: Path, target: Target, folder: Path) -> None:
    """Download the lock's packages for another machine; DeployError with pip's own words."""
    if target.machine not in _TARGETS:
        raise DeployError(f"a processor of {', '.join(_TARGETS)} expected, got {target.machine}")
    digits = target.python.replace(".", "")
    words = [word for libc in _GLIBC for word in ("--platform", f"{libc}_{target.machine}")]
    words += [word for abi in (f"cp{digits}", "abi3", "none") for word in ("--abi", abi)]
    run(
        *(tools / "bin/python", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", target.python, *words, "-d", str(folder), "-r", str(lock)),
    )


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else makes what this path of the cache names; whoever comes second waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _parcel(tree: Path, wheel: Path, lock: Path, path: Path) -> Path:
    """The release in one file: its wheel, its lock, what goes to systemd, and the documents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    files = {wheel.name: wheel, "lock.txt": lock}
    for pattern in ("deploy/kiosk*", "deploy/*.conf.d/*", "docs/*.md", "README.md"):
        files |= {str(found.relative_to(tree)): found for found in tree.glob(pattern)}
    with zipfile.ZipFile(half, "w") as archive:
        for name, source in sorted(files.items()):
            # The same bytes for the same content, so that nothing is sent twice.
            archive.writestr(zipfile.ZipInfo(name), source.read_bytes(), zipfile.ZIP_DEFLATED)
    half.replace(path)
    return path


def run(*command: str | Path, at: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    """Run a program of the sender's own; DeployError with its last lines unless it succeeds."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, capture_output=True, cwd=at, env={**os.environ, **(env or {})}, check=False
    )
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).decode("utf-8", errors="replace").splitlines()
        # Five tries at a network that is away say nothing that the last line does not.
        lines = [line for line in lines if not line.startswith("WARNING: Retrying")] or lines
        hint = _FROM_PYPI if "pip" in words[:4] else ""
        raise DeployError(f"{' '.join(words[:4])}: {' | '.join(lines[-6:])}", hint)
