"""Runs the demonstration, tells what happens as it happens, and judges what came of it."""

from __future__ import annotations

import queue
import subprocess
import tempfile
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from kiosk.clock import NS_PER_S, SystemClock
from kiosk.commands.console import complain, say, table
from kiosk.commands.faces import open_eyes
from kiosk.config import Settings, load
from kiosk.control import ask
from kiosk.demo.stage import (
    CAST,
    Server,
    WalkUp,
    address_in,
    ended_like_by_hand,
    lines_of,
    prepare,
    running,
    write_config,
)
from kiosk.errors import ControlError, KioskError

_LIMIT_S = 100.0
_POLL_S = 0.25


def perform(*, stay: bool, model: str | None, models_dirs: list[str]) -> int:
    """The whole demonstration; 0 when every visit came out as it must.

    `model` is the very file to use; without it the daemon selects one of the default's space.
    """
    with ended_like_by_hand(), tempfile.TemporaryDirectory(prefix="kiosk-demo-") as scratch:
        folder = Path(scratch)
        store = f"sqlite:///{folder / 'attendance.db'}"
        with running("kiosk.server", "--store", store, "--listen", "127.0.0.1:0") as server:
            url = address_in(lines_of(server))
            path = write_config(folder, url, model, models_dirs)
            settings = load(path)
            eyes = open_eyes(settings.models.embedder, models_dirs)
            prepare(settings, Server(url), eyes)
            _announce(settings, url, model or f"the fastest of {eyes.space}")
            del eyes  # the daemon's own memory is what counts from here
            with running("kiosk", "run", "--config", str(path)) as daemon:
                status = _watch(daemon, settings)
                verdict = _judge(status)
                if stay:
                    _stay(daemon, settings, url)
            return verdict


def _announce(settings: Settings, url: str, model: str) -> None:
    say("A kiosk and an attendance server on this machine; three people walk up one by one.")
    say(f"  server page     {url}/attendance")
    say(f"  kiosk's screen  http://127.0.0.1:{settings.feedback.page_port}/")
    say(f"  model           {model}")
    say("  Liveness is not measured: a photograph of a person is not told from the person.")
    say()


def _watch(daemon: subprocess.Popen[str], settings: Settings) -> dict[str, Any]:
    """Show the daemon's journal until the replay is over and every event is answered."""
    clock, pause = SystemClock(), threading.Event()
    lines = lines_of(daemon)
    end = clock.boottime_ns() + int(_LIMIT_S * NS_PER_S)
    while clock.boottime_ns() < end:
        _show(lines)
        if daemon.poll() is not None:
            _show(lines)
            raise KioskError(f"the daemon ended with status {daemon.returncode}")
        status = _status(settings)
        if status is not None and _is_over(status):
            _show(lines)
            return status
        clock.wait(pause, _POLL_S)
    raise KioskError(f"the walk-up was not over within {_LIMIT_S:.0f} s")


def _status(settings: Settings) -> dict[str, Any] | None:
    try:
        return ask(settings.paths.runtime_dir, "status")
    except ControlError:
        # Not up yet; a daemon that died is seen by its exit status.
        return None


def _is_over(status: dict[str, Any]) -> bool:
    answered = all(visit["answer"] for visit in status["visits"] if visit["event_id"])
    ended = status["camera"] == "ended" and status["idle"]
    return ended and answered and status["outbox"]["pending"] == 0


def _show(lines: queue.Queue[str | None]) -> None:
    while not lines.empty():
        line = lines.get()
        if line:
            say(f"  {line}")


def _judge(status: dict[str, Any]) -> int:
    """Print the summary; 1 with the reason when a visit did not come out as it must."""
    visits = status["visits"]
    say()
    say(table(_HEADS, [_row(visit, walk_up) for visit, walk_up in _pairs(visits)]))
    say()
    rows = [
        (stage, f"{t['p50']:.2f}", f"{t['p95']:.2f}", str(t["n"]))
        for stage, t in status["latency_ms"].items()
    ]
    say(table(("stage", "p50 ms", "p95 ms", "n"), rows))
    problems = _problems(visits)
    for problem in problems:
        complain(f"kiosk demo: {problem}")
    say()
    say("Every visit came out as it must." if not problems else "The demonstration failed.")
    return 1 if problems else 0


_HEADS = ("at", "walked up", "decision", "as", "score", "event id", "server's answer", "note")


def _pairs(visits: list[dict[str, Any]]) -> list[tuple[dict[str, Any], WalkUp | None]]:
    """Visits beside the cast, in order: each walk-up is one visit if all is well."""
    return [(v, CAST[i] if i < len(CAST) else None) for i, v in enumerate(visits)]


def _row(visit: dict[str, Any], walk_up: WalkUp | None) -> tuple[str, ...]:
    score = visit["score"] if visit["score"] is not None else visit["nearest"]
    return (
        datetime.fromtimestamp(visit["at_ms"] / 1000).astimezone().strftime("%H:%M:%S"),
        "?" if walk_up is None else walk_up.person,
        visit["outcome"],
        visit["person"] or "-",
        "-" if score is None else f"{score:.4f}",
        visit["event_id"] or "-",
        visit["answer"] or "-",
        "same photograph" if walk_up is not None and walk_up.same_photograph else "",
    )


def _problems(visits: list[dict[str, Any]]) -> list[str]:
    if len(visits) != len(CAST):
        return [f"{len(CAST)} visits expected, got {len(visits)}"]
    problems = []
    for visit, walk_up in zip(visits, CAST, strict=True):
        person = walk_up.person if walk_up.expected() == "recorded" else None
        if (visit["outcome"], visit["person"]) != (walk_up.expected(), person):
            problems.append(
                f"{walk_up.person} walked up: {walk_up.expected()} as {person} expected,"
                f" got {visit['outcome']} as {visit['person']}"
            )
        if visit["event_id"] and visit["answer"] != "ok":
            problems.append(f"event {visit['event_id']}: answer ok expected, got {visit['answer']}")
    return problems


def _stay(daemon: subprocess.Popen[str], settings: Settings, url: str) -> None:
    say(f"Both go on running; Ctrl-C ends them. Look at {url}/attendance and")
    say(f"http://127.0.0.1:{settings.feedback.page_port}/")
    try:
        daemon.wait()
    except KeyboardInterrupt:
        say("ended")
