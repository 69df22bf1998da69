"""What deploys leave behind, and who clears it away: the next one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from board import trial
from board.layout import Layout

# A file that was half sent is taken up again for so long.
_KEPT_S = 7 * 86400.0
READY = "release.json"
"""In a release's folder once that is whole."""


def sweep(layout: Layout, say: Callable[[str], None]) -> dict[str, list[str]]:
    """Clear away what was cut short; the running release and the one before stay.

    A trial that has no verdict goes back first: its release is not trusted.
    """
    if layout.trial.exists():
        say("the last trial was cut short: going back")
        trial.settle(layout)
    kept = {layout.named(layout.current), layout.named(layout.previous)}
    gone = []
    for folder in _folders(layout.releases):
        if folder.name not in kept:
            shutil.rmtree(folder)
            gone.append(folder.name)
    libraries = {_libraries_of(layout, name) for name in kept if name}
    for folder in _folders(layout.libraries):
        if folder.name not in libraries:
            shutil.rmtree(folder)
            gone.append(folder.name)
    _sweep_incoming(layout)
    for name in ("kiosk.toml.proposed", "kiosk.toml.new", "kiosk.toml.before"):
        layout.settings.with_name(name).unlink(missing_ok=True)
    for name in gone:
        say(f"cleared away: {name}")
    return {"gone": gone}


def prune_wheels(layout: Layout, used: set[str]) -> None:
    """Drop packages that no kept release was made of; `used` names folders below `wheels`."""
    for folder in _folders(layout.wheels):
        if folder.name not in used:
            shutil.rmtree(folder)


def _sweep_incoming(layout: Layout) -> None:
    if not layout.incoming.exists():
        return
    for entry in layout.incoming.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif time.time() - entry.stat().st_mtime > _KEPT_S:
            entry.unlink()


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.exists() else []


def _libraries_of(layout: Layout, name: str) -> str:
    from board.releases import described

    return str(described(layout, name).get("libraries", ""))
