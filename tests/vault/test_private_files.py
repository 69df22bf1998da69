"""Files of the vault: made once, private, whole or not there."""

import os
import stat
import threading
from pathlib import Path

import pytest

from kiosk import vault
from kiosk.errors import VaultError
from kiosk.identity import device, open_vault
from kiosk.vault import write_atomic


def test_the_first_start_makes_a_private_secret_and_keeps_it(tmp_path):
    """32 random bytes, mode 0600, the same at every start, and nothing left beside it."""
    first = open_vault(tmp_path)
    path = tmp_path / "device.secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32
    assert open_vault(tmp_path).sign_key == first.sign_key
    assert [entry.name for entry in tmp_path.iterdir()] == ["device.secret"]


def test_the_umask_does_not_open_the_secret(tmp_path):
    """The mode is set by us, not left to the umask of whoever starts the kiosk."""
    before = os.umask(0)
    try:
        open_vault(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "device.secret").stat().st_mode) == 0o600


def test_two_devices_have_two_secrets(tmp_path):
    """The secret is random, not derived from anything a thief could know."""
    homes = [tmp_path / "a", tmp_path / "b"]
    for home in homes:
        home.mkdir()
    assert open_vault(homes[0]).sign_key != open_vault(homes[1]).sign_key
    assert device(homes[0]).id != device(homes[1]).id


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o777])
def test_a_secret_that_others_can_reach_is_refused(tmp_path, mode):
    """Group or world permission is named, with what to do."""
    open_vault(tmp_path)
    path = tmp_path / "device.secret"
    path.chmod(mode)
    with pytest.raises(VaultError, match=rf"device.secret: expected mode 0600, got {mode:04o}"):
        open_vault(tmp_path)


def test_a_secret_of_another_user_is_refused(tmp_path, monkeypatch):
    """Whoever owns the file can read it whatever its mode."""
    open_vault(tmp_path)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(VaultError, match=rf"owner of user id {owner + 1}, got {owner}"):
        open_vault(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33, b"x" * 10_000])
def test_a_secret_of_another_length_is_refused_and_left_alone(tmp_path, content):
    """A damaged secret is never replaced: with it all that is sealed would be lost."""
    path = tmp_path / "device.secret"
    write_atomic(path, content)
    with pytest.raises(VaultError, match=r"device\.secret: expected 32 bytes, got"):
        open_vault(tmp_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_is_refused(tmp_path, dangling):
    """A link in its place could lead to a file that others know, or create one elsewhere."""
    target = tmp_path / "elsewhere"
    if not dangling:
        write_atomic(target, bytes(32))
    (tmp_path / "device.secret").symlink_to(target)
    with pytest.raises(VaultError, match="expected a plain file, got a symbolic link"):
        open_vault(tmp_path)
    assert target.exists() is not dangling


def test_a_folder_or_a_pipe_is_refused_without_hanging(tmp_path):
    """Opening a pipe would wait for a writer for ever."""
    path = tmp_path / "device.secret"
    path.mkdir(mode=0o700)
    with pytest.raises(VaultError, match="expected a plain file"):
        open_vault(tmp_path)
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(VaultError, match="expected a plain file"):
        open_vault(tmp_path)


def test_a_lost_race_yields_the_winners_secret(tmp_path, monkeypatch):
    """If another process makes the secret between our look and our link, its secret is ours."""
    winner = b"w" * 32
    real = os.link

    def link(source, target, **options):
        write_atomic(tmp_path / "device.secret", winner)
        monkeypatch.setattr(os, "link", real)
        return real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    assert open_vault(tmp_path).sign_key == vault.Vault(winner).sign_key
    assert [entry.name for entry in tmp_path.iterdir()] == ["device.secret"]


@pytest.mark.parametrize("ask", [lambda home: open_vault(home).sign_key, device])
def test_many_creators_agree(tmp_path, ask):
    """However many start at once, there is one secret and one id."""
    barrier = threading.Barrier(8)
    answers = []

    def start():
        barrier.wait(timeout=30)
        answers.append(ask(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_the_device_id_is_made_once(tmp_path):
    """A random UUID in lower case, the same at every start."""
    first = device(tmp_path).id
    assert device(tmp_path).id == first
    assert (tmp_path / "device.id").read_text(encoding="ascii") == f"{first}\n"
    assert first[14] == "4"


@pytest.mark.parametrize("text", [b"", b"kiosk-1\n", b"\xff" * 36, b"0" * 36, b"x" * 9000])
def test_a_damaged_device_id_is_refused_and_left_alone(tmp_path, text):
    """The server knows the device by it: a damaged one is told, not replaced."""
    path = tmp_path / "device.id"
    write_atomic(path, text)
    with pytest.raises(VaultError, match=r"device\.id: expected a random UUID"):
        device(tmp_path)
    assert path.read_bytes() == text


@pytest.mark.parametrize("ask", [open_vault, device])
@pytest.mark.parametrize("where", ["absent", "file/below"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, ask, where):
    """A wrong state_dir is an error with its path and what to check."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(VaultError, match=rf"{where}/device\..*check the folder"):
        ask(tmp_path / where)


def test_replacing_leaves_only_the_new_content(tmp_path):
    """The content and the mode are the new ones, and no temporary file remains."""
    path = tmp_path / "gallery"
    write_atomic(path, b"old")
    write_atomic(path, b"new" * 1000, mode=0o640)
    assert path.read_bytes() == b"new" * 1000
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["gallery"]


def fail(*_: object, **__: object) -> None:
    """Fail as a full disk does."""
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("broken", ["fsync", "fchmod", "replace"])
def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    """Whatever step fails, the old content is there and no temporary file is."""
    path = tmp_path / "gallery"
    write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(VaultError, match=r"gallery: .*No space left.*free space"):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["gallery"]


def test_a_plain_write_would_lose_the_old_file(tmp_path, monkeypatch):
    """What the safeguard is for: writing in place and failing leaves neither old nor new."""
    path = tmp_path / "gallery"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with path.open("wb") as file:
        file.write(b"ne")
        file.flush()
        with pytest.raises(OSError, match="No space"):
            os.fsync(file.fileno())
    assert path.read_bytes() == b"ne"


def test_an_interrupt_leaves_no_temporary_file(tmp_path, monkeypatch):
    """Ctrl-C while writing cleans up and goes on its way."""

    def interrupt(_descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "gallery", b"new")
    assert list(tmp_path.iterdir()) == []


def test_file_and_folder_are_synced_around_the_rename(tmp_path, monkeypatch):
    """Content first, then the name, then the folder: a power cut finds the old or the new file."""
    happened = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        happened.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def replace(source, target):
        assert Path(source).parent == Path(target).parent
        happened.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomic(tmp_path / "gallery", b"new")
    assert happened == ["file", "rename", "folder"]


def test_a_folder_that_cannot_be_synced_is_told(tmp_path, monkeypatch):
    """The new content is in place, but whoever asked learns that it is not certain to last."""
    path = tmp_path / "gallery"
    write_atomic(path, b"old")
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            fail()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(VaultError, match=r"gallery: .*No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["gallery"]


def test_a_new_secret_is_synced_before_it_is_used(tmp_path, monkeypatch):
    """Nothing is sealed under a secret that a power cut could still take away."""
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(VaultError, match=r"device\.secret: .*No space left"):
        open_vault(tmp_path)
    assert list(tmp_path.iterdir()) == []
