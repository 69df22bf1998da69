"""How each kiosk stands, by its last heartbeat; kept in memory, for the next comes in minutes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from kiosk.clock import Clock
from kiosk.server.reception import Reception
from kiosk.wire.heartbeat import read

_MOST_DEVICES = 10_000
_NOT_SHOWN = {"V1", "K1", "SIG1"}


class Hearts:
    """The last heartbeat of each device. Safe across threads."""

    def __init__(self, reception: Reception, clock: Clock) -> None:
        self._reception, self._clock = reception, clock
        self._lock = threading.Lock()
        self._last: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def hear(self, body: bytes, *, unsigned_allowed: bool) -> None:
        """Take one in.

        MessageError: it does not check; UnauthenticError: it does not come from its device.
        """
        fields = read(body)
        self._reception.prove(
            fields["D1"], fields.get("K1"), fields, unsigned_allowed=unsigned_allowed
        )
        shown = {name: value for name, value in fields.items() if name not in _NOT_SHOWN}
        with self._lock:
            self._last.pop(fields["D1"], None)
            self._last[fields["D1"]] = {**shown, "heard_ms": self._clock.now().utc_ms}
            if len(self._last) > _MOST_DEVICES:
                self._last.popitem(last=False)

    def all(self) -> list[Mapping[str, Any]]:
        """Every device that was heard since the start, the one heard longest ago first."""
        with self._lock:
            return list(self._last.values())
