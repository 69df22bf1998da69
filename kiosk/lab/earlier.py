"""What an earlier build left in a folder: set aside whole, never taken for the new one's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kiosk.lab.record import CONFIG_NAME
from kiosk.vault import sync_folder

_FOLDER = "earlier"
_VARIANTS = ("qdq-s8", "nhwc-s8", "qdq-u8", "nhwc-u8")


@dataclass(frozen=True, slots=True)
class Aside:
    """What went where: names of files, and the folder that has them now."""

    folder: Path
    files: tuple[str, ...]


def model_names(name: str) -> frozenset[str]:
    """Every file name that a build whose files begin with `name` may give to a model."""
    return frozenset(
        {f"{name}-fp32.onnx", *(f"{name}-int8-{variant}.onnx" for variant in _VARIANTS)}
    )


def models_of(out: Path, name: str, source: Path) -> tuple[str, ...]:
    """Names of the models that an earlier build left in `out`, in order, the source left out.

    Those that its record lists; without one that can be read those that are named as this
    build's.
    """
    known = _listed(out / CONFIG_NAME) | model_names(name)
    return tuple(
        each
        for each in sorted(known)
        if (out / each).is_file() and (out / each).resolve() != source.resolve()
    )


def set_aside(
    out: Path, models: Collection[str], beside: Collection[str], new: Collection[str]
) -> Aside | None:
    """Move what `new` does not replace into a folder of its own in `out`; None for nothing.

    `models` are the earlier build's, `beside` the names of its record (first), ranges and report.
    They go along with the models, so that the record still remakes what lies beside it. Where the
    new build has no record of its own, the earlier one's whole set goes. OSError as it comes.
    """
    left = [name for name in models if name not in new]
    is_orphan = CONFIG_NAME not in new and (out / CONFIG_NAME).exists()
    if not left and not is_orphan:
        return None
    number = 1
    while (out / f"{_FOLDER}-{number}").exists():
        number += 1
    folder = out / f"{_FOLDER}-{number}"
    folder.mkdir()
    moved = [name for name in (*beside, *left) if (out / name).exists()]
    for name in moved:
        (out / name).replace(folder / name)
    sync_folder(folder)
    return Aside(folder, tuple(moved))


def _listed(record: Path) -> set[str]:
    """The models of a record that may be anything: plain names, or nothing."""
    try:
        document: Any = yaml.safe_load(record.read_bytes())
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return set()
    files = document.get("files") if isinstance(document, dict) else None
    items = files if isinstance(files, list) else []
    names = {item.get("file") for item in items if isinstance(item, dict)}
    return {n for n in names if isinstance(n, str) and n.endswith(".onnx") and _is_plain(n)}


def _is_plain(name: str) -> bool:
    return name.isprintable() and Path(name).name == name
