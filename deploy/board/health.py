"""Whether a release does its work: asked of the running kiosk, again and again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from board.commands import run
from board.layout import SERVICE, Layout
from board.refusal import RefusedError

# Beyond the healthy seconds: a start may take so long to find its camera and its server.
_GRACE_S = 60.0
# The newest frame is at most so old: several times what a camera is waited for.
_FRAME_S = 15.0
# Between two looks; at least as long as a look took, and while all is well thrice as long: a slow
# board has other work.
_LOOK_S = 1.0
_WELL_REST = 3.0
_TELL_S = 10.0
# The running kiosk may be starting for so long before it is taken for one that does not answer.
_START_S = 10.0
_PAUSE = threading.Event()


class Watch:
    """Watches one trial."""

    def __init__(self, layout: Layout, say: Callable[[str], None]) -> None:
        self._layout = layout
        self._say = say
        self._before: dict[str, Any] | None = None
        self.began = time.time()

    def remember(self) -> None:
        """How the kiosk stood before the switch: what was bad then is not the release's doing."""
        if not self._layout.current.exists():
            return
        deadline = time.monotonic() + _START_S
        while not self._before and time.monotonic() < deadline:
            self._before = self._status()
            _PAUSE.wait(0.0 if self._before else _LOOK_S)

    def healthy(self, health_s: float) -> str:
        """Wait for so many healthy seconds in a row; why they do not come, "" when they did.

        A process that is another one than at first has crashed or was killed: that ends it.
        """
        _, first = _process()
        told = time.monotonic()
        deadline = told + health_s + _GRACE_S
        since: float | None = None
        problem = ""
        while (asked := time.monotonic()) < deadline:
            problem = self._problem(self._status())
            state, process = _process()
            if state != "active" or process != first:
                return f"it did not keep running ({state}, {_restarts()} restarts)"
            now = time.monotonic()
            since = None if problem else since or now
            if since is not None and now - since >= health_s:
                return ""
            if now - told >= _TELL_S:
                told = now
                self._say(problem or f"healthy for {now - since:.0f} s of {health_s:g}")  # type: ignore[operator]
            rest, until = now - asked, deadline
            if since is not None:
                rest, until = _WELL_REST * rest, min(since + health_s, deadline)
            _PAUSE.wait(max(0.0, min(max(_LOOK_S, rest), until - now)))
        return problem or f"it was not healthy for {health_s:g} s in a row"

    def _status(self) -> dict[str, Any]:
        kiosk = self._layout.kiosk(self._layout.current)
        try:
            done = run(kiosk, "status", "--json", "--config", self._layout.settings, limit_s=60.0)
            return dict(json.loads(done.stdout)) if done.returncode == 0 else {}
        except (RefusedError, OSError, ValueError, TypeError):
            # It hangs, is spoilt or not there: of the running release that is no reason not to
            # try another, and of the new one it is an answer.
            return {}

    def _problem(self, status: dict[str, Any]) -> str:
        """What is wrong now and was not before, "" for nothing."""
        if not status:
            return "it does not answer on its control socket"
        checks = (_configuration, _camera, _recording, _model, _queue)
        for check in checks:
            problem = check(status)
            if problem and not self._was_bad(check):
                return problem
        return ""

    def _was_bad(self, check: Callable[[dict[str, Any]], str]) -> bool:
        """Whether going back would not help: everything was, of a kiosk that did not answer."""
        if self._before is None:
            return False
        return not self._before or bool(check(self._before))


def _configuration(status: dict[str, Any]) -> str:
    if status["configuration"] == "in force":
        return ""
    return f"its configuration is refused: {status['configuration']}"


def _camera(status: dict[str, Any]) -> str:
    """Frames advance: the newest is of just now."""
    age = status.get("frame_age_s")
    if status["camera"] != "running":
        return f"camera {status['camera']}"
    return "" if age is not None and age < _FRAME_S else f"the newest frame is {age} s old"


def _recording(status: dict[str, Any]) -> str:
    return str(status["cannot_record"] or "")


def _model(status: dict[str, Any]) -> str:
    if status.get("ailing"):
        return f"model: {status['ailing']}"
    fallback = status.get("fallback")
    return f"model fell back: {fallback['reason']}" if fallback else ""


def _queue(status: dict[str, Any]) -> str:
    """It moves, or rightly waits: a server that answered before must not be lost by new code."""
    waiting = status["outbox"]["pending"]
    if waiting and status["online"] is False:
        return f"{waiting} wait, and the server takes nothing: {status['link_problem']}"
    return ""


def _process() -> tuple[str, str]:
    """The service's state and process, in systemd's words."""
    state, process = _properties("ActiveState", "MainPID")
    return state, process


def _restarts() -> str:
    (restarts,) = _properties("NRestarts")
    return restarts


def _properties(*names: str) -> list[str]:
    """Of the service, in one question: each takes a small board a while."""
    done = run("systemctl", "show", SERVICE, "-p", ",".join(names))
    told = dict(line.split("=", 1) for line in done.stdout.decode().splitlines() if "=" in line)
    return [told.get(name, "") for name in names]
