"""A kiosk's queue and sender as the product composes them, on a network that is told what to do."""

import base64
import json
import random
import threading
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faults.chaos import THROUGH, Fault, Proxy
from faults.roll import Punched
from kiosk.clock import SystemClock
from kiosk.config import Server
from kiosk.errors import UplinkError
from kiosk.outbox.store import Outbox
from kiosk.types import Receipt
from kiosk.uplink.belief import Belief
from kiosk.uplink.post import Poster
from kiosk.uplink.sender import Sender
from kiosk.vault import Vault
from kiosk.wire.signing import Signer
from outbox.conftest import Punches, StillClock

KEY_ID = "hall-1"
_END_S = 60.0
# Beyond so many attempts for what was planned nothing moves any more.
_PATIENCE = 2000


@dataclass
class WaitingClock(StillClock):
    """Waiting moves it and costs nothing; `on_wait` is called with each length."""

    on_wait: Callable[[float], None] = lambda _: None

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.forward(timeout_s)
        self.on_wait(timeout_s)
        return event.is_set()


@dataclass
class Device:
    """Who the kiosk is; the server knows its key."""

    server_url: str
    name: str = field(default_factory=lambda: str(uuid.uuid4()))
    vault: Vault = field(default_factory=lambda: Vault(bytes(range(32))))

    @property
    def signer(self) -> Signer:
        return Signer(KEY_ID, self.vault.sign_key)

    def register(self) -> None:
        """Give the server the sign key."""
        key = base64.b64encode(self.vault.sign_key).decode()
        request = urllib.request.Request(
            f"{self.server_url}/devices/{self.name}/keys/{KEY_ID}",
            json.dumps({"key": key}).encode(),
            {"Content-Type": "application/json"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=_END_S) as reply:
            reply.read()


class Station:
    """One outbox and one sender. `read`: how receipts are believed, None as the product does.

    `renames`: the mistake of a kiosk that makes a new event of every attempt that failed.
    """

    def __init__(
        self,
        path: Path,
        device: Device,
        proxy: Proxy,
        *,
        clock: WaitingClock,
        timeout_s: float,
        read: Callable[..., Receipt] | None = None,
        renames: bool = False,
    ) -> None:
        self.device, self.proxy, self.clock = device, proxy, clock
        self._renames = renames
        self.punched: list[Punched] = []
        self.settled = 0
        self._punches = Punches(clock, rng=random.Random(path.as_posix()))
        self._stop = threading.Event()
        self.outbox = Outbox(
            path, vault=device.vault, device_id=device.name, signer=device.signer, clock=clock
        )
        settings = Server(
            url=proxy.url, connect_timeout_s=timeout_s, read_timeout_s=timeout_s, key_id=KEY_ID
        )
        # The network takes its time, whatever the kiosk's clock says.
        self._poster = Poster(settings, clock=SystemClock())
        keys = {KEY_ID: device.signer}
        self._sender = Sender(
            self.outbox,
            self,
            read or Belief(settings, keys.__getitem__).read,
            clock=clock,
            rng=random.Random(7),
            server=settings,
            on_settled=lambda *_: self._count(),
        )
        self.outbox.start()
        self.plan: list[Fault] = []
        self.met: set[str] = set()
        self._armed: Fault = THROUGH
        self._attempts = self._most = 0
        self._puts = False

    def put(self) -> None:
        """Somebody passes by, and never again."""
        name = f"{self.device.name}/{len(self.punched)}/{self.outbox.status().epoch}"
        punch = self._punches.make(employee=name)
        seq = self.outbox.put(punch)
        self.punched.append(Punched(punch.event_id, name, seq))

    def post(self, letter: Callable[..., object], **form: object) -> object:
        """One attempt, which meets what the plan says; the sender calls this."""
        self._next()
        try:
            return self._poster.post(letter, **form)
        except UplinkError:
            if self._renames and self.punched:
                again = self._punches.make(employee=self.punched[0].employee)
                self.outbox.put(again)
            raise

    def run(self, plan: list[Fault], *, punches: bool = True) -> None:
        """Meet what is planned, then send all that waits. `punches`: one before each attempt."""
        self.plan, self._puts = list(plan), punches
        self._most = self._attempts + 2 * len(plan) + len(self.punched) + _PATIENCE
        self.clock.on_wait = lambda _: self._look()
        self._stop.clear()
        self._sender.run(self._stop)

    def close(self) -> None:
        self._poster.close()
        self.outbox.close(_END_S)

    def _next(self) -> None:
        self._attempts += 1
        if self._attempts > self._most:
            raise AssertionError(f"no end after {self._attempts} attempts: {self.outbox.status()}")
        if self.proxy.hit:
            self.met.add(self._armed.name)
        else:
            # The attempt ended before it came so far: once more.
            self.plan.append(self._armed)
        if self.plan and self._puts:
            self.put()
        self._armed = self.plan.pop() if self.plan else THROUGH
        self.proxy.arm(self._armed)

    def _look(self) -> None:
        if self.outbox.status().pending:
            return
        if self.plan:
            self.put()
        else:
            self._stop.set()

    def _count(self) -> None:
        self.settled += 1
