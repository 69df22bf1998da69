"""A release on trial: switched to, watched, and kept or gone back from; by itself.

It runs as a unit of its own, so that a link that is lost changes nothing. Whatever ends it before
its verdict (a kill, a power cut, a reboot) leaves `trial.json`, and whoever finds that goes back:
its unit itself, `kiosk-settle.service` at the next boot, or the next deploy.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from board import record, releases, switch
from board.commands import must, run
from board.health import Watch
from board.layout import SERVICE, Layout, write
from board.refusal import RefusedError

Say = Callable[[str], None]
UNIT = "kiosk-trial.service"
# Nobody sets it: what is looked for happens in another process.
_PAUSE = threading.Event()
_LOOK_S = 1.0
# Every so many looks systemd is asked too, which takes a small board a while.
_ALIVE_LOOKS = 5
_JOURNAL_LINES = "15"


def begin(layout: Layout, plan: dict[str, Any], say: Say) -> dict[str, Any]:
    """Start the trial and follow it to its verdict, which is returned."""
    if not releases.described(layout, plan["release"]):
        raise RefusedError(
            f"expected a release that is whole, {plan['release']!r} is none", "deploy it anew"
        )
    former = layout.named(layout.current)
    plan = {**plan, "former": former, "former_previous": layout.named(layout.previous)}
    layout.trial_log.unlink(missing_ok=True)
    write(layout.plan, json.dumps(plan).encode())
    python = ("/usr/bin/python3", "-B", str(layout.program))
    must(
        *("systemd-run", f"--unit={UNIT}", "--collect", "--quiet"),
        *("-p", f"ExecStopPost={' '.join((*python, 'settle'))}", "-p", "TimeoutStopSec=300"),
        # Whoever kills all of it, what follows too, has it started once more: to go back.
        *("-p", "Restart=on-failure", "-p", "RestartSec=1"),
        *(*python, "trial"),
    )
    return _followed(layout, say)


def under_way() -> bool:
    """Whether a release is on trial now."""
    done = run("systemctl", "show", UNIT, "-p", "ActiveState", "--value")
    return done.stdout.decode().strip() in {"active", "activating", "deactivating"}


def run_trial(layout: Layout) -> int:
    """The unit's body: switch, watch, and keep or go back; only the last of it a second time."""
    if layout.trial.exists() or not layout.plan.exists():
        # Started once more, after whatever ended it: what was begun is gone back from, not tried
        # again behind the back of whoever was told so.
        return settle(layout)
    layout.plan.replace(layout.begun)
    plan = json.loads(layout.begun.read_text(encoding="utf-8"))
    with layout.trial_log.open("a", encoding="utf-8", buffering=1) as log:

        def say(text: str) -> None:
            log.write(json.dumps({"say": text}) + "\n")

        watch = Watch(layout, say)
        watch.remember()
        switch.forward(layout, plan)
        say(f"switched to {plan['release']}")
        why = _restarted() or watch.healthy(plan["health_s"])
        journal = [] if not why else _journal(watch.began)
        outcome = {"outcome": "kept", "release": plan["release"], "why": why, "journal": journal}
        if not why:
            switch.keep(layout, plan)
        elif plan["former"]:
            say(f"not healthy: {why}; going back to {plan['former']}")
            outcome |= {"outcome": "went back", "after": switch.back(layout, plan, wait=True)}
        else:
            say(f"not healthy: {why}; there is nothing to go back to, it goes on trying")
            switch.keep(layout, plan)
            outcome["outcome"] = "unhealthy"
        _note(layout, plan, outcome)
        log.write(json.dumps({"verdict": outcome}) + "\n")
    return 0


def settle(layout: Layout) -> int:
    """Go back from a trial that has no verdict; 0 where there is none."""
    if not layout.trial.exists():
        return 0
    plan = _noted(layout)
    outcome = {"outcome": "went back", "release": plan["release"], "why": "the trial was cut short"}
    if releases.described(layout, plan["former"]):
        outcome["after"] = switch.back(layout, plan, wait=False)
    else:
        if plan["former"]:
            outcome["why"] += f", and {plan['former']}, the release before, is not there"
        # A link to what is not there would be worse than what is.
        switch.keep(layout, plan | {"former": ""})
        outcome["outcome"] = "unhealthy"
    _note(layout, plan, outcome)
    with layout.trial_log.open("a", encoding="utf-8") as log:
        log.write(json.dumps({"verdict": outcome}) + "\n")
    return 0


def _noted(layout: Layout) -> dict[str, Any]:
    """The trial's plan out of its note, or out of what the trial was begun with.

    A card that fails may spoil either; without both, nothing is known to go back to.
    """
    for path in (layout.trial, layout.begun):
        try:
            plan = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(plan, dict) and all(_plain(plan.get(key)) for key in ("release", "former")):
            return plan
    return {"release": layout.named(layout.current), "former": ""}


def _plain(name: object) -> bool:
    """Whether it can be a release's name, or none: no way out of their folder."""
    return isinstance(name, str) and "/" not in name and name not in {".", ".."}


def _restarted() -> str:
    """Restart the service and wait until it is ready; why it is not, "" when it is."""
    done = run("systemctl", "restart", SERVICE)
    if done.returncode == 0:
        return ""
    result = run("systemctl", "show", SERVICE, "-p", "Result", "--value")
    return f"it did not become ready ({result.stdout.decode().strip()})"


def _journal(since: float) -> list[str]:
    """The service's last lines: what a person would look at first."""
    command = ("journalctl", "-u", SERVICE, "-o", "cat", "--no-pager", "-n", _JOURNAL_LINES)
    done = run(*command, "--since", f"@{since:.0f}")
    return done.stdout.decode("utf-8", errors="replace").splitlines()


def _note(layout: Layout, plan: dict[str, Any], outcome: dict[str, Any]) -> None:
    facts = {key: plan.get(key, "") for key in ("action", "who", "from", "commit", "dirty")}
    told = {key: outcome.get(key, "") for key in ("release", "outcome", "why")}
    record.note(layout, **facts, **told, former=plan["former"])


def _followed(layout: Layout, say: Say) -> dict[str, Any]:
    """Hand on what the trial says until its verdict; RefusedError where it ended without one."""
    seen = looks = 0
    while True:
        # Asked before the log is read: what has ended has said all.
        alive = looks % _ALIVE_LOOKS != 0 or under_way()
        looks += 1
        for line in _lines(layout.trial_log)[seen:]:
            seen += 1
            told = json.loads(line)
            if "verdict" in told:
                return dict(told["verdict"])
            say(told["say"])
        if not alive:
            raise RefusedError(
                "the trial ended without a verdict", f"see journalctl -u {UNIT} on the Pi"
            )
        _PAUSE.wait(_LOOK_S)


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return whole.splitlines()
