"""A reboot for a camera that no fresh process brings back: asked for within a budget, 0 by default.

The kiosk itself may reboot nothing. It leaves a file in its runtime folder, and where the owner has
enabled `kiosk-reboot.path`, systemd reboots the machine for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

from kiosk.clock import Clock
from kiosk.config import Settings
from kiosk.restarts import CAMERA, Beginning
from kiosk.vault import write_atomic

log = logging.getLogger(__name__)

REQUEST_FILE = "reboot.wanted"
_KEPT_FILE = "reboots.json"
# So many processes of a boot have ended for their camera before the machine is worth a try.
_LEAST_ENDS = 3
_DAY_MS = 86_400_000


def consider(settings: Settings, beginning: Beginning, clock: Clock) -> bool:
    """Ask for a reboot if this run begins where fresh processes have not helped; whether it did.

    The reboots of the last 24 hours are kept in the state folder. A clock that jumps may allow one
    more or one less; that there is a budget keeps a dead camera from rebooting for ever.
    """
    budget = settings.limits.reboots_a_day
    if not budget or beginning.cause != CAMERA or beginning.past.causes[CAMERA] < _LEAST_ENDS:
        return False
    now_ms = clock.now().utc_ms
    kept = Path(settings.paths.state_dir) / _KEPT_FILE
    lately = [at for at in _known(kept) if abs(now_ms - at) < _DAY_MS]
    fields = {"reboots": len(lately), "budget": budget}
    if len(lately) >= budget:
        log.critical("board.reboots_spent", extra={"fields": fields})
        return False
    log.critical("board.reboot_wanted", extra={"fields": fields})
    write_atomic(kept, json.dumps([*lately, now_ms]).encode())
    # Without space in /run nobody hears; the next run asks again.
    with contextlib.suppress(OSError):
        (Path(settings.paths.runtime_dir) / REQUEST_FILE).touch(0o600)
    return True


def _known(path: Path) -> list[int]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        # None yet, or written by something else: the budget begins anew.
        return []
    return [at for at in found if isinstance(at, int)] if isinstance(found, list) else []
