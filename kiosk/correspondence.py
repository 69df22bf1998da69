"""All that goes to the server: events by the sender, how the kiosk stands by the heart."""

from __future__ import annotations

import random
from collections.abc import Callable

from kiosk.clock import Clock, time_service
from kiosk.config import Server
from kiosk.outbox.store import Outbox
from kiosk.state import State
from kiosk.types import Envelope, Receipt
from kiosk.uplink.belief import Belief
from kiosk.uplink.heart import PATH, Heart
from kiosk.uplink.post import Poster
from kiosk.uplink.sender import Sender


class Correspondence:
    """A connection for each of the two, so that neither waits for the other."""

    def __init__(
        self,
        server: Server,
        outbox: Outbox,
        state: State,
        *,
        clock: Clock,
        beat: Callable[[str, float], None],
        on_settled: Callable[[Envelope, Receipt], None],
        heartbeat: Callable[[], bytes],
    ) -> None:
        self._posts = (Poster(server, clock=clock), Poster(server, clock=clock, path=PATH))
        self.sender = Sender(
            outbox,
            self._posts[0],
            Belief(server, state.signer_named).read,
            clock=clock,
            rng=random.SystemRandom(),
            server=server,
            on_settled=on_settled,
            clock_is_kept=bool(time_service()),
            beat=beat,
        )
        self.heart = Heart(
            self._posts[1],
            heartbeat,
            period_s=server.heartbeat_s,
            clock=clock,
            rng=random.SystemRandom(),
            beat=beat,
        )

    def abort(self) -> None:
        """End what is under way at once. Any thread."""
        for post in self._posts:
            post.abort()

    def close(self) -> None:
        """Close the kept connections."""
        for post in self._posts:
            post.close()
