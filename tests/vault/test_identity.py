"""Where the secret comes from, which board the id belongs to, and who may recover a dead card."""

import os

import pytest

from kiosk.errors import VaultError
from kiosk.identity import (
    BOARD_CREDENTIAL,
    ID_FILE,
    RECOVERY_FILE,
    SECRET_CREDENTIAL,
    board_serial,
    bound_device,
    device,
    has_credential,
    is_wrapped,
    leave_for_recovery,
    open_vault,
    recover_vault,
    wrap_secret,
)
from kiosk.vault import KEY_FILE, Vault, open_with, recovery_pair, seal_to

SECRET = bytes(range(32))
BOARD_KEY = bytes(range(100, 132))


@pytest.fixture
def credentials(tmp_path):
    """Make an environment with credentials as systemd hands them in."""
    folder = tmp_path / "credentials"
    folder.mkdir()

    def hand_in(**named):
        for name, content in named.items():
            (folder / f"kiosk.{name.replace('_', '-')}").write_bytes(content)
        return {"CREDENTIALS_DIRECTORY": str(folder)}

    assert (SECRET_CREDENTIAL, BOARD_CREDENTIAL) == ("kiosk.secret", "kiosk.board-key")
    return hand_in


@pytest.fixture
def home(tmp_path):
    """An empty state folder."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder


def test_a_credential_is_the_secret_and_leaves_no_file(home, credentials):
    """What systemd unseals for the unit lies nowhere else."""
    environ = credentials(secret=SECRET)
    assert has_credential(environ)
    assert open_vault(home, environ).sign_key == Vault(SECRET).sign_key
    assert list(home.iterdir()) == []
    assert not has_credential({})
    assert not has_credential(credentials() | {"CREDENTIALS_DIRECTORY": ""})


@pytest.mark.parametrize("content", [b"", SECRET[:31], SECRET + b"\n"])
def test_a_credential_of_another_length_is_refused(home, credentials, content):
    """Named, with what came."""
    with pytest.raises(VaultError, match=r"kiosk\.secret: expected 32 bytes, got"):
        open_vault(home, credentials(secret=content))


def test_two_secrets_that_differ_are_never_guessed_between(home, credentials):
    """One of them sealed what lies there; with the wrong one all would look damaged."""
    first = open_vault(home, {})
    with pytest.raises(VaultError, match=r"expected the secret in .* got another"):
        open_vault(home, credentials(secret=SECRET))
    same = credentials(secret=(home / KEY_FILE).read_bytes())
    assert open_vault(home, same).sign_key == first.sign_key


def test_a_credential_that_cannot_be_read_is_named(home, tmp_path):
    """A folder in its place, say."""
    (tmp_path / "bad" / SECRET_CREDENTIAL).mkdir(parents=True)
    with pytest.raises(VaultError, match="expected a credential of the service manager"):
        open_vault(home, {"CREDENTIALS_DIRECTORY": str(tmp_path / "bad")})


def test_with_a_boards_key_the_file_alone_opens_nothing(home, credentials):
    """Made sealed, opened on this board, refused without its key or with another's."""
    environ = credentials(board_key=BOARD_KEY)
    first = open_vault(home, environ)
    assert is_wrapped(home)
    assert open_vault(home, environ).sign_key == first.sign_key
    with pytest.raises(VaultError, match="sealed under a board's key"):
        open_vault(home, {})
    with pytest.raises(VaultError, match="do not authenticate"):
        open_vault(home, credentials(board_key=bytes(31) + b"\1"))


def test_a_bare_secret_is_wrapped_once_there_is_a_key(home, credentials):
    """The same secret as before; the bare bytes are gone from the file."""
    first = open_vault(home, {})
    bare = (home / KEY_FILE).read_bytes()
    environ = credentials(board_key=BOARD_KEY)
    assert open_vault(home, environ).sign_key == first.sign_key
    wrap_secret(home, environ)
    assert is_wrapped(home)
    assert bare not in (home / KEY_FILE).read_bytes()
    assert open_vault(home, environ).sign_key == first.sign_key
    assert (home / KEY_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("key", [None, bytes(32)])
def test_a_memory_that_was_never_written_is_no_key(home, credentials, key):
    """All zeros would be a key that everybody knows."""
    environ = credentials() if key is None else credentials(board_key=key)
    open_vault(home, environ)
    assert not is_wrapped(home)
    with pytest.raises(VaultError, match="not all zero"):
        wrap_secret(home, environ)


def test_the_id_is_bound_to_the_first_board_and_new_on_another(home):
    """A copied card must not speak under the id of the kiosk that it was copied from."""
    vault = open_vault(home, {})
    first = device(home)
    assert bound_device(home, vault, "").id == first.id
    here = bound_device(home, vault, "1000000012345678")
    assert (here.id, here.former) == (first.id, "")
    assert bound_device(home, vault, "1000000012345678") == here == device(home)
    moved = bound_device(home, vault, "10000000deadbeef")
    assert moved.id != here.id
    assert moved.former == here.id
    assert bound_device(home, vault, "10000000deadbeef") == moved == device(home)
    # A serial number that cannot be read for once is no other board.
    assert bound_device(home, vault, "") == moved
    assert b"deadbeef" not in (home / ID_FILE).read_bytes()


def test_a_card_that_moves_twice_names_the_last_board(home):
    """The queue it carries was sealed there."""
    vault = open_vault(home, {})
    ids = [bound_device(home, vault, serial) for serial in ("a", "b", "c")]
    assert [one.former for one in ids] == ["", ids[0].id, ids[1].id]


def test_the_serial_number_is_read_without_its_zero_byte(tmp_path):
    """As a device tree holds it; "" where there is none."""
    path = tmp_path / "serial-number"
    path.write_bytes(b"10000000abcdef01\0")
    assert board_serial(path) == "10000000abcdef01"
    assert board_serial(tmp_path / "none") == ""


def test_the_sites_recovery_key_opens_a_dead_boards_card(home, credentials):
    """What the board's key sealed opens without the board; another key opens nothing."""
    environ = credentials(board_key=BOARD_KEY)
    first = open_vault(home, environ)
    private, public = recovery_pair()
    leave_for_recovery(home, public, environ)
    assert recover_vault(home, private).sign_key == first.sign_key
    with pytest.raises(VaultError, match="do not authenticate"):
        recover_vault(home, recovery_pair()[0])
    with pytest.raises(VaultError, match="expected a private key of 32 bytes, got 5"):
        recover_vault(home, b"short")
    assert (home / RECOVERY_FILE).stat().st_mode & 0o777 == 0o600


def test_without_a_recovery_file_that_is_said(home):
    """None was set at set-up: only the board itself opens this card."""
    with pytest.raises(VaultError, match="none was set at set-up"):
        recover_vault(home, os.urandom(32))


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(32)])
def test_what_is_no_public_key_seals_nothing(public):
    """Too short, or the point that makes every shared secret zero."""
    with pytest.raises(VaultError, match="expected a public key of 32 bytes"):
        seal_to(public, b"x", "c")


def test_sealing_to_a_key_is_bound_to_its_purpose():
    """Another context, another key or a changed byte opens nothing; two seals differ."""
    private, public = recovery_pair()
    blob = seal_to(public, b"secret", "one")
    assert open_with(private, blob, "one") == b"secret"
    assert seal_to(public, b"secret", "one") != blob
    with pytest.raises(VaultError):
        open_with(private, blob, "two")
    for place in (0, 31, 40, len(blob) - 1):
        damaged = bytearray(blob)
        damaged[place] ^= 1
        with pytest.raises(VaultError):
            open_with(private, bytes(damaged), "one")
