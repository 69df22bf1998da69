"""One connection of the server: nobody keeps a place for ever by saying nothing."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 500
HEAD_S = 10.0


class Connection(H11Protocol):
    """Uvicorn's protocol, which by itself waits for a request's head without an end.

    A head has HEAD_S to arrive in whole, however slowly it drips; bodies have a deadline of their
    own (`intake`). Of more than MAX_CONNECTIONS the one that has owed something longest goes: a
    new one is an honest kiosk's more likely than one that has long said nothing.
    """

    _head_deadline: asyncio.TimerHandle | None = None
    _since_s = 0.0

    @property
    def is_asked(self) -> bool:
        """Whether a request's head is there and its answer is not yet given."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_owed(self) -> bool:
        """Whether the peer is to send the rest of something, or to take what it asked for."""
        is_unread = self.transport.get_write_buffer_size() > 0
        return not self.is_asked or self.cycle.more_body or is_unread

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room if there is none, and wait for the first head."""
        super().connection_made(transport)
        self._since_s = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._end_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; what comes between two requests is a head as well, and has its deadline."""
        super().data_received(data)
        if self.is_asked:
            self._end_deadline()
        else:
            self._await_head()

    def on_response_complete(self) -> None:
        """An answer was given: from now on the peer owes its next request."""
        self._since_s = self.loop.time()
        super().on_response_complete()

    def shutdown(self) -> None:
        """End; a body that is not whole yet is not waited for."""
        if self.is_asked and self.cycle.more_body:
            self.transport.abort()
        else:
            super().shutdown()

    def _await_head(self) -> None:
        if self._head_deadline is None and not self.transport.is_closing():
            self._head_deadline = self.loop.call_later(HEAD_S, self.transport.abort)

    def _end_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _make_room(self) -> None:
        others = [c for c in self.connections if isinstance(c, Connection) and c is not self]
        owing = [other for other in others if other.is_owed]
        if owing:
            last = min(owing, key=lambda other: other._since_s)
            # At once, and not only when it is lost: its place is needed now.
            self.connections.discard(last)
            last.transport.abort()
