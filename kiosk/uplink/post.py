"""Bytes in, bytes of a 2xx reply out, or an error that decides the event's fate."""

from __future__ import annotations

import contextlib
import email.utils
import logging
import socket
import threading
from datetime import UTC, datetime
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from kiosk import __version__
from kiosk.clock import NS_PER_S, Clock
from kiosk.config import Server
from kiosk.errors import EventRefusedError, LinkDownError, UplinkError, UplinkPausedError
from kiosk.types import Envelope

log = logging.getLogger(__name__)

MAX_REPLY = 64 * 1024
_MAX_DELAY_S = 86_400.0
_AGAIN = {408, 425, 429}
_PAUSE = {401, 403, 404, 405, 410, 501}
_REFUSED = {400, 413, 422}


def error_for(status: int, retry_after_s: float) -> UplinkError | None:
    """What an HTTP status means for the event; None for 2xx."""
    if 200 <= status < 300:
        return None
    if status in _REFUSED:
        return EventRefusedError(f"the server refuses this event with status {status}")
    if status in _AGAIN or (500 <= status < 600 and status not in _PAUSE):
        return LinkDownError(f"the server answers with status {status}", min_delay_s=retry_after_s)
    what = "refuses this kiosk" if status in _PAUSE else "answers unexpectedly"
    return UplinkPausedError(
        f"the server {what} with status {status}",
        hint="look at server.url, the key and the server; the queue waits and is probed slowly",
    )


def retry_after_s(value: str | None, now_utc_ms: int) -> float:
    """Retry-After as seconds from now (RFC 9110, 10.2.3), 0 without one, at most a day."""
    if not value:
        return 0.0
    if value.strip().isdigit():
        return min(float(value), _MAX_DELAY_S)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        log.warning("uplink.bad_retry_after", extra={"fields": {"value": value[:60]}})
        return 0.0
    now = datetime.fromtimestamp(now_utc_ms / 1000, UTC)
    return min(max(0.0, (moment.astimezone(UTC) - now).total_seconds()), _MAX_DELAY_S)


class _Sockets:
    """The sockets of posts under way, so that another thread can shut them."""

    def __init__(self) -> None:
        self._live: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._aborted = False

    def add(self, live: socket.socket) -> None:
        with self._lock:
            if self._aborted:
                live.close()
                raise ConnectionAbortedError("the kiosk is stopping")
            self._live.add(live)

    def shut(self) -> None:
        with self._lock:
            self._aborted = True
            for live in self._live:
                # Already closed by its own thread: nothing is left to wake.
                with contextlib.suppress(OSError):
                    live.shutdown(socket.SHUT_RDWR)


def _registering(kind: type[HTTPConnection], sockets: _Sockets) -> type[HTTPConnection]:
    """A connection class that registers its socket as soon as it is connected."""

    class Registering(kind):  # type: ignore[valid-type, misc] # a class made for its base
        def _new_conn(self) -> socket.socket:
            made: socket.socket = super()._new_conn()
            sockets.add(made)
            return made

    return Registering


class _Adapter(HTTPAdapter):
    """Pools whose connections register their sockets."""

    def __init__(self, sockets: _Sockets) -> None:
        self._sockets = sockets
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        plain, secure = self._sockets, self._sockets

        class Plain(HTTPConnectionPool):
            ConnectionCls = _registering(HTTPConnection, plain)

        class Secure(HTTPSConnectionPool):
            ConnectionCls = _registering(HTTPSConnection, secure)

        self.poolmanager.pool_classes_by_scheme = {"http": Plain, "https": Secure}


class Poster:
    """Posts one event at a time over a kept connection. `abort` may come from any thread.

    What cannot be aborted is a name look-up and a connection being made; both end by the
    connect timeout.
    """

    def __init__(self, server: Server, *, clock: Clock) -> None:
        self._url = server.url.rstrip("/") + "/toon/attendance"
        self._timeouts = (server.connect_timeout_s, server.read_timeout_s)
        self._clock = clock
        self._sockets = _Sockets()
        self._session = requests.Session()
        # Neither proxies nor passwords from the environment: the configuration alone decides.
        self._session.trust_env = False
        self._session.verify = server.ca_file or True
        if server.client_cert_file:
            self._session.cert = (server.client_cert_file, server.client_key_file)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(self._sockets))

    def post(self, envelope: Envelope) -> bytes:
        """The body of a 2xx reply.

        LinkDownError: try again. UplinkPausedError: the server refuses this kiosk.
        EventRefusedError: the server refuses this event.
        """
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": envelope.event_id,
            "User-Agent": f"face-kiosk/{__version__}",
        }
        try:
            with self._session.post(
                self._url,
                data=envelope.body,
                headers=headers,
                timeout=self._timeouts,
                allow_redirects=False,
                stream=True,
            ) as reply:
                delay = retry_after_s(reply.headers.get("Retry-After"), self._clock.now().utc_ms)
                error = error_for(reply.status_code, delay)
                if error is not None:
                    raise error
                return self._read(reply)
        except (requests.RequestException, OSError) as error:
            raise LinkDownError(
                f"a reply of {self._url} expected, got {_cause(error)}",
                hint="the event stays queued and is sent again",
            ) from error

    def abort(self) -> None:
        """Shut the live socket: a post under way ends at once and leaves its event unsettled."""
        self._sockets.shut()

    def _read(self, reply: requests.Response) -> bytes:
        """The body, bounded in size and in time: a slow drip ends at the read timeout."""
        body = bytearray()
        end = self._clock.boottime_ns() + int(self._timeouts[1] * NS_PER_S)
        # read1 returns what one receive brought: a filled buffer would wait for every drip.
        while part := reply.raw.read1(4096, decode_content=True):
            body += part
            if len(body) > MAX_REPLY:
                raise LinkDownError(f"a reply of at most {MAX_REPLY} bytes expected, got more")
            if self._clock.boottime_ns() > end:
                raise LinkDownError(f"a whole reply within {self._timeouts[1]:g} s expected")
        return bytes(body)


def _cause(error: BaseException) -> str:
    """The innermost reason, in a few words, without the address repeated."""
    inner: BaseException = error
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    return f"{type(inner).__name__}: {str(inner)[:120]}"
