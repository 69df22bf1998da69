"""A second copy of the two small files without which nothing that is sealed can be read.

One bad sector in 32 bytes would otherwise cost the gallery and whatever waits to be sent. The copy
lies in the same folder with the same mode, so that it is worth neither more nor less to a thief;
of a secret that is sealed under a board's key it holds the sealed form.

It is written once the files have proved right, and before them when one of them is changed: where
it differs from a file, the file was damaged, or its change was cut off.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
import logging
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from kiosk.errors import VaultError
from kiosk.vault import read_private, write_atomic

log = logging.getLogger(__name__)

SPARE_FILE = "device.spare"


def heal(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Put back what of `names` differs from the copy; the names of the files that were healed.

    A secret that comes from elsewhere, by a credential, is not named, and never put back. Without
    a copy, or with a damaged one, nothing is done. VaultError when a file that is damaged cannot
    be written.
    """
    healed = []
    kept = _kept(folder)
    for name, content in ((name, kept[name]) for name in names if name in kept):
        found = _content(folder / name)
        # What others may read or have put there is for whoever opens it to refuse, by name.
        if found != content and (found is not None or not (folder / name).exists()):
            write_atomic(folder / name, content)
            healed.append(name)
    if healed:
        fields = {
            "files": ",".join(healed),
            "meaning": "damaged or cut off, put back from the copy: a card that does this is dying",
        }
        log.critical("identity.healed", extra={"fields": fields})
    return tuple(healed)


def keep(folder: Path, names: Sequence[str]) -> None:
    """Make the copy what the files are now; to be called when they have opened what is sealed.

    A disk that takes no copy is told of, and no failure: the files themselves are there.
    """
    files = {name: _content(folder / name) for name in names}
    there = {name: content for name, content in files.items() if content is not None}
    if not there or _kept(folder) == there:
        return
    try:
        _write(folder, there)
    except VaultError as error:
        log.warning("identity.no_copy", extra={"fields": {"reason": error.message}})


def change(path: Path, content: bytes) -> None:
    """Replace one of the files, in the copy first if there is one."""
    kept = _kept(path.parent)
    if kept:
        _write(path.parent, {**kept, path.name: content})
    write_atomic(path, content)


def _content(path: Path) -> bytes | None:
    """A file's content; None for one that is not there or is no private file.

    Of one that the card does not give back any more it is empty, which no good one is.
    """
    try:
        return read_private(path)
    except OSError as error:
        return b"" if error.errno == errno.EIO else None
    except VaultError:
        return None


def _kept(folder: Path) -> dict[str, bytes]:
    """The copy's files, none when it is not there or not what was written."""
    content = _content(folder / SPARE_FILE) or b""
    digest, _, body = content.partition(b"\n")
    if digest != _digest(body):
        return {}
    try:
        return {name: base64.b64decode(text) for name, text in json.loads(body).items()}
    except (ValueError, AttributeError, binascii.Error):
        return {}


def _write(folder: Path, files: dict[str, bytes]) -> None:
    packed = {name: base64.b64encode(content).decode() for name, content in files.items()}
    body = json.dumps(packed).encode()
    write_atomic(folder / SPARE_FILE, _digest(body) + b"\n" + body)


def _digest(body: bytes) -> bytes:
    return sha256(body).hexdigest().encode()
