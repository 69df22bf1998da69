"""A kiosk's queue and sender as the product composes them, on a network that is told what to do."""

import base64
import json
import math
import random
import threading
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faults.chaos import THROUGH, Fault, Proxy
from faults.roll import Punched
from kiosk.clock import NS_PER_MS, NS_PER_S, SystemClock
from kiosk.config import Server
from kiosk.errors import UplinkError
from kiosk.outbox.store import Outbox
from kiosk.types import Receipt
from kiosk.uplink.belief import Belief
from kiosk.uplink.post import Poster
from kiosk.uplink.sender import Sender
from kiosk.vault import Vault
from kiosk.wire.signing import Signer
from outbox.punching import Punches, StillClock

KEY_ID = "hall-1"
_END_S = 60.0
# Beyond so many attempts for what was planned nothing moves any more.
_PATIENCE = 2000


@dataclass
class WaitingClock(StillClock):
    """Waiting moves it and costs nothing.

    `on_wait` is called after each wait, and within one at `due_ns` since boot, which it moves on.
    """

    on_wait: Callable[[], None] = lambda: None
    due_ns: float = math.inf
    rest_ns: int = 0

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        end_ns = self.boot_ns + int(timeout_s * NS_PER_S)
        while self.due_ns < end_ns and not event.is_set():
            self.move(int(self.due_ns) - self.boot_ns)
            self.on_wait()
        self.move(max(0, end_ns - self.boot_ns))
        self.on_wait()
        return event.is_set()

    def forward(self, seconds: float) -> None:
        self.move(int(seconds * NS_PER_S))

    def move(self, passed_ns: int) -> None:
        """To the nanosecond: wall time and time since boot never drift apart by rounding."""
        self.boot_ns += passed_ns
        whole_ms, self.rest_ns = divmod(self.rest_ns + passed_ns, NS_PER_MS)
        self.utc_ms += whole_ms


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
        self._path, self._timeout_s, self._read = path, timeout_s, read
        self._renames = renames
        self._punches = Punches(clock, rng=random.Random(path.as_posix()))
        self._stop = threading.Event()
        self.punched: list[Punched] = []
        self.plan: list[Fault] = []
        self.met: set[str] = set()
        self._armed: Fault = THROUGH
        self.attempts = self._most = 0
        self._puts = False
        self._open()

    def restart(self) -> None:
        """Close the queue and open it anew."""
        self.close()
        self._open()

    def _open(self) -> None:
        device, clock = self.device, self.clock
        self.outbox = Outbox(
            self._path, vault=device.vault, device_id=device.name, signer=device.signer, clock=clock
        )
        settings = Server(
            url=self.proxy.url,
            connect_timeout_s=self._timeout_s,
            read_timeout_s=self._timeout_s,
            key_id=KEY_ID,
        )
        # The network takes its time, whatever the kiosk's clock says.
        self._poster = Poster(settings, clock=SystemClock())
        keys = {KEY_ID: device.signer}
        self._sender = Sender(
            self.outbox,
            self,
            self._read or Belief(settings, keys.__getitem__).read,
            clock=clock,
            rng=random.Random(7),
            server=settings,
            on_settled=lambda *_: None,
            clock_is_kept=False,
            beat=lambda *_: None,
        )
        self.outbox.start()

    def put(self) -> None:
        """Somebody passes by, and never again."""
        name = f"{self.device.name}/{len(self.punched)}/{self.outbox.status().epoch}"
        punch = self._punches.make(employee=name)
        seq = self.outbox.put(punch)
        self.punched.append(Punched(punch.event_id, name, seq))

    def post(self, letter: Callable[..., object], **form: object) -> object:
        """One attempt, which meets what the plan says; the sender calls this."""
        self.attempts += 1
        if self._most:
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
        self._most = self.attempts + 2 * len(plan) + len(self.punched) + _PATIENCE
        self._run(self._look)

    def stand(self, look: Callable[[], bool]) -> None:
        """Send on a network that stays as it was armed, until `look`, asked at each wait, is so."""

        def until() -> None:
            if look():
                self._stop.set()

        self._most = 0
        self._run(until)

    def _run(self, look: Callable[[], None]) -> None:
        self.clock.on_wait = look
        self._stop.clear()
        self._sender.run(self._stop)

    def close(self) -> None:
        self._poster.close()
        self.outbox.close(_END_S)

    def _next(self) -> None:
        if self.attempts > self._most:
            raise AssertionError(f"no end after {self.attempts} attempts: {self.outbox.status()}")
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
