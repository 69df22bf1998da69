"""What deploys leave behind, and who clears it away: the next one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from board import trial
from board.layout import Layout, folders
from board.releases import described

# A file that was half sent is taken up again for so long.
_KEPT_S = 7 * 86400.0


def sweep(layout: Layout, say: Callable[[str], None]) -> dict[str, list[str]]:
    """Clear away what was cut short; the running release and the one before stay.

    A trial that has no verdict goes back first: its release is not trusted.
    """
    if layout.trial.exists():
        say("the last trial was cut short: going back")
        trial.settle(layout)
    kept = {layout.named(layout.current), layout.named(layout.previous)}
    gone = []
    for folder in folders(layout.releases):
        if folder.name not in kept:
            shutil.rmtree(folder)
            gone.append(folder.name)
    libraries = {described(layout, name).get("libraries") for name in kept if name}
    for folder in folders(layout.libraries):
        # Of a release that says nothing (its file is spoilt) nobody knows what it needs.
        if None not in libraries and folder.name not in libraries:
            shutil.rmtree(folder)
            gone.append(folder.name)
    _sweep_incoming(layout)
    for name in ("kiosk.toml.proposed", "kiosk.toml.new", "kiosk.toml.before"):
        layout.settings.with_name(name).unlink(missing_ok=True)
    for name in gone:
        say(f"cleared away: {name}")
    return {"gone": gone}


def _sweep_incoming(layout: Layout) -> None:
    if not layout.incoming.exists():
        return
    for entry in layout.incoming.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif time.time() - entry.lstat().st_mtime > _KEPT_S:
            entry.unlink()
