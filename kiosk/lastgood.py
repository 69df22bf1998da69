"""The configuration that checked last, kept for the day on which the newest one does not."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kiosk.config import Paths, Settings, check, load
from kiosk.errors import ConfigError, KioskError, VaultError
from kiosk.files import read_toml
from kiosk.vault import write_atomic

log = logging.getLogger(__name__)

FILE = "config.good.toml"
# What may change while the daemon runs; everything else is built once.
LIVE = ("journal", "recognition", "limits")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings in force, and why the file's own are not, "" where they are."""

    settings: Settings
    refused: str = ""


def load_or_last(path: Path, environ: Mapping[str, str] = os.environ) -> Loaded:
    """The file's settings; where they do not check, those that did last.

    Raises ConfigError, the file's own, when none are kept.
    """
    try:
        return Loaded(load(path))
    except ConfigError as error:
        for folder in _folders(path, environ):
            try:
                return Loaded(load(folder / FILE), str(error))
            except KioskError:
                # Not there, or not good either: the first error is the one to mend.
                continue
        raise


def keep(path: Path, state_dir: Path) -> None:
    """Keep a configuration that checks, as it is in the file, beside the queue."""
    try:
        text = path.read_bytes()
        # It may have been saved once more since it was read: only what checks is worth keeping.
        check(tomllib.loads(text.decode()), str(path))
        if not (state_dir / FILE).exists() or (state_dir / FILE).read_bytes() != text:
            write_atomic(state_dir / FILE, text)
    except (OSError, ValueError, ConfigError, VaultError) as error:
        # A full disk for instance: the one kept before stays.
        facts = {"reason": str(error)}
        log.warning("config.not_kept", extra={"fields": facts})


def tell_refused(reason: str) -> None:
    """In the journal, as an alarm."""
    facts = {"problem": reason, "in_force": "the last one that checked"}
    log.critical("config.refused", extra={"fields": facts})


def merged(old: Settings, new: Settings) -> tuple[Settings, list[str], list[str]]:
    """Settings with the new values where they may change live; keys that did, keys that cannot."""
    live, waiting = [], []
    parts: dict[str, Any] = {}
    for section in Settings.__struct_fields__:
        before, after = getattr(old, section), getattr(new, section)
        changed = [
            f"{section}.{key}"
            for key in type(after).__struct_fields__
            if getattr(before, key) != getattr(after, key)
        ]
        if section in LIVE:
            live += changed
            parts[section] = after
        else:
            waiting += changed
    return msgspec.structs.replace(old, **parts), live, waiting


def _folders(path: Path, environ: Mapping[str, str]) -> list[Path]:
    """Where the state may be: systemd's word, the file's own if it can be read, the usual one."""
    given = [Path(one) for one in environ.get("STATE_DIRECTORY", "").split(":") if one]
    try:
        named = read_toml(path).get("paths", {}).get("state_dir")
    except (KioskError, AttributeError):
        named = None
    if isinstance(named, str):
        given.append(Path(named))
    return given or [Path(Paths().state_dir)]
