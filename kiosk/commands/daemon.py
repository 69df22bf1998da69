"""`kiosk run` and `kiosk status`."""

from __future__ import annotations

import argparse
import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kiosk.changeover import in_words
from kiosk.commands.console import add_config, add_json, complain, say, say_json, settings_of
from kiosk.commands.outbox import counted, disk_words, queue_words

_LOOK_S = 0.5


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    run = commands.add_parser("run", help="the daemon")
    add_config(run)
    run.set_defaults(action=run_daemon)
    check = commands.add_parser("self-check", help="have the running daemon check itself")
    add_config(check)
    check.set_defaults(action=self_check)
    aiming = commands.add_parser("aim", help="how the face before the camera is seen, live")
    add_config(aiming)
    add_json(aiming)
    aiming.add_argument(
        "--times",
        type=int,
        default=-1,
        metavar="N",
        help="tell N times, then end; without: for ever",
    )
    aiming.set_defaults(action=aim)
    status = commands.add_parser("status", help="what the running daemon says of itself")
    add_config(status)
    add_json(status)
    status.set_defaults(action=show_status)


def run_daemon(options: argparse.Namespace) -> int:
    """Run until SIGTERM or Ctrl-C; 0 after a clean end.

    Until there is something to end cleanly, either signal ends the process at once: loading the
    libraries takes seconds on a Pi.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kiosk.memory import keep_small

    # Before the libraries are loaded: their threads would have arenas already.
    keep_small()
    from kiosk.app import Kiosk
    from kiosk.clock import SystemClock, Witness
    from kiosk.journal import set_up
    from kiosk.lastgood import load_or_last
    from kiosk.reloading import Origin
    from kiosk.signals import stop_at_signals

    loaded = load_or_last(options.config)
    memory = Path(loaded.settings.paths.runtime_dir) / "clock"
    clock = SystemClock(witness=Witness(memory=memory))
    set_up(loaded.settings.journal, clock=clock)
    stop, reload = threading.Event(), threading.Event()
    stop_at_signals(stop, reload)
    # What the watchdog's SIGABRT ends tells where each thread was.
    faulthandler.enable()
    return Kiosk(
        loaded.settings, clock=clock, origin=Origin(options.config, loaded.refused, reload)
    ).run(stop)


def aim(options: argparse.Namespace) -> int:
    """Tell twice a second how the face before the camera is seen, until Ctrl-C."""
    from kiosk.aim import line
    from kiosk.clock import SystemClock
    from kiosk.control import ask

    folder = settings_of(options).paths.runtime_dir
    clock, never = SystemClock(), threading.Event()
    left = options.times
    while left != 0:
        said = ask(folder, "aim")
        if options.json:
            say_json(said)
        else:
            say(line(said))
        sys.stdout.flush()
        left -= 1
        if left:
            clock.wait(never, _LOOK_S)
    return 0


def self_check(options: argparse.Namespace) -> int:
    """Have the running daemon read its whole queue; 1 unless all is as it should be.

    Neither database nor camera is opened here: they are the daemon's.
    """
    from kiosk.clock import SystemClock
    from kiosk.control import ask

    folder = settings_of(options).paths.runtime_dir
    ask(folder, "outbox.inspect")
    clock, never = SystemClock(), threading.Event()
    status = ask(folder, "status")
    # A million events take a minute; what takes longer than hours hangs, and the unit ends it.
    while status["inspecting"]:
        clock.wait(never, _LOOK_S)
        status = ask(folder, "status")
    faults = list(_faults(status))
    for fault in faults:
        complain(fault)
    if not faults:
        say(f"{status['state']}: every event is there, {status['outbox']['pending']} wait")
    return 1 if faults else 0


def _faults(status: dict[str, Any]) -> Iterator[str]:
    """What somebody should look at."""
    why = status["cannot_record"]
    if not why and status["camera"] != "running":
        why = f"camera {status['camera']}"
    # A refused configuration degrades it too, and has a line of its own.
    if status["state"] != "running" and (why or status["configuration"] == "in force"):
        yield f"state {status['state']}: {why or 'it is ending'}"
    if status["configuration"] != "in force":
        yield f"configuration refused: {status['configuration']}"
    if status["fallback"] is not None:
        yield _fallback_words(status["fallback"])
    yield from _trouble_words(status)
    if status["outbox"]["quarantined"]:
        count = status["outbox"]["quarantined"]
        verb = "is" if count == 1 else "are"
        yield f"{counted(count)} {verb} set aside: kiosk outbox quarantine"


def show_status(options: argparse.Namespace) -> int:
    """Ask the running daemon; 1 when there is none."""
    from kiosk.control import ask

    status = ask(settings_of(options).paths.runtime_dir, "status")
    if options.json:
        say_json(status)
        return 0
    say(f"{status['state']}, up {status['uptime_s']:.0f} s, version {status['version']}")
    if status["cannot_record"]:
        say(f"          {status['cannot_record']}")
    if status["configuration"] != "in force":
        say(f"          configuration refused: {status['configuration']}")
    say(f"camera    {_camera_words(status['camera'])}{_pace_words(status)}")
    say(f"model     {status['model']} (threshold {status['threshold']:.3f})")
    for line in _model_words(status):
        say(f"          {line}")
    say("liveness  not measured: a photograph is not told from a person")
    say(f"people    {status['people']}")
    for line in in_words(status["changeover"]):
        say(f"          {line}")
    say(f"gallery   {status['gallery']}")
    say(f"server    {_link_words(status['online'])}")
    if status["link_problem"]:
        say(f"          {status['link_problem']}")
    say(f"queue     {queue_words(status['outbox'])}")
    say(f"disk      {disk_words(status['disk'])}")
    for what, number in sorted(status["counts"].items()):
        say(f"          {what}: {number}")
    return 0


def _camera_words(state: str) -> str:
    if state == "ended":
        return "ended: the replay is over, nobody is seen any more; restart the daemon to replay it"
    return state


def _pace_words(status: dict[str, Any]) -> str:
    """How many frames come, and how many of them are looked at."""
    if status["camera"] != "running":
        return ""
    looked = "somebody may be there" if status["awake"] else "nothing moves"
    hot = f", hot: one of {status['one_of']} is looked at" if status["one_of"] > 1 else ""
    return f", {status['frames_per_s']:.1f} frames/s, {looked}{hot}"


def _model_words(status: dict[str, Any]) -> Iterator[str]:
    """What is out of the ordinary with the model, and what shadow mode has found."""
    fallback, shadow, also = status["fallback"], status["shadow"], status["also"]
    if fallback is not None:
        yield _fallback_words(fallback)
    yield from _trouble_words(status)
    if also is not None:
        yield f"also {also['model']} (threshold {also['threshold']:.3f})"
        if also["fallback"] is not None:
            yield _fallback_words(also["fallback"])
        yield from _trouble_words(also)
    if shadow is not None and shadow["count"]:
        yield (
            f"shadow {shadow['other']}: {shadow['count']} faces, cosine mean"
            f" {shadow['mean']:.4f}, min {shadow['min']:.4f}, {shadow['failed']} failed"
        )
    elif shadow is not None:
        yield f"shadow {shadow['other']}: no face yet, {shadow['failed']} failed"


def _trouble_words(status: dict[str, Any]) -> Iterator[str]:
    model, missed = status["model"], status["missed"]
    if status["ailing"] is not None:
        yield f"{model}: NOT TO BE TRUSTED: {status['ailing']}"
    if missed is not None:
        how = "BLIND, no face gets an embedding" if missed["blind"] else "some faces dropped"
        yield f"{model}: {how}, {missed['faces']} so far: {missed['reason']}"


def _fallback_words(fallback: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(fallback["at_ms"] / 1000, UTC)
    since = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"instead of {fallback['from']} since {since}: {fallback['reason']};"
        f" {fallback['to']} {fallback['spare']}"
    )


def _link_words(online: bool | None) -> str:
    words = {None: "not asked yet", True: "answers", False: "took nothing, asked last"}
    return words[online]
