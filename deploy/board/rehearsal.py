"""What can be known of a release before it is switched to: tried with its own code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from board import switch
from board.commands import as_kiosk, must, run
from board.layout import SERVICE, Layout
from board.refusal import RefusedError

Say = Callable[[str], None]
# By the release's own code, in one process: what the running one takes says nothing. Prints what
# the configuration names and is not there; the last word is `kiosk models check`.
_SCRIPT = """
import sys, pathlib
from kiosk.config import load
from kiosk.errors import ConfigError
settings = load(pathlib.Path(sys.argv[1]))
import cv2, cryptography, msgspec, numpy, onnxruntime, requests, rfc8785
if settings.camera.source == "picamera2":
    import picamera2
try:
    load(pathlib.Path(sys.argv[1]), files=True)
except ConfigError as error:
    print("\\n".join(f"warning: {problem}" for problem in error.problems), flush=True)
from kiosk.__main__ import main
sys.exit(main(["models", "check", "--used", "--config", sys.argv[1]]))
"""
_UNCHANGED = "nothing was switched; the kiosk goes on as before"


def rehearse(layout: Layout, release: str, say: Say, *, proposed: bool) -> dict[str, bool]:
    """Libraries, configuration, models, the queue's tables; RefusedError by the first that fails.

    `proposed`: the configuration is a new one, which lies beside the one in force. The camera and
    the queue itself belong to the daemon that runs.
    """
    folder = layout.release(release)
    python, kiosk = folder / "venv/bin/python", layout.kiosk(folder)
    settings = switch.proposed(layout) if proposed else layout.settings
    say("the configuration, libraries, models: hashes and golden faces")
    told = run(*as_kiosk(python, "-c", _SCRIPT, settings))
    lines = told.stderr.decode("utf-8", errors="replace").strip().splitlines()
    if told.returncode != 0:
        why = lines[-1].removeprefix("kiosk.errors.ConfigError: ") if lines else "no word"
        why = why.removeprefix(f"{settings}: ")
        raise RefusedError(f"this release, with {settings}: {why}", _UNCHANGED)
    for line in told.stdout.decode("utf-8", errors="replace").splitlines():
        # What it names and is not there yet: the daemon starts without, and says so.
        say(line)
    with _copy_of_queue(layout, say) as copy:
        if copy is not None:
            _try_migration(layout, kiosk, copy, say)
    return {"rehearsed": True}


def _try_migration(layout: Layout, kiosk: Path, copy: Path, say: Say) -> None:
    """Forward with the new code, then back with the old: a rollback keeps the queue.

    A former release that does not open it as it is has nothing to lose by the new one.
    """
    former = layout.kiosk(layout.current)
    another = former.exists() and former.resolve() != kiosk.resolve()
    # One that runs has opened it.
    opens = another and (
        _runs() or run(*as_kiosk(former, "outbox", "rehearse", copy)).returncode == 0
    )
    say("the queue's tables, on a copy")
    must(*as_kiosk(kiosk, "outbox", "rehearse", copy), hint=_UNCHANGED)
    if another and not opens:
        say("warning: the running release does not open its queue, a rollback to it would not help")
    if opens:
        say("the running release can go back to them")
        must(
            *as_kiosk(former, "outbox", "rehearse", copy),
            hint=f"a rollback would not open the queue any more; {_UNCHANGED}",
        )


@contextmanager
def _copy_of_queue(layout: Layout, say: Say) -> Iterator[Path | None]:
    """A copy of the queue, None where there is none to be had; it is gone afterwards."""
    queue = layout.state / "outbox.db"
    if not queue.exists():
        yield None
    elif _runs():
        copy = _handed_out(layout, say)
        try:
            yield copy
        finally:
            if copy is not None:
                run(*as_kiosk("rm", "-f", copy))
    else:
        # One name, so that what a power cut leaves is taken by the next one.
        place = layout.state / "rehearsal"
        with _stopped():
            try:
                yield _copied(queue, place)
            finally:
                run(*as_kiosk("rm", "-rf", place))


def _runs() -> bool:
    return run("systemctl", "is-active", "--quiet", SERVICE).returncode == 0


def _handed_out(layout: Layout, say: Say) -> Path | None:
    """The copy that the running kiosk writes; None where it does not: it may be what is mended.

    Where it lies is that kiosk's word: root touches nothing there.
    """
    say("the running kiosk hands out a copy of its queue")
    command = (layout.kiosk(layout.current), "outbox", "backup", "--json")
    done = run(*command, "--config", layout.settings)
    if done.returncode != 0:
        told = done.stderr.decode("utf-8", errors="replace").strip()
        say(f"warning: it does not ({told}); whether its queue opens shows after the switch only")
        return None
    return Path(json.loads(done.stdout)["file"])


@contextmanager
def _stopped() -> Iterator[None]:
    """Nobody opens the queue meanwhile: a kiosk that does not run is not started in between."""
    wanted = run("systemctl", "is-active", SERVICE).stdout.decode().strip() == "activating"
    run("systemctl", "stop", SERVICE)
    try:
        yield
    finally:
        if wanted:
            run("systemctl", "--no-block", "start", SERVICE)


def _copied(queue: Path, place: Path) -> Path:
    """Queue and log as they lie there, copied by the kiosk's user: the folder is its own."""
    run(*as_kiosk("rm", "-rf", place))
    files = [file for file in queue.parent.glob("outbox.db*") if file.is_file()]
    must(*as_kiosk("mkdir", "-m", "700", place), hint=_UNCHANGED)
    must(*as_kiosk("cp", *files, place), hint=_UNCHANGED)
    return place / queue.name
