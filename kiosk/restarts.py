"""How the runs before this one ended, kept in the runtime folder, and how long to wait because.

systemd from 254 on lets the delay before a restart grow (RestartSteps=); below, this file does:
whoever comes too soon after the start before it waits for the rest. Above, the rest is nothing.
The folder is in memory, so that nothing is written to the card and a boot begins anew.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from kiosk.clock import NS_PER_S, Clock
from kiosk.folder import make_folder
from kiosk.notify import Notifier

log = logging.getLogger(__name__)

_FILE = "restarts.json"
# Between the start of a run and the next: the second is systemd's own RestartSec.
_STEPS_S = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0)
# A run that has lived so long was a good one: what ends it is no crash loop.
_GOOD_S = 600.0
# What a start takes at most beside its pause, models measured anew.
_START_S = 90.0
GOOD_ENDS = ("stopped", "restarted")
"""Ends that somebody or the kiosk itself wanted."""
CAMERA = "camera"
"""The end of a run that no opening brought a picture any more."""


def ending_of(failure: str | None, good_end: str) -> str:
    """The word for an end: by the thread that failed, if one did."""
    if failure is None:
        return good_end
    return CAMERA if failure.startswith("capture: ") else "failed"


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of the runs since boot.

    `began_ns` is on the time since boot; `ending` is the last run's own word on its end, "" while
    it runs, so that one which was killed leaves it empty.
    """

    boot_id: str = ""
    began_ns: int = 0
    paused_s: float = 0.0
    """How long the last run waited before its work."""
    hasty: int = 0
    """Runs in a row that were short."""
    ending: str = ""
    causes: dict[str, int] = field(default_factory=dict)
    """How often a run of this boot began after what."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """How this run begins."""

    cause: str
    """"boot", or how the run before ended: stopped, restarted, watchdog, camera, failed, killed."""
    pause_s: float
    past: Past


def begin(past: Past, boot_id: str, now_ns: int) -> Beginning:
    """What the past means for a run that begins now; pure."""
    if past.boot_id != boot_id or now_ns < past.began_ns:
        return Beginning("boot", 0.0, Past(boot_id, now_ns, causes={"boot": 1}))
    cause = past.ending or "killed"
    # One that was killed while it waited has not lived at all.
    lived_s = max(0.0, (now_ns - past.began_ns) / NS_PER_S - past.paused_s)
    # A run that renews itself at once would do so for ever: its limit is set wrongly.
    is_hasty = cause != "stopped" and lived_s < _GOOD_S
    hasty = past.hasty + 1 if is_hasty else 0
    pause_s = max(0.0, _STEPS_S[min(hasty, len(_STEPS_S)) - 1] - lived_s) if hasty else 0.0
    causes = {**past.causes, cause: past.causes.get(cause, 0) + 1}
    return Beginning(cause, pause_s, Past(boot_id, now_ns, pause_s, hasty, causes=causes))


class Restarts:
    """The file, read once at the start and written at each turn of this run."""

    def __init__(self, runtime_dir: Path, boot_id: str, now_ns: int) -> None:
        self._path = runtime_dir / _FILE
        self.beginning = begin(self._read(), boot_id, now_ns)
        self._past = self.beginning.past

    def note(self, ending: str = "") -> None:
        """Write how this run would have ended, were it to end now."""
        past = replace(self._past, ending=ending)
        beside = self._path.with_suffix(f".{os.getpid()}")
        # No space in /run, or none to write in: the next start then waits less.
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps(asdict(past)), encoding="ascii")
            beside.replace(self._path)

    def document(self) -> dict[str, object]:
        """For status: what this run began after, and how often that was so since boot."""
        return {"cause": self.beginning.cause, "since_boot": dict(self._past.causes)}

    def _read(self) -> Past:
        try:
            document = json.loads(self._path.read_text(encoding="ascii"))
            past = Past(**document)
        except (OSError, ValueError, TypeError):
            # Absent after a boot; written by something else it says nothing either.
            return Past()
        return past if _is_sane(past) else Past()


def begun(runtime_dir: Path, clock: Clock, notifier: Notifier, stop: threading.Event) -> Restarts:
    """Make the folder, tell what this run begins after, and wait for its turn or for `stop`.

    KioskError when the folder cannot be made or others can write in it.
    """
    make_folder(runtime_dir, "paths.runtime_dir", 0o750)
    now = clock.now()
    restarts = Restarts(runtime_dir, now.boot_id, now.boottime_ns)
    restarts.note()
    beginning = restarts.beginning
    facts = {
        "after": beginning.cause,
        "hasty_runs": beginning.past.hasty,
        "pause_s": round(beginning.pause_s, 1),
    }
    level = logging.INFO if beginning.cause in ("boot", *GOOD_ENDS) else logging.ERROR
    log.log(level, "kiosk.starting", extra={"fields": facts})
    if beginning.pause_s:
        notifier.takes(beginning.pause_s + _START_S)
        notifier.status(f"waits {beginning.pause_s:.0f} s: the runs before were short")
        clock.wait(stop, beginning.pause_s)
    return restarts


def _is_sane(past: Past) -> bool:
    numbers = (past.began_ns, past.hasty, *_values(past.causes))
    texts = (past.boot_id, past.ending)
    whole = all(isinstance(n, int) and n >= 0 for n in numbers)
    paused = isinstance(past.paused_s, int | float) and past.paused_s >= 0
    return whole and paused and all(isinstance(text, str) for text in texts)


def _values(causes: object) -> tuple[object, ...]:
    return tuple(causes.values()) if isinstance(causes, dict) else ("not a table",)
