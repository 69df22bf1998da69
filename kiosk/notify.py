"""What the service manager is told (sd_notify(3)): ready, alive, a line for a person.

Written by hand, for it is one datagram to the socket that NOTIFY_SOCKET names: systemd-python,
which could do it, is optional and not everywhere to be had.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)

_USEC = 1_000_000


class Notifier:
    """Sends to the service manager that started this process; to nobody where none did."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A name in the abstract space is written with @ and bound with a zero byte.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._status = ""
        self._failed = False
        self.watchdog_s = _watchdog_s(environ)
        """Within so many seconds it wants a word of life; None when it wants none."""

    def ready(self) -> None:
        """The start is over."""
        self._send("READY=1")

    def alive(self) -> None:
        """The word of life."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def takes(self, seconds: float) -> None:
        """The start takes so much longer from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * _USEC)}")

    def status(self, line: str) -> None:
        """A line for `systemctl status`; sent when it has changed."""
        line = line.replace("\n", " ")
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                # Its queue may be full while it is busy: the next word comes soon.
                to.settimeout(1.0)
                to.sendto(text.encode(), self._address)
            self._failed = False
        except OSError as error:
            if not self._failed:
                facts = {"reason": error.strerror or str(error)}
                log.warning("kiosk.not_notified", extra={"fields": facts})
            self._failed = True


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """WATCHDOG_USEC, where it is meant for this process (sd_watchdog_enabled(3))."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / _USEC
