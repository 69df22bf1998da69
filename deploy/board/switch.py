"""Which release runs: its configuration, its units, its link; forward and back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from board import releases
from board.commands import must, run
from board.layout import SERVICE, USER, Layout, point, sync_folder, write

_PROPOSED, _BEFORE = "kiosk.toml.proposed", "kiosk.toml.before"


def forward(layout: Layout, plan: dict[str, Any]) -> None:
    """Switch to the plan's release. The note of what to go back to is on the disk before."""
    # Of an earlier trial, whose verdict was cut short behind the word.
    layout.settings.with_name(_BEFORE).unlink(missing_ok=True)
    write(layout.trial, json.dumps(plan).encode())
    if plan.get("settings") == "proposed":
        _take_proposed(layout.settings)
    install_units(layout, layout.release(plan["release"]), layout.release(plan["former"]))
    point(layout.current, Path("releases", plan["release"]))
    units = (SERVICE, "kiosk-check.timer", "kiosk-settle.service")
    # One reload for both: it takes a small board a while.
    must("systemctl", "enable", "--quiet", "--no-reload", *units)
    must("systemctl", "daemon-reload")


def keep(layout: Layout, plan: dict[str, Any]) -> None:
    """The verdict: the release stays, the former one is what a rollback goes to."""
    if plan["former"] and plan["former"] != plan["release"]:
        point(layout.previous, Path("releases", plan["former"]))
    # The word of it: before this, whoever comes goes back, the configuration with it.
    layout.trial.unlink()
    sync_folder(layout.home)
    layout.settings.with_name(_BEFORE).unlink(missing_ok=True)
    # The release stays whatever becomes of this: the next boot starts it too.
    run("systemctl", "start", "kiosk-check.timer")
    releases.drop_unused_wheels(layout)


def back(layout: Layout, plan: dict[str, Any], *, wait: bool) -> str:
    """Go back to what ran before, as far as it goes; what the service is after that.

    May be called any number of times, from wherever `forward` or `keep` was cut short. `wait`: not
    from a unit that the service's own start waits for.
    """
    before = layout.settings.with_name(_BEFORE)
    if before.exists():
        before.replace(layout.settings)
        # Two names of one file are both still there after that.
        before.unlink(missing_ok=True)
        sync_folder(layout.settings.parent)
    install_units(layout, layout.release(plan["former"]), layout.release(plan["release"]))
    point(layout.current, Path("releases", plan["former"]))
    _restore_previous(layout, plan)
    must("systemctl", "daemon-reload")
    if _on_the_way():
        state = "not started by this"
    elif not wait:
        run("systemctl", "--no-block", "restart", SERVICE)
        state = "starting"
    else:
        run("systemctl", "restart", SERVICE)
        state = run("systemctl", "is-active", SERVICE).stdout.decode().strip()
    layout.trial.unlink(missing_ok=True)
    sync_folder(layout.home)
    return state


def propose(layout: Layout, text: bytes) -> bool:
    """Lay a new configuration beside the one in force; False where that says the same."""
    if layout.settings.exists() and layout.settings.read_bytes() == text:
        return False
    path = proposed(layout)
    write(path, text, 0o640)
    shutil.chown(path, "root", USER)
    return True


def proposed(layout: Layout) -> Path:
    """Where a new configuration lies until it is in force."""
    return layout.settings.with_name(_PROPOSED)


def install_units(layout: Layout, release: Path, instead_of: Path) -> None:
    """Put a release's units where systemd reads them; those that only the other has go."""
    own = units(release)
    for name, unit in own.items():
        target = layout.units / name
        if not target.exists() or target.read_bytes() != unit.read_bytes():
            write(target, unit.read_bytes())
    # A release without units is none: what is there stays.
    for name in units(instead_of) if own else ():
        if name not in own:
            (layout.units / name).unlink(missing_ok=True)
    catalogue = release / "deploy/kiosk.catalog"
    target = layout.root / "usr/lib/systemd/catalog/kiosk.catalog"
    if catalogue.exists() and (
        not target.exists() or target.read_bytes() != catalogue.read_bytes()
    ):
        write(target, catalogue.read_bytes())
        run("journalctl", "--update-catalog")


def units(release: Path) -> dict[str, Path]:
    """The units that a release has, by their names."""
    folder = release / "deploy"
    kinds = ("path", "service", "timer")
    found = sorted(unit for kind in kinds for unit in folder.glob(f"kiosk*.{kind}"))
    return {unit.name: unit for unit in found}


def _restore_previous(layout: Layout, plan: dict[str, Any]) -> None:
    """What a rollback goes to: a verdict that was cut short has named the former already."""
    if "former_previous" not in plan or layout.named(layout.previous) == plan["former_previous"]:
        return
    if not plan["former_previous"]:
        layout.previous.unlink(missing_ok=True)
    elif releases.described(layout, plan["former_previous"]):
        point(layout.previous, Path("releases", plan["former_previous"]))


def _take_proposed(settings: Path) -> None:
    before = settings.with_name(_BEFORE)
    if settings.exists():
        os.link(settings, before)
    settings.with_name(_PROPOSED).replace(settings)
    sync_folder(settings.parent)


def _on_the_way() -> bool:
    """Whether the machine is booting or ending: it starts its services by itself, or not at all."""
    state = run("systemctl", "is-system-running").stdout.decode().strip()
    return state in {"initializing", "starting", "stopping"}
