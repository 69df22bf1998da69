"""Who this kiosk is: its secret, wherever that is kept, and its id, bound to the board.

The secret comes from the credential `kiosk.secret` where systemd hands one in (systemd.exec(5),
`LoadCredentialEncrypted=`), else from a file in the state folder. Where the owner has set a key in
the board's one-time-programmable memory, the credential `kiosk.board-key` carries it, and the file
is sealed under it: the card alone is then worth nothing.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kiosk import spare
from kiosk.errors import VaultError
from kiosk.vault import (
    KEY_FILE,
    SECRET_BYTES,
    Vault,
    open_with,
    read_or_create,
    read_private,
    seal_to,
    write_atomic,
)

ID_FILE = "device.id"
RECOVERY_FILE = "device.recovery"
SECRET_CREDENTIAL = "kiosk.secret"  # noqa: S105 - its name, not the secret
BOARD_CREDENTIAL = "kiosk.board-key"

_SEALED_SECRET = "device.secret/board"  # noqa: S105
_SEALED_RECOVERY = "device.secret/recovery"
_UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
# The id; which board it belongs to, as a keyed hash of the serial number; and on a card that was
# moved from another board, the id that it had there.
_ID_LINES = re.compile(rf"({_UUID4})(?:\nboard ([0-9a-f]{{32}}))?(?:\nformer ({_UUID4}))?\s*")
# Of the device tree that the firmware hands over; ends with a zero byte.
_SERIAL = Path("/sys/firmware/devicetree/base/serial-number")


@dataclass(frozen=True, slots=True)
class Device:
    """The id on the wire, `D1`; `former` is the one before the card came to this board, or ""."""

    id: str
    board: str = ""
    former: str = ""

    @property
    def lines(self) -> bytes:
        """The file's content."""
        text = self.id + (f"\nboard {self.board}" if self.board else "")
        return (text + (f"\nformer {self.former}" if self.former else "") + "\n").encode("ascii")


def open_vault(state_dir: Path, environ: Mapping[str, str] = os.environ) -> Vault:
    """Open the vault of `state_dir`, making its secret the first time.

    VaultError if the secret is not 32 bytes that only this user can read, if it is sealed under a
    board's key that is not here, or if credential and file differ.
    """
    return Vault(_secret(state_dir, environ))


def has_credential(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the service manager hands in the secret, so that no file is needed."""
    return _credential(SECRET_CREDENTIAL, environ) is not None


def device(state_dir: Path) -> Device:
    """Return the device of `state_dir`, its id a random UUID made the first time."""
    path = state_dir / ID_FILE
    content = read_or_create(path, lambda: Device(str(uuid.uuid4())).lines)
    match = _ID_LINES.fullmatch(content.decode("ascii", errors="replace"))
    if match is None:
        raise VaultError(
            f"{path}: expected a random UUID in lower case, got something else",
            hint="restore it from a backup; without it the server sees a new device",
        )
    name, board, former = match.groups(default="")
    return Device(name, board, former)


def bound_device(state_dir: Path, vault: Vault, serial: str) -> Device:
    """The device as this board has it: bound the first time, with a new id on another board.

    Without a serial number nothing is bound. Two boards must never speak under one id: their
    numbers would contradict each other, and a copied card would be the kiosk it was copied from.
    """
    known = device(state_dir)
    board = vault.tag(serial, "device.board").hex() if serial else ""
    if not board or board == known.board:
        return known
    here = Device(known.id, board, known.former)
    if known.board:
        here = Device(str(uuid.uuid4()), board, former=known.id)
    spare.change(state_dir / ID_FILE, here.lines)
    return here


def board_serial(path: Path = _SERIAL) -> str:
    """This board's serial number, "" where none is told."""
    try:
        return path.read_bytes().rstrip(b"\0").decode("ascii", errors="replace").strip()
    except OSError:
        # A PC has none there; what is not bound works all the same, and `kiosk doctor` says so.
        return ""


def is_wrapped(state_dir: Path) -> bool:
    """Whether the secret in the file is sealed under a board's key."""
    path = state_dir / KEY_FILE
    return path.exists() and len(read_private(path)) != SECRET_BYTES


def wrap_secret(state_dir: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Seal the secret's file under the board's key; VaultError without one."""
    key = _board_key(environ)
    if key is None:
        raise VaultError(
            f"credential {BOARD_CREDENTIAL}: expected 32 bytes that are not all zero, got none",
            hint="set the board's key (rpi-otp-private-key) and hand it in by LoadCredential=",
        )
    secret = _secret(state_dir, environ)
    spare.change(state_dir / KEY_FILE, Vault(key).seal(secret, _SEALED_SECRET))


def leave_for_recovery(
    state_dir: Path, public: bytes, environ: Mapping[str, str] = os.environ
) -> None:
    """Leave the secret beside the queue, sealed for the holder of the site's recovery key."""
    secret = _secret(state_dir, environ)
    write_atomic(state_dir / RECOVERY_FILE, seal_to(public, secret, _SEALED_RECOVERY))


def recover_vault(state_dir: Path, private: bytes) -> Vault:
    """Open the vault of another board's card with the site's recovery key; changes nothing."""
    path = state_dir / RECOVERY_FILE
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise VaultError(
            f"{path}: expected a secret left for recovery, got: {error.strerror}",
            hint="none was set at set-up (`kiosk key recovery`); only its board opens this card",
        ) from error
    return Vault(open_with(private, blob, _SEALED_RECOVERY))


def _secret(state_dir: Path, environ: Mapping[str, str]) -> bytes:
    path, key = state_dir / KEY_FILE, _board_key(environ)
    given = _credential(SECRET_CREDENTIAL, environ)
    if given is None:
        return _unwrapped(path, read_or_create(path, lambda: _new_secret(key)), key)
    _check_length(f"credential {SECRET_CREDENTIAL}", given)
    if path.exists() and _unwrapped(path, read_private(path), key) != given:
        raise VaultError(
            f"credential {SECRET_CREDENTIAL}: expected the secret in {path}, got another",
            hint="remove the one that nothing was sealed with; keep a copy until all opens",
        )
    return given


def _new_secret(board_key: bytes | None) -> bytes:
    secret = os.urandom(SECRET_BYTES)
    return secret if board_key is None else Vault(board_key).seal(secret, _SEALED_SECRET)


def _unwrapped(path: Path, content: bytes, board_key: bytes | None) -> bytes:
    # A bare secret is shorter than any sealed one, whatever it begins with.
    if len(content) != SECRET_BYTES and Vault.is_sealed(content):
        if board_key is None:
            raise VaultError(
                f"{path}: sealed under a board's key, and no credential {BOARD_CREDENTIAL} is here",
                hint="start it by its unit on the board that it was sealed on; elsewhere use the"
                " site's recovery key",
            )
        content = Vault(board_key).unseal(content, _SEALED_SECRET)
    _check_length(str(path), content)
    return content


def _check_length(what: str, secret: bytes) -> None:
    if len(secret) != SECRET_BYTES:
        raise VaultError(
            f"{what}: expected {SECRET_BYTES} bytes, got {len(secret)}",
            hint="restore it from a backup; what is sealed cannot be read without it",
        )


def _board_key(environ: Mapping[str, str]) -> bytes | None:
    key = _credential(BOARD_CREDENTIAL, environ)
    # All zeros is what a board tells whose memory was never written.
    if key is None or not any(key):
        return None
    _check_length(f"credential {BOARD_CREDENTIAL}", key)
    return key


def _credential(name: str, environ: Mapping[str, str]) -> bytes | None:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    path = Path(folder) / name
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise VaultError(
            f"{path}: expected a credential of the service manager, got: {error.strerror}",
            hint="see LoadCredential= in the unit",
        ) from error
