"""Connections that another thread can end, at every moment from their first packet on.

They ask for what they send only once they stand, and read no more than a reply may have.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping
from http.client import HTTPResponse
from typing import Any, ClassVar

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

MAX_REPLY_BYTES = 65_536
# What a status line, its headers and the lengths of chunks may take besides.
_MOST_WITH_HEAD = 2 * MAX_REPLY_BYTES

OpenLetter = Callable[[], tuple[bytes, dict[str, str]]]


class Lifeline:
    """Holds the one socket in use, so that any thread can cut it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._stand_in: socket.socket | None = None
        self._cut = ""
        self._for_good = False

    @property
    def cut_because(self) -> str:
        """Why the exchange under way was cut, empty while it was not."""
        return self._cut

    def begin(self) -> None:
        """A new exchange begins: an earlier cut is over, unless it was for good."""
        with self._lock:
            if not self._for_good:
                self._cut = ""

    def cut(self, reason: str, *, for_good: bool = False) -> None:
        """End the exchange under way; `for_good` also every later one, at its beginning."""
        with self._lock:
            self._cut = self._cut or reason
            self._for_good = self._for_good or for_good
            for live in (self._socket, self._stand_in):
                if live is not None:
                    # Not connected yet or any more: nothing is left to wake.
                    with contextlib.suppress(OSError):
                        # Past SSLSocket.shutdown, which would unwrap it under its reader's feet.
                        socket.socket.shutdown(live, socket.SHUT_RDWR)

    def connect(self, new: socket.socket, address: Any, timeout_s: float | None) -> None:
        """Connect a socket, held from its first packet on; ConnectionAbortedError after a cut.

        A duplicate is held, because TLS takes the descriptor over before its handshake.
        """
        new.setblocking(False)
        with self._lock:
            self._check()
            self._let_go_of_stand_in()
            self._stand_in = new.dup()
            # Under the lock: a cut before the first packet would find nothing to shut, and the
            # packet would still go out.
            begun = new.connect_ex(address)
        _raise(0 if begun == errno.EINPROGRESS else begun)
        _wait_until_connected(new, timeout_s)
        new.settimeout(timeout_s)

    def connected(self, ready: socket.socket) -> None:
        """Hold a socket that is ready for use; ConnectionAbortedError after a cut."""
        with self._lock:
            self._let_go_of_stand_in()
            self._check()
            self._socket = ready

    def failed(self) -> None:
        """No connection came about."""
        with self._lock:
            self._let_go_of_stand_in()

    def _check(self) -> None:
        if self._cut:
            raise ConnectionAbortedError(self._cut)

    def _let_go_of_stand_in(self) -> None:
        # While a duplicate is open the server would not see the end of the connection.
        if self._stand_in is not None:
            self._stand_in.close()
            self._stand_in = None


def _wait_until_connected(new: socket.socket, timeout_s: float | None) -> None:
    poll = select.poll()
    poll.register(new, select.POLLOUT)
    if not poll.poll(None if timeout_s is None else timeout_s * 1000):
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    _raise(new.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _raise(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


class _Bounded(io.RawIOBase):
    """The bytes of one reply as they come from the socket, up to a limit.

    The limit is held here, below everything that reads a size, a line or a chunk's length out of
    the reply and believes it.
    """

    def __init__(self, source: io.RawIOBase) -> None:
        self._source = source
        self._left = _MOST_WITH_HEAD

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if not self._left:
            raise OSError(errno.EMSGSIZE, f"more than {MAX_REPLY_BYTES} bytes")
        count = self._source.readinto(memoryview(buffer)[: self._left])
        self._left -= count or 0
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


class _Reply(HTTPResponse):
    """A reply that is read through the limit."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Bounded(self.fp.detach()))


class _Held(HTTPConnection):
    """A connection that hands its socket to a lifeline before the first packet.

    What it is asked to send it gets from `open_letter`, and only once it is connected.
    """

    lifeline: ClassVar[Lifeline]
    open_letter: ClassVar[OpenLetter]
    response_class = _Reply

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if self.sock is None:
            self.connect()
        body, own = type(self).open_letter()
        super().request(method, url, body=body, headers={**(headers or {}), **own}, **options)

    def connect(self) -> None:
        try:
            super().connect()
            self.lifeline.connected(self.sock)
        except BaseException:
            self.lifeline.failed()
            raise

    def _new_conn(self) -> socket.socket:
        # As urllib3's own, which shows a socket only once it is connected.
        try:
            return self._first_reachable()
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError as error:
            raise NewConnectionError(self, f"no host name: {error}") from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection in {self.timeout} s") from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error

    def _first_reachable(self) -> socket.socket:
        failure: OSError = OSError("the name has no address")
        addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in addresses:
            new = socket.socket(family, kind, protocol)
            try:
                new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.lifeline.connect(new, address, self.timeout)
            except OSError as error:
                new.close()
                failure = error
            else:
                return new
        raise failure


def pool_classes(
    lifeline: Lifeline, open_letter: OpenLetter
) -> dict[str, type[HTTPConnectionPool]]:
    """Return connection pools, by scheme, whose connections hang on `lifeline`.

    `open_letter` gives body and headers of the request under way, when its connection stands.
    """

    class Plain(_Held):
        pass

    class Secure(_Held, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    Plain.lifeline = Secure.lifeline = lifeline
    Plain.open_letter = Secure.open_letter = staticmethod(open_letter)
    return {"http": PlainPool, "https": SecurePool}
