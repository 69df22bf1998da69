"""What was measured on this machine, kept so that later starts need not measure again.

Plain JSON, no secret in it. It holds for the very files, onnxruntime, processor and settings it
was made with; anything else, and anything damaged, means measuring anew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from kiosk.config import Models
from kiosk.errors import VaultError
from kiosk.vault import write_atomic
from kiosk.vision.cpu import Cpu
from kiosk.vision.manifest import ModelEntry
from kiosk.vision.measure import Measured
from kiosk.vision.session import RUNTIME

log = logging.getLogger(__name__)

CHOICE_FILE = "model-choice.json"
ALSO_CHOICE_FILE = "model-choice-also.json"
"""The same for the second space, where two run side by side."""
_MAX_BYTES = 1 << 20

Key = dict[str, Any]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    key: Key
    measured: tuple[Measured, ...]


def key_of(entries: Sequence[ModelEntry], models: Models, cpu: Cpu) -> Key:
    """All that decides about a measurement.

    Size and time of change stand beside each pinned hash, so that a file that was refused is
    looked at again once somebody puts another one there.
    """
    return {
        "models": {entry.id: [entry.sha256, *_on_disk(entry.path)] for entry in entries},
        "runtime": RUNTIME,
        "cpu": cpu.document(),
        "threads": models.threads,
        "prefer": models.prefer,
    }


def read_choice(path: Path, key: Key) -> tuple[Measured, ...] | None:
    """What was measured under the same key; None when there is nothing that holds."""
    try:
        with path.open("rb") as file:
            document = msgspec.json.decode(file.read(_MAX_BYTES), type=_Document)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        _ignored(path, str(error))
        return None
    differs = [name for name in key if document.key.get(name) != key[name]]
    if differs:
        log.info("model.cache_outdated", extra={"fields": {"changed": ",".join(differs)}})
        return None
    if [found.id for found in document.measured] != list(key["models"]):
        _ignored(path, "its models are others than its key's")
        return None
    return document.measured


def write_choice(path: Path, key: Key, measured: Sequence[Measured]) -> None:
    """Replace the file as a whole; a failure costs the next start its time, and is told."""
    document = _Document(1, key, tuple(measured))
    try:
        write_atomic(path, msgspec.json.format(msgspec.json.encode(document)))
    except VaultError as error:
        log.warning("model.cache_not_written", extra={"fields": {"reason": str(error)}})


def _ignored(path: Path, reason: str) -> None:
    log.warning("model.cache_ignored", extra={"fields": {"file": str(path), "reason": reason}})


def _on_disk(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
