"""`make release`: all that is published of a commit, in one folder, the same bytes each time."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from sender import sbom
from sender.build import Target, alone, build, build_tools, file_at, wheelhouse
from sender.commit import Commit, tree_of
from sender.link import zipped
from sender.refusal import DeployError

Say = Callable[[str], None]
SUMS = "SHA256SUMS"
# What a Raspberry Pi 4 or 5 runs: the two Debians, each with its own Python.
_SYSTEMS = (Target("bookworm", "3.11", "aarch64"), Target("trixie", "3.13", "aarch64"))
# What begins like this in the folder of releases is being made, or was when its maker was killed.
_HALF = ".half-"


def release(checkout: Path, commit: Commit, out: Path, say: Say) -> Path:
    """Build `out/<version>`: whole, or not at all.

    What is there already under the version is left where it has the same bytes, else replaced.
    """
    cache = checkout / ".cache"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with alone(cache / "release"):
            for left in out.glob(f"{_HALF}*"):
                shutil.rmtree(left)
            # In the same folder, so that one rename puts it in its place.
            with tempfile.TemporaryDirectory(dir=out, prefix=_HALF) as name:
                half = Path(name)
                with tree_of(checkout, commit) as tree:
                    version = _fill(half / "new", tree, commit, cache, say)
                folder = out / version
                _put(half, folder, say)
    except OSError as error:
        raise DeployError(
            f"a folder to write a release into expected, OUT={out} came to: {error}",
            "nothing was replaced; free space there, or name another folder",
        ) from error
    if commit.dirty:
        say("made with uncommitted changes: nobody can build it again, do not publish it")
    return folder


def _fill(folder: Path, tree: Path, commit: Commit, cache: Path, say: Say) -> str:
    """Everything of a release into a new folder; its version."""
    say(f"building wheel and sdist of {commit.short}")
    # Not from the cache of deploys: a tag set since then makes another version of the commit.
    built = build(tree, commit, cache, folder, "wheel", "sdist")
    (wheel,) = [path for path in built if path.suffix == ".whl"]
    (folder / "board.pyz").write_bytes(zipped(tree / "deploy/board"))
    tools = build_tools(tree, cache)
    for system in _SYSTEMS:
        lock = tree / "deploy/locks" / system.lock
        wheels = wheelhouse(lock, system, cache, say)
        named = f"{system.codename}-{system.machine}"
        _pack(folder / f"wheelhouse-{named}.zip", [*wheels, lock])
        packages = sbom.packages_of(lock, wheels)
        bom = sbom.bom_of(tree, commit, tools, wheel, packages)
        (folder / f"sbom-{named}.cdx.json").write_text(bom, encoding="utf-8")
    (folder / SUMS).write_text(_sums(folder), encoding="utf-8")
    return wheel.name.split("-")[1]


def _pack(path: Path, files: Iterable[Path]) -> None:
    """Files as a zip that has the same bytes for the same names and contents."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(files, key=lambda file: file.name):
            # One time for all, and stored: how well zlib packs differs from machine to machine,
            # and wheels are packed already.
            entry = zipfile.ZipInfo(file.name)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, file.read_bytes())


def _sums(folder: Path) -> str:
    """The lines that `sha256sum -c` reads, for every file but the lines' own."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    return "".join(f"{file_at(path).sha256}  {path.name}\n" for path in files)


def _put(half: Path, folder: Path, say: Say) -> None:
    """Put `half/new` in its place."""
    new, old = half / "new", half / "old"
    if not folder.exists():
        new.replace(folder)
        say(f"{folder}: made")
        return
    if _sums_are(folder, (new / SUMS).read_text(encoding="utf-8")):
        say(f"{folder}: there already with the same bytes, left as it is")
        return
    folder.replace(old)
    try:
        new.replace(folder)
    except BaseException:
        old.replace(folder)
        raise
    say(f"{folder}: there already with other bytes, replaced")


def _sums_are(folder: Path, wanted: str) -> bool:
    """Whether a folder's sums are these, and true of what lies beside them."""
    try:
        return (folder / SUMS).read_text(encoding="utf-8") == wanted == _sums(folder)
    except (OSError, UnicodeDecodeError):
        return False
