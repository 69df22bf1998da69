"""Which commit is sent, and its tree as git has it: no file that git does not know comes along."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sender.refusal import DeployError

# A file in here that git does not know was forgotten; anywhere else it is nobody's business.
_SENT = ("kiosk/", "models/", "deploy/", "docs/")
_HINT = "deploy from a git checkout of the kiosk"
# git rev-parse --local-env-vars, those that lead elsewhere.
_LOCAL = {
    f"GIT_{name}"
    for name in ("DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "COMMON_DIR", "PREFIX")
}


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit, or one made of a tree with uncommitted changes: `dirty`, in no branch."""

    id: str
    short: str
    dirty: bool
    time: int


def commit_of(checkout: Path, *, allow_dirty: bool) -> Commit:
    """The commit to send; DeployError for uncommitted changes unless they are allowed."""
    head = _git(checkout, "rev-parse", "--verify", "HEAD^{commit}")
    if _git(checkout, "rev-parse", "--show-prefix"):
        # Unpacked within a checkout of something else, whose commits say nothing of it.
        raise DeployError(f"{checkout}: expected a git checkout, it is a folder of another", _HINT)
    # NUL-separated: a file's name may hold anything else. Whatever the person's own settings hide.
    status = ("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames")
    changed = [entry for entry in _git(checkout, *status).split("\0") if entry and _counts(entry)]
    if changed and not allow_dirty:
        first = ascii(changed[0][3:])
        differ = "1 file differs" if len(changed) == 1 else f"{len(changed)} files differ"
        raise DeployError(
            f"expected a checkout without uncommitted changes, {differ} (the first: {first})",
            "commit or stash them, or say DIRTY=1: the release is marked with it",
        )
    commit = _snapshot(checkout, head) if changed else head
    time = int(_git(checkout, "show", "-s", "--format=%ct", commit))
    return Commit(commit, commit[:10], bool(changed), time)


def _counts(entry: str) -> bool:
    """Whether an entry of git's status changes what is sent; a stray file of one's own does not."""
    return not entry.startswith("?? ") or entry[3:].startswith(_SENT)


@contextmanager
def tree_of(checkout: Path, commit: Commit) -> Iterator[Path]:
    """The commit's tree in a folder of its own, tags beside it, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="kiosk-release-") as name:
        folder = Path(name) / "tree"
        clone = ("clone", "--quiet", "--shared", "--no-checkout")
        _git(Path(name), *clone, str(checkout), str(folder))
        _git(folder, "checkout", "--quiet", "--detach", commit.id)
        yield folder


def described(tree: Path) -> str:
    """What git calls the commit of a tree: its tag, or the last one and how far from it."""
    return _git(tree, "describe", "--tags", "--always").replace("/", "-")


def _snapshot(checkout: Path, head: str) -> str:
    """A commit of the tree as it lies there, made beside the index and every branch."""
    with tempfile.TemporaryDirectory() as name:
        index = {"GIT_INDEX_FILE": str(Path(name) / "index")}
        _git(checkout, "read-tree", "HEAD", environ=index)
        _git(checkout, "add", "--all", environ=index)
        tree = _git(checkout, "write-tree", environ=index)
    by = {
        "GIT_AUTHOR_NAME": "deploy",
        "GIT_AUTHOR_EMAIL": "deploy",
        "GIT_COMMITTER_NAME": "deploy",
        "GIT_COMMITTER_EMAIL": "deploy",
    }
    return _git(checkout, "commit-tree", tree, "-p", head, "-m", "uncommitted", environ=by)


def _surroundings() -> dict[str, str]:
    """The environment without another repository: a hook of git's that deploys has one in it."""
    kept = {name: value for name, value in os.environ.items() if name not in _LOCAL}
    # What is only looked at is not written to.
    return {**kept, "GIT_OPTIONAL_LOCKS": "0"}


def _git(folder: Path, *words: str, environ: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            env={**_surroundings(), **(environ or {})},
            check=False,
        )
    except FileNotFoundError as error:
        raise DeployError("git expected, it is not there", "install git") from error
    if done.returncode != 0:
        told = done.stderr.decode("utf-8", errors="replace").strip()
        raise DeployError(f"git {words[0]}: {told}", _HINT)
    return done.stdout.decode("utf-8", errors="surrogateescape").strip("\n")
