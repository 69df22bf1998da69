"""The copy of secret and id: what it heals, and what it must leave alone."""

import base64
import logging
import os

import pytest

from kiosk import spare
from kiosk.config import Paths, Server, Settings
from kiosk.errors import VaultError
from kiosk.identity import ID_FILE, device, open_vault, wrap_secret
from kiosk.state import open_state
from kiosk.vault import KEY_FILE

NAMES = (KEY_FILE, ID_FILE)


@pytest.fixture
def folder(tmp_path):
    """A state folder with secret, id and their copy."""
    open_vault(tmp_path, {})
    device(tmp_path)
    spare.keep(tmp_path, NAMES)
    return tmp_path


def flipped(path):
    """Turn one bit of a file."""
    data = bytearray(path.read_bytes())
    data[3] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [flipped, os.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_put_back(folder, caplog, name, damage):
    """As it was, and loudly: a card that does this is dying. Without the copy it stays damaged."""
    right = (folder / name).read_bytes()
    copy = (folder / spare.SPARE_FILE).read_bytes()
    (folder / spare.SPARE_FILE).unlink()
    damage(folder / name)
    assert spare.heal(folder, NAMES) == ()
    assert not (folder / name).exists() or (folder / name).read_bytes() != right
    (folder / spare.SPARE_FILE).write_bytes(copy)
    (folder / spare.SPARE_FILE).chmod(0o600)
    assert spare.heal(folder, NAMES) == (name,)
    assert (folder / name).read_bytes() == right
    assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert [(r.levelno, r.message) for r in caplog.records] == [
        (logging.CRITICAL, "identity.healed")
    ]
    assert spare.heal(folder, NAMES) == ()


def test_a_damaged_copy_heals_nothing(folder):
    """Wherever it is hurt it is not believed, and made anew once the files have proved right."""
    right = (folder / KEY_FILE).read_bytes()
    path = folder / spare.SPARE_FILE
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        hurt = bytearray(whole)
        hurt[place] ^= 1
        path.write_bytes(hurt)
        assert spare.heal(folder, NAMES) == ()
        path.write_bytes(whole[:place])
        assert spare.heal(folder, NAMES) == ()
    assert (folder / KEY_FILE).read_bytes() == right
    spare.keep(folder, NAMES)
    assert path.read_bytes() == whole


def test_a_file_that_others_may_read_is_not_healed(folder):
    """It is refused by its name: a copy over it would hide that the secret is known."""
    (folder / KEY_FILE).chmod(0o644)
    assert spare.heal(folder, NAMES) == ()
    with pytest.raises(VaultError, match="expected mode 0600"):
        open_vault(folder, {})


def test_the_copy_is_as_private_as_the_files(folder):
    """Mode 0600; one that others could have written is not believed."""
    path = folder / spare.SPARE_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    flipped(folder / KEY_FILE)
    assert spare.heal(folder, NAMES) == ()


def test_a_change_that_was_cut_off_is_completed(folder, monkeypatch):
    """The copy is written first: after a power cut between the two the new id holds."""
    whole = spare.write_atomic

    def cut(path, content):
        if path.name == ID_FILE:
            raise VaultError("the power went")
        whole(path, content)

    monkeypatch.setattr(spare, "write_atomic", cut)
    with pytest.raises(VaultError):
        spare.change(folder / ID_FILE, b"new\n")
    monkeypatch.setattr(spare, "write_atomic", whole)
    assert spare.heal(folder, NAMES) == (ID_FILE,)
    assert (folder / ID_FILE).read_bytes() == b"new\n"


def test_a_wrapped_secret_is_not_bare_in_the_copy(folder, tmp_path_factory):
    """What is sealed under the board's key is sealed in the copy too, from the first moment."""
    bare = spare._kept(folder)[KEY_FILE]
    credentials = tmp_path_factory.mktemp("credentials")
    (credentials / "kiosk.board-key").write_bytes(b"b" * 32)
    wrap_secret(folder, {"CREDENTIALS_DIRECTORY": str(credentials)})
    kept = spare._kept(folder)[KEY_FILE]
    assert kept == (folder / KEY_FILE).read_bytes()
    assert bare not in kept


def test_a_disk_that_takes_no_copy_is_told_of(folder, monkeypatch, caplog):
    """The kiosk starts all the same."""

    def full(path, content):
        raise VaultError("no space")

    (folder / spare.SPARE_FILE).unlink()
    monkeypatch.setattr(spare, "write_atomic", full)
    spare.keep(folder, NAMES)
    assert [record.message for record in caplog.records] == ["identity.no_copy"]


def test_a_secret_that_a_credential_brings_is_never_written_back(tmp_path, monkeypatch):
    """Its owner took it off the card: neither the file nor the copy brings it back."""
    folder, credentials = tmp_path / "state", tmp_path / "credentials"
    credentials.mkdir()
    paths = Paths(state_dir=str(folder), runtime_dir=str(tmp_path / "run"))
    settings = Settings(server=Server("https://a.example"), paths=paths)
    state = open_state(settings)
    state.keep_spare()
    state.close()
    secret = (folder / KEY_FILE).read_bytes()
    (credentials / "kiosk.secret").write_bytes(secret)
    (folder / KEY_FILE).unlink()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    for _ in range(2):
        state = open_state(settings)
        state.keep_spare()
        state.close()
    assert not (folder / KEY_FILE).exists()
    assert base64.b64encode(secret) not in (folder / "device.spare").read_bytes()
