"""One deploy's conversation with the sender: a JSON object a line, each way.

A request is `{"do": NAME, ...}`; `receive` is followed by its bytes. A reply is any number of
`{"say": TEXT}`, then `{"done": ...}` or `{"failed": {"what", "hint"}}`. The session holds the
deploy's lock, and ends when the sender falls silent: a link that is gone leaves no lock behind.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from board import (
    checks,
    host,
    hygiene,
    modules,
    parcels,
    record,
    rehearsal,
    releases,
    switch,
    trial,
)
from board.channel import Channel, LinkGoneError
from board.layout import Layout, write
from board.refusal import RefusedError

# The sender has nothing to do for so long between two requests.
SILENCE_S = 120.0
_HINTS = {
    errno.ENOSPC: "make room, or use a larger card; what runs is as it was",
    errno.EROFS: "undo the read-only root for the deploy",
    errno.EIO: "the card is failing: use another one",
}

Say = Callable[[str], None]


def serve(channel: Channel, stdout: IO[str], layout: Layout, program: Path) -> int:
    """Answer until the sender ends; 0, or 1 when it may not have the session."""

    def tell(reply: dict[str, Any]) -> None:
        stdout.write(json.dumps(reply) + "\n")
        stdout.flush()

    try:
        opening = _request(channel)
        with _held(layout, opening):
            desk = Desk(layout, program, channel, lambda text: tell({"say": text}), opening)
            tell({"done": {}})
            while True:
                request = _request(channel)
                name, reply = request.get("do"), desk.answer(request)
                tell(reply)
                if name == "receive" and "failed" in reply:
                    # The rest of its bytes is on the way, and no request.
                    return 1
    except RefusedError as error:
        tell({"failed": {"what": error.what, "hint": error.hint}})
        return 1
    except (LinkGoneError, BrokenPipeError):
        # It has ended, or its link is gone; whatever was under way has been done whole.
        return 0


class Desk:
    """What can be asked for while the lock is held."""

    def __init__(
        self, layout: Layout, program: Path, channel: Channel, say: Say, opening: dict[str, Any]
    ) -> None:
        self._layout = layout
        self._program = program
        self._channel = channel
        self._say = say
        self._by = {key: opening.get(key, "") for key in ("who", "from")}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request; an error of it ends that request only."""
        known: dict[str, Callable[..., Any]] = {
            "check": lambda: checks.examine(self._layout).document(),
            "sweep": lambda: hygiene.sweep(self._layout, self._say),
            "have": lambda files: parcels.have(self._layout, files),
            "receive": lambda **file: parcels.receive(self._layout, self._channel, **file),
            "unpack": lambda **told: releases.unpack(self._layout, self._say, **told),
            "modules": lambda wanted: modules.see_to(wanted, self._say),
            "furnish": lambda **wishes: host.furnish(self._layout, say=self._say, **wishes),
            "propose": self._propose,
            "rehearse": lambda **what: rehearsal.rehearse(self._layout, say=self._say, **what),
            "try": self._try,
            "rollback": self._roll_back,
            "register": lambda **what: host.register(self._layout, **what),
            "history": lambda count: record.newest(self._layout, count),
            "uninstall": lambda **how: host.uninstall(self._layout, self._say, **how),
        }
        name = request.pop("do", None)
        try:
            if name not in known:
                raise RefusedError(f"expected one of {', '.join(known)}, got {name!r}")
            return {"done": known[name](**request)}
        except RefusedError as error:
            return {"failed": {"what": error.what, "hint": error.hint}}
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            hint = _HINTS.get(error.errno or 0, "")
            return {"failed": {"what": f"{name}: {error.strerror or error}{where}", "hint": hint}}
        except LinkGoneError:
            raise
        except Exception as error:  # noqa: BLE001 - the top of the program: told, and it goes on
            place = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{name}: a fault of the deploy's own: {error!r} ({place.name}:{place.lineno})"
            return {"failed": {"what": told, "hint": ""}}

    def _try(self, release: str, health_s: float, facts: dict[str, Any]) -> dict[str, Any]:
        write(self._layout.program, self._program.read_bytes())
        plan = {"release": release, "health_s": health_s, **self._by, **facts}
        return trial.begin(self._layout, plan, self._say)

    def _propose(self, text: str) -> dict[str, Any]:
        return {"changed": switch.propose(self._layout, text.encode())}

    def _roll_back(self, health_s: float) -> dict[str, Any]:
        former = self._layout.named(self._layout.previous)
        if not former:
            raise RefusedError(
                "expected a release to go back to, there is none",
                "the first deploy has none; the next one leaves one",
            )
        facts = {"action": "rollback", "settings": ""}
        return self._try(former, health_s, facts)


def _request(channel: Channel) -> dict[str, Any]:
    """The next request; LinkGoneError at the end of them."""
    line = channel.line(SILENCE_S)
    try:
        request = json.loads(line)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise RefusedError(f"expected a JSON object, got {line[:80]!r}")
    return request


@contextmanager
def _held(layout: Layout, opening: dict[str, Any]) -> Iterator[None]:
    """The lock, with the holder's name in it; RefusedError names who has it."""
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = layout.lock.read_text(encoding="utf-8").strip() or "somebody"
            raise RefusedError(
                f"expected to be the only deploy to this Pi, {holder} is at it",
                "wait until that one has ended, then try again",
            ) from error
        if trial.under_way():
            raise RefusedError(
                "expected no release on trial here, one is", "its verdict comes by itself"
            )
        since = f"{datetime.now(UTC):%H:%M:%S} UTC"
        holder = f"{opening.get('who')} from {opening.get('from')}, since {since}"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
        yield
    finally:
        os.close(descriptor)
