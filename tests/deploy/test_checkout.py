"""What is sent is what git has; what it has not is named, or goes as a release of its own kind."""

import os
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sender import build
from sender.commit import commit_of, tree_of
from sender.refusal import DeployError

HOSTILE = {
    "a newline": b"kiosk/" + b"two\nlines",
    "quotes": b"kiosk/" + b'it\'s "so" `so` $(so)',
    "no UTF-8": b"kiosk/" + b"\xff\xfe",
    "a leading dash": b"kiosk/" + b"-rf",
    "an escape": b"kiosk/" + b"\x1b[2J",
    "another script": b"kiosk/" + "файл".encode(),
    "a blank at its end": b"kiosk/" + b"blank ",
}


class Checkout:
    """A small checkout with one commit."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        (folder / "kiosk").mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        (folder / ".gitignore").write_text("ignored\n")
        (folder / "file").write_text("one\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", "one")

    def git(self, *words):
        by = ("-c", "user.name=test", "-c", "user.email=test")
        command = ["git", "-C", self.folder, *by, *words]
        return subprocess.run(command, capture_output=True, check=True).stdout.decode().strip()

    def write(self, name, content="x"):
        path = os.path.join(os.fsencode(self.folder), name)  # noqa: PTH118 - names that are bytes
        Path(os.fsdecode(path)).write_text(content)

    def stands(self):
        """Branches, index, stash and files as they lie there."""
        index = (self.folder / ".git/index").read_bytes()
        references = self.git("for-each-ref"), self.git("reflog"), self.git("stash", "list")
        return index, references, self.git("status", "--porcelain", "--ignored")


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path / "kiosk")


def sent(checkout, *, allow_dirty=False):
    """The commit, and the files of the tree that is sent."""
    commit = commit_of(checkout.folder, allow_dirty=allow_dirty)
    with tree_of(checkout.folder, commit) as tree:
        names = {
            os.fsencode(path.relative_to(tree)): path.read_text()
            for path in tree.rglob("*")
            if path.is_file() and ".git" not in path.relative_to(tree).parts
        }
    return commit, names


def test_a_clean_checkout_is_its_commit(checkout):
    """Nothing is made of it: the very commit, and its files."""
    commit, names = sent(checkout)
    assert commit.id == checkout.git("rev-parse", "HEAD")
    assert not commit.dirty
    assert names == {b".gitignore": "ignored\n", b"file": "one\n"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_uncommitted_file_is_refused_by_its_name_in_plain_letters(checkout, kind):
    """Whatever it is called, a terminal shows it and is not told what to do by it."""
    checkout.write(HOSTILE[kind])
    with pytest.raises(DeployError, match="expected a checkout without uncommitted") as refused:
        commit_of(checkout.folder, allow_dirty=False)
    told = str(refused.value)
    assert told.isascii()
    assert told.isprintable()
    assert ascii(os.fsdecode(HOSTILE[kind])) in told
    assert "1 file differs" in told
    assert "say DIRTY=1" in told


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_uncommitted_file_is_sent_where_that_is_said(checkout, kind):
    """Marked, and in a commit that no branch has; the checkout stays as it is."""
    outside = HOSTILE[kind].removeprefix(b"kiosk/")
    checkout.write(HOSTILE[kind], "new")
    checkout.write(outside, "new")
    checkout.write(b"file", "two\n")
    checkout.write(b"staged")
    checkout.git("add", "staged")
    before, head = checkout.stands(), checkout.git("rev-parse", "HEAD")
    commit, names = sent(checkout, allow_dirty=True)
    assert commit.dirty
    assert names[HOSTILE[kind]] == names[outside] == "new"
    assert names[b"file"] == "two\n"
    assert b"staged" in names
    assert checkout.stands() == before
    assert checkout.git("rev-parse", f"{commit.id}^") == head
    assert not checkout.git("branch", "--all", "--contains", commit.id)


@pytest.mark.parametrize("how", ["changed", "deleted", "staged", "renamed"])
def test_every_kind_of_change_is_a_change(checkout, how):
    """Known to git and other than the commit, in the index or beside it."""
    if how == "changed":
        checkout.write(b"file", "two\n")
    elif how == "deleted":
        (checkout.folder / "file").unlink()
    elif how == "staged":
        checkout.write(b"file", "two\n")
        checkout.git("add", "file")
    else:
        checkout.git("mv", "file", "elsewhere")
    with pytest.raises(DeployError, match=r"the first: '(file|elsewhere)'"):
        commit_of(checkout.folder, allow_dirty=False)


def test_a_stray_file_beside_what_is_sent_is_nobodys_business(checkout):
    """One's own notes keep nobody from deploying, and stay at home."""
    checkout.write(b"notes.txt")
    commit, names = sent(checkout)
    assert not commit.dirty
    assert b"notes.txt" not in names


def test_a_file_is_seen_though_the_persons_settings_hide_it(checkout):
    """Untracked files that git status does not show would stay at home unnoticed."""
    checkout.git("config", "status.showUntrackedFiles", "no")
    checkout.write(b"kiosk/module.py")
    with pytest.raises(DeployError, match=r"module\.py"):
        commit_of(checkout.folder, allow_dirty=False)


def test_what_git_ignores_is_no_change_and_is_not_sent(checkout):
    """A build's remains or a secret beside the code go nowhere."""
    checkout.write(b"ignored")
    assert not commit_of(checkout.folder, allow_dirty=False).dirty
    checkout.write(b"file", "two\n")
    _, names = sent(checkout, allow_dirty=True)
    assert b"ignored" not in names


def test_a_dirty_release_has_it_in_its_name(checkout, monkeypatch, tmp_path):
    """Whoever looks at the Pi sees it."""
    (checkout.folder / "deploy/locks").mkdir(parents=True)
    checkout.write(b"deploy/locks/pi-trixie.txt")
    wheel = tmp_path / "face_kiosk-1.2.3+local-py3-none-any.whl"
    wheel.write_bytes(b"")
    monkeypatch.setattr(build, "build_wheel", lambda *_: wheel)
    monkeypatch.setattr(build, "wheelhouse", lambda *_: [])
    target = build.Target("trixie", "3.13", "aarch64")
    commit = commit_of(checkout.folder, allow_dirty=True)
    release = build.release_for(checkout.folder, commit, target, lambda _: None)
    assert release.name == f"1.2.3-{commit.short}-dirty"
    with zipfile.ZipFile(release.parcel.path) as archive:
        assert "lock.txt" in archive.namelist()


def test_two_deploys_of_a_commit_build_it_once(checkout, monkeypatch):
    """To two Pis, from two terminals: the second takes what the first has made."""
    (checkout.folder / "deploy/locks").mkdir(parents=True, exist_ok=True)
    checkout.write(b"deploy/locks/pi-trixie.txt")
    built = []

    def hatchling(*words, **_):
        built.append(words)
        folder = Path(words[words.index("-d") + 1])
        # Long enough for another to come meanwhile, who would begin with an empty folder.
        threading.Event().wait(0.3)
        (folder / "face_kiosk-1.2.3-py3-none-any.whl").write_bytes(b"wheel")

    monkeypatch.setattr(build, "run", hatchling)
    monkeypatch.setattr(build, "build_tools", lambda *_: Path("/nowhere"))
    monkeypatch.setattr(build, "wheelhouse", lambda *_: [])
    target = build.Target("trixie", "3.13", "aarch64")
    commit = commit_of(checkout.folder, allow_dirty=True)

    def deploy(_):
        return build.release_for(checkout.folder, commit, target, lambda _: None)

    with ThreadPoolExecutor() as pool:
        one, other = pool.map(deploy, range(2))
    assert one == other
    assert len(built) == 1


def test_looking_at_a_checkout_writes_nothing_to_it(checkout):
    """Not even its index: somebody may be at work with it."""
    os.utime(checkout.folder / "file", (1, 1))
    before = (checkout.folder / ".git/index").read_bytes()
    commit_of(checkout.folder, allow_dirty=False)
    assert (checkout.folder / ".git/index").read_bytes() == before


def test_a_hook_that_deploys_sends_this_checkout(checkout, monkeypatch, tmp_path):
    """What git tells its hooks of another repository does not lead there."""
    other = Checkout(tmp_path / "other")
    other.write(b"file", "another\n")
    other.git("commit", "--quiet", "--all", "-m", "another")
    monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.folder))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.folder / ".git/index"))
    _, names = sent(checkout)
    assert names[b"file"] == "one\n"


@pytest.mark.parametrize("kind", ["no checkout", "no commit", "within another", "not there"])
def test_without_a_checkout_there_is_nothing_to_send(tmp_path, checkout, kind):
    """Said in words, with where to deploy from."""
    folder = tmp_path / "folder"
    if kind == "within another":
        folder = checkout.folder / "folder"
    if kind != "not there":
        folder.mkdir()
    if kind == "no commit":
        subprocess.run(["git", "-C", folder, "init", "--quiet"], check=True)
    with pytest.raises(DeployError) as refused:
        commit_of(folder, allow_dirty=False)
    assert refused.value.hint == "deploy from a git checkout of the kiosk"


def test_without_git_it_is_said(checkout, monkeypatch, tmp_path):
    """By the sender's program, and before it by make."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeployError, match="git expected, it is not there"):
        commit_of(checkout.folder, allow_dirty=False)
    for name in ("bash", "sh", "grep", "find", "sed"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    command = ["/usr/bin/make", "--silent", "deploy", "PI=192.0.2.1", f"PYTHON={sys.executable}"]
    repository = Path(__file__).parent.parent.parent
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "git expected, not found: apt-get install git" in done.stdout + done.stderr
