"""A network between kiosk and server that does what it is told to each attempt.

It listens on loopback, reads whole requests and passes them on to the real server. What becomes of
an attempt is a `Fault`, armed before the attempt and taken when its first byte arrives.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

HANG_S = 60.0
_HEAD_END = b"\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)
_PIECE = 65_536


@dataclass(frozen=True)
class Fault:
    """What becomes of one attempt; `do` returns whether the connection goes on."""

    name: str
    do: Callable[["Exchange"], bool]


def _pass_on(exchange: "Exchange") -> bool:
    exchange.send(exchange.forward(exchange.request()))
    exchange.release()
    return True


THROUGH = Fault("through", _pass_on)
REFUSE = Fault("refuse", lambda _: False)
"""Nobody listens; the connection that was kept is gone."""


class Exchange:
    """One connection of the kiosk, and one of its own to the server."""

    def __init__(self, client: socket.socket, upstream: tuple[str, int], held: list[bytes]) -> None:
        self.client = client
        self._upstream = upstream
        self._server: socket.socket | None = None
        self._held = held

    def request(self, most: int | None = None) -> bytes:
        """The request as it came, head and body; `most`: no more of it than so many bytes."""
        return whole(self.client, most)

    def forward(self, request: bytes) -> bytes:
        """Let the server have it; returns its reply."""
        if self._server is None:
            self._server = socket.create_connection(self._upstream, HANG_S)
            self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server.sendall(request)
        return whole(self._server)

    def forward_apart(self, request: bytes) -> bytes:
        """The same over a connection of its own."""
        with socket.create_connection(self._upstream, HANG_S) as server:
            server.sendall(request)
            return whole(server)

    def forward_part(self, part: bytes) -> None:
        """Let the server have the beginning of a request, and cut it off."""
        with socket.create_connection(self._upstream, HANG_S) as server:
            server.sendall(part)
            reset(server)

    def hold(self, request: bytes) -> None:
        """Keep a request; the server gets it late, after one or more that came after it."""
        self._held.append(request)

    def release(self) -> None:
        """Let the server have what was kept; nobody hears its answers."""
        while self._held:
            self.forward_apart(self._held.pop(0))

    def send(self, data: bytes) -> None:
        """Let the kiosk have it."""
        self.client.sendall(data)

    def until_gone(self) -> None:
        """Wait until the kiosk has hung up."""
        while self.client.recv(_PIECE):
            pass

    def close(self) -> None:
        for end in (self.client, self._server):
            if end is not None:
                end.close()


class Proxy:
    """The network. `arm` it before each attempt; one attempt at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._listener = _listener()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._fault = THROUGH
        self.hit = False
        """Whether what was armed has been taken."""
        self._held: list[bytes] = []
        self._admits = threading.Event()
        self._admits.set()
        self._closing = False
        self._clients: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="chaos")]
        self._threads[0].start()

    def arm(self, fault: Fault) -> None:
        """From now on an attempt meets this."""
        self._fault, self.hit = fault, fault is REFUSE
        if fault is REFUSE:
            self._refuse()
        elif not self._admits.is_set():
            self._listener.listen()
            self._admits.set()

    def close(self) -> None:
        """End; what was held goes to nobody."""
        self._closing = True
        self._refuse()
        self._admits.set()
        for thread in self._threads:
            thread.join(HANG_S)
            if thread.is_alive():
                raise AssertionError(f"expected {thread.name} to end, it hangs")
        self._listener.close()

    def _refuse(self) -> None:
        if self._admits.is_set():
            self._admits.clear()
            self._listener.shutdown(socket.SHUT_RDWR)
        for client in list(self._clients):
            with contextlib.suppress(OSError):  # its kiosk may have left already
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            self._admits.wait()
            if self._closing:
                return
            with contextlib.suppress(OSError):  # shut: nobody listens until it is armed anew
                client, _ = self._listener.accept()
                self._clients.add(client)
                thread = threading.Thread(target=self._serve, args=(client,), name="chaos-line")
                self._threads = [t for t in self._threads if t.is_alive()] + [thread]
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(HANG_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange = Exchange(client, self._upstream, self._held)
        # A kiosk that hangs up, or was cut off, is what this is about.
        with contextlib.suppress(OSError):
            while client.recv(1, socket.MSG_PEEK):
                fault, self.hit = self._fault, True
                if not fault.do(exchange):
                    break
        self._clients.discard(client)
        exchange.close()


def _listener() -> socket.socket:
    """A listener that keeps its port while it is shut: only one that was asked for by number does.

    Of two sockets that share a free port neither listens yet, so that nobody else gets it.
    """
    listener = socket.socket()
    with socket.socket() as first:
        for one in (first, listener):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        listener.bind(first.getsockname())
    listener.listen()
    return listener


def whole(source: socket.socket, most: int | None = None) -> bytes:
    """A request or reply to the end of its Content-Length; ConnectionError where it ends before."""
    data = b""
    need = None
    while need is None or len(data) < need:
        if most is not None and len(data) >= most:
            return data
        wanted = _PIECE if most is None else most - len(data)
        piece = source.recv(wanted)
        if not piece:
            raise ConnectionError("the end came before the end of the message")
        data += piece
        if need is None and _HEAD_END in data:
            need = data.index(_HEAD_END) + len(_HEAD_END) + _length(data)
    return data


def _length(data: bytes) -> int:
    for line in data[: data.index(_HEAD_END)].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def reset(end: socket.socket) -> None:
    """Close with RST: what is under way is lost."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.close()
