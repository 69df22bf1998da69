"""What is kept of deploys: who, when, which commit, and what became of it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

from board.layout import Layout

_KEPT = 200


def note(layout: Layout, **facts: Any) -> None:
    """Append one line, and wait until it is on the disk; the oldest of many go."""
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    lines = [*_lines(layout)[1 - _KEPT :], json.dumps({"at": at, **facts})]
    half = layout.history.with_suffix(".new")
    with half.open("w", encoding="utf-8") as stream:
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
        os.fsync(stream.fileno())
    half.replace(layout.history)


def newest(layout: Layout, count: int) -> list[dict[str, Any]]:
    """The last lines, the newest last."""
    return [told for line in _lines(layout)[-count:] if (told := _told(line))]


def _told(line: str) -> dict[str, Any]:
    """What a line says, nothing where a failing card spoilt it."""
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _lines(layout: Layout) -> list[str]:
    if not layout.history.exists():
        return []
    return layout.history.read_text(encoding="utf-8", errors="replace").splitlines()
