"""What the kiosk keeps on disk, opened by exactly one process at a time."""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kiosk import spare
from kiosk.config import Settings
from kiosk.decide.gallery import Gallery, Template
from kiosk.errors import KioskError, OutboxLockedError, UserError, VaultError
from kiosk.files import lacks
from kiosk.folder import make_folder
from kiosk.identity import (
    ID_FILE,
    RECOVERY_FILE,
    Device,
    board_serial,
    bound_device,
    device,
    has_credential,
    open_vault,
    recover_vault,
)
from kiosk.types import Embedding
from kiosk.vault import KEY_FILE, Vault, write_atomic
from kiosk.wire.signing import Signer

GALLERY_FILE = "gallery.sealed"
GALLERY_COPY = "gallery.copy"
OUTBOX_FILE = "outbox.db"
log = logging.getLogger(__name__)

_GALLERY_CONTEXT = "gallery/1"
_FROM_SYSTEMD = (
    "after make deploy systemd keeps it: start the daemon, or say sudo systemd-run --pipe --wait"
    " -p User=kiosk -p LoadCredentialEncrypted=kiosk.secret kiosk ...; elsewhere restore it from a"
    " backup"
)


@dataclass(frozen=True, slots=True)
class State:
    """The state folder, held under its lock until `close`."""

    folder: Path
    vault: Vault
    device: str
    former: str
    """The id on another board that this card came from, "" if it never moved."""
    signer: Signer | None
    lock_descriptor: int

    @property
    def outbox_path(self) -> Path:
        """The queue's database."""
        return self.folder / OUTBOX_FILE

    def signer_named(self, key_id: str) -> Signer:
        """This device's sign key under an id, also one that new messages no longer name."""
        return Signer(key_id, self.vault.sign_key)

    def load_gallery(self) -> Gallery:
        """The enrolled people; an empty gallery when there is no file yet.

        Raises VaultError when the file does not authenticate: it is left where it is.
        """
        document = self._gallery_document()
        return Gallery(template_from(entry) for entry in document.get("templates", ()))

    def gallery_number(self) -> int | None:
        """How often the gallery on disk had been saved when it was; None without a file.

        VaultError as from `load_gallery`.
        """
        document = self._gallery_document()
        return int(document.get("number", 0)) if document else None

    def save_gallery(self, gallery: Gallery, *, beyond: int = 0) -> int:
        """Replace the gallery on disk as a whole, or leave it as it was; returns its number.

        The number is above the one on disk and above `beyond`.
        """
        number = max(self.gallery_number() or 0, beyond) + 1
        templates = [template_document(template) for template in gallery.templates]
        document = {"version": 1, "number": number, "templates": templates}
        sealed = self.vault.seal(json.dumps(document).encode(), _GALLERY_CONTEXT)
        write_atomic(self.folder / GALLERY_FILE, sealed)
        write_atomic(self.folder / GALLERY_COPY, sealed)
        return number

    def gallery_or_nobody(self) -> Gallery:
        """The enrolled people; nobody, loudly, where neither the file nor its copy opens.

        What waits in the queue must be sent all the same.
        """
        try:
            self._heal_gallery()
            return self.load_gallery()
        except VaultError as error:
            meaning = "nobody is recognised; the queue is sent"
            facts = {"reason": str(error), "meaning": meaning}
            log.critical("gallery.unreadable", extra={"fields": facts})
            return Gallery(())

    def _heal_gallery(self) -> None:
        """Where the gallery does not open and its copy does, put that in its place, loudly."""
        path, copy = self.folder / GALLERY_FILE, self.folder / GALLERY_COPY
        try:
            self._opened(path)
        except FileNotFoundError:
            # Somebody took it away, or there never was one: a copy brings nobody back.
            return
        except VaultError as error:
            try:
                self._opened(copy)
            except (FileNotFoundError, VaultError):
                return
            write_atomic(path, copy.read_bytes())
            facts = {"reason": error.message, "meaning": "a card that does this is dying"}
            log.critical("gallery.healed", extra={"fields": facts})

    def _opened(self, path: Path) -> dict[str, Any]:
        try:
            return dict(json.loads(self.vault.unseal(path.read_bytes(), _GALLERY_CONTEXT)))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise VaultError(f"{path}: {error.strerror}") from error

    def _gallery_document(self) -> dict[str, Any]:
        path = self.folder / GALLERY_FILE
        try:
            document = self._opened(path)
        except FileNotFoundError:
            return {}
        except VaultError as error:
            raise VaultError(
                f"{path}: expected a gallery sealed by this device, {error.message}",
                hint="restore the file and device.secret together, or move it away and enrol again",
            ) from error
        if document.get("version") != 1:
            raise VaultError(f"gallery of version 1 expected, got {document.get('version')!r}")
        return document

    def keep_spare(self) -> None:
        """Copy secret and id: to be called once they have opened what is sealed."""
        spare.keep(self.folder, _own_files())

    def close(self) -> None:
        """Give up the lock."""
        os.close(self.lock_descriptor)


def open_state(settings: Settings) -> State:
    """Make the state folder if needed, take its lock, and open the keys.

    Raises OutboxLockedError when another process holds it, KioskError when it cannot be written or
    others can write in it.
    """
    folder = Path(settings.paths.state_dir)
    make_folder(folder, "paths.state_dir", 0o700)

    def keys() -> tuple[Vault, Device]:
        spare.heal(folder, _own_files())
        _check_identity(folder)
        vault = open_vault(folder)
        return vault, bound_device(folder, vault, board_serial())

    return _held(folder, keys, settings.server.key_id)


def open_card(folder: Path, key_id: str, recovery_key: bytes | None) -> State:
    """Open the state folder on the card of another board, under the id that it has there.

    Without a recovery key the card must hold its own secret. Raises UserError for a folder that is
    no kiosk's, VaultError for one that does not open, OutboxLockedError when another process
    holds it.
    """
    if lacks(folder / OUTBOX_FILE, Path.is_file):
        raise UserError(
            f"--from {folder}: expected a kiosk's state folder, "
            + (f"it holds no {OUTBOX_FILE}" if folder.is_dir() else "there is no such folder"),
            hint="name the folder as it is mounted here, such as /mnt/var/lib/kiosk",
        )

    def keys() -> tuple[Vault, Device]:
        # Nothing is made here: a new secret beside a queue would open none of it.
        names = (KEY_FILE, RECOVERY_FILE, spare.SPARE_FILE)
        known = [name for name in names if (folder / name).exists()]
        if not known:
            raise VaultError(f"{folder}: expected {KEY_FILE} or {RECOVERY_FILE}, got neither")
        spare.heal(folder, (ID_FILE,) if recovery_key is not None else (KEY_FILE, ID_FILE))
        if not (folder / ID_FILE).exists():
            raise VaultError(
                f"{folder}: {ID_FILE} expected beside {OUTBOX_FILE}, nothing is there",
                hint="restore it from a backup: the queue opens under its own id only",
            )
        if recovery_key is not None:
            return recover_vault(folder, recovery_key), device(folder)
        return open_vault(folder, {}), device(folder)

    return _held(folder, keys, key_id, "--from")


def _held(
    folder: Path,
    keys: Callable[[], tuple[Vault, Device]],
    key_id: str,
    named: str = "paths.state_dir",
) -> State:
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        # ValueError: a path that no system call takes.
        reason = getattr(error, "strerror", None) or error
        raise KioskError(
            f"{named} {folder}: expected a folder to write to, got {reason}",
            hint=f"make it writable for this user or set {named}",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        vault, here = keys()
        signer = Signer(key_id, vault.sign_key) if key_id else None
        return State(folder, vault, here.id, here.former, signer, descriptor)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OutboxLockedError(
            f"{folder} is held by another process",
            hint="one daemon is enough; commands ask the running one if --config names its file",
        ) from error
    except KioskError:
        os.close(descriptor)
        raise


def read_identity(settings: Settings) -> tuple[str, Vault]:
    """Device id and vault, whether or not another process holds the state.

    Whoever holds it has made both files, and nobody ever changes them. Without a holder they are
    made as at a first start. Raises what `open_state` does, but for the lock.
    """
    try:
        state = open_state(settings)
    except OutboxLockedError:
        folder = Path(settings.paths.state_dir)
        _check_identity(folder)
        return device(folder).id, open_vault(folder)
    state.close()
    return state.device, state.vault


def _own_files() -> tuple[str, ...]:
    """What must lie in the folder: the secret too, unless a credential brings it."""
    return (ID_FILE,) if has_credential() else (KEY_FILE, ID_FILE)


def _check_identity(folder: Path) -> None:
    """Without its secret and id sealed data is lost: new ones in their place would hide that."""
    sealed = [name for name in (GALLERY_FILE, OUTBOX_FILE) if (folder / name).exists()]
    for name in _own_files():
        if sealed and not (folder / name).exists():
            raise VaultError(
                f"{folder}: {name} expected beside {' and '.join(sealed)}, nothing is there",
                hint=_FROM_SYSTEMD if name == KEY_FILE else "restore it from a backup",
            )


def pack_vector(vector: np.ndarray[tuple[int], np.dtype[np.float32]]) -> str:
    """A float32 vector as base64 of its little-endian bytes."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def unpack_vector(text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The float32 vector that `pack_vector` packed."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)


def template_from(document: dict[str, str]) -> Template:
    """A template from its JSON form, as it stands in the gallery and on the control socket."""
    embedding = Embedding(unpack_vector(document["vector"]), document["space"])
    return Template(document["person"], embedding, document["source"])


def template_document(template: Template) -> dict[str, str]:
    """The JSON form of a template."""
    return {
        "person": template.person,
        "space": template.embedding.space,
        "source": template.source,
        "vector": pack_vector(template.embedding.vector),
    }
