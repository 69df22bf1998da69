"""What was measured on this machine, kept so that later starts need not measure again.

Plain JSON, no secret in it. It holds for the very files, feeding, golden faces, limits,
onnxruntime, processor and settings it was made with; anything else, and anything damaged, means
measuring anew.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Literal

import msgspec

from kiosk.config import Models
from kiosk.errors import VaultError
from kiosk.vault import read_plain, write_atomic
from kiosk.vision.canary import LIMITS, GoldenFace
from kiosk.vision.cpu import Cpu
from kiosk.vision.manifest import ModelEntry
from kiosk.vision.measure import Measured
from kiosk.vision.session import INTEGERS, RUNTIME

log = logging.getLogger(__name__)

CHOICE_FILE = "model-choice.json"
ALSO_CHOICE_FILE = "model-choice-also.json"
"""The same for the second space, where two run side by side."""
_MAX_BYTES = 1 << 20

Key = dict[str, Any]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[2]
    key: Key
    measured: tuple[Measured, ...]


def key_of(
    entries: Sequence[ModelEntry], models: Models, cpu: Cpu, faces: Sequence[GoldenFace]
) -> Key:
    """All that decides about a measurement, and by which files it was come to.

    A new release brings the same models as other files: only for one that was refused do size and
    time of change count, so that it is looked at again once somebody puts another one there.
    """
    return {
        "models": {entry.id: entry.sha256 for entry in entries},
        "files": {entry.id: _on_disk(entry.path) for entry in entries},
        "fed": {entry.id: _fed(entry) for entry in entries},
        "golden": _digest(faces),
        "limits": {name: [limit.least, limit.mean] for name, limit in LIMITS.items()},
        "runtime": [RUNTIME, INTEGERS],
        "cpu": cpu.document(),
        "threads": models.threads,
        "prefer": models.prefer,
    }


def read_choice(path: Path, key: Key) -> tuple[Measured, ...] | None:
    """What was measured under the same key; None when there is nothing that holds."""
    try:
        document = msgspec.json.decode(read_plain(path, _MAX_BYTES), type=_Document)
    except FileNotFoundError:
        return None
    except (VaultError, msgspec.MsgspecError, RecursionError) as error:
        _ignored(path, str(error))
        return None
    refused = {found.id for found in document.measured if found.refused}
    differs = [name for name in key if _differs(name, document.key.get(name), key[name], refused)]
    if differs:
        log.info("model.cache_outdated", extra={"fields": {"changed": ",".join(differs)}})
        return None
    if [found.id for found in document.measured] != list(key["models"]):
        _ignored(path, "its models are others than its key's")
        return None
    for found in document.measured:
        if not _is_possible(found, golden=bool(key["golden"])):
            _ignored(path, f"no measurement gives what it says of {found.id}")
            return None
    return document.measured


def write_choice(path: Path, key: Key, measured: Sequence[Measured]) -> None:
    """Replace the file as a whole; a failure costs the next start its time, and is told."""
    document = _Document(2, key, tuple(measured))
    try:
        write_atomic(path, msgspec.json.format(msgspec.json.encode(document)))
    except VaultError as error:
        log.warning("model.cache_not_written", extra={"fields": {"reason": str(error)}})


def _differs(name: str, old: object, new: Any, refused: Set[str]) -> bool:
    if name != "files" or not isinstance(old, dict):
        return bool(old != new)
    return any(old.get(model) != new.get(model) for model in refused)


def _is_possible(found: Measured, *, golden: bool) -> bool:
    """Whether this could have been measured, and would be kept."""
    if found.refused:
        return not found.may_pass
    is_ordered = 0.0 < found.min_ms <= found.median_ms <= found.p95_ms
    if not golden:
        return is_ordered and found.cosine is None and found.mean_cosine is None
    limit, least, mean = LIMITS[found.precision], found.cosine, found.mean_cosine
    if least is None or mean is None:
        return False
    return is_ordered and least >= limit.least and mean >= limit.mean


def _fed(entry: ModelEntry) -> list[Any]:
    return [msgspec.to_builtins(entry.input), entry.output, entry.dim, entry.alignment]


def _digest(faces: Sequence[GoldenFace]) -> str:
    """One of all golden faces, crops and vectors; "" for none."""
    digest = hashlib.sha256()
    for face in faces:
        for part in (face.name.encode(), face.crop.tobytes(), face.embedding.vector.tobytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest() if faces else ""


def _ignored(path: Path, reason: str) -> None:
    log.warning("model.cache_ignored", extra={"fields": {"file": str(path), "reason": reason}})


def _on_disk(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
