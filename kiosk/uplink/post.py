"""One request out, one reply in, or an error that decides what comes next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from kiosk import __version__
from kiosk.clock import Clock
from kiosk.config import Server
from kiosk.errors import LinkDownError, UplinkPausedError
from kiosk.files import lacks
from kiosk.types import Envelope
from kiosk.uplink.answer import Reply, check_status
from kiosk.uplink.lifeline import MAX_REPLY_BYTES, Lifeline, OpenLetter, pool_classes
from kiosk.wire.batch import join

Letter = Callable[[], Sequence[Envelope]]

_CHUNK_BYTES = 8192


class Poster:
    """Posts one request at a time, over a connection that is kept open in between.

    Not to be shared by threads, but for `abort`. Nothing is tried twice in here, no redirect is
    followed, and neither proxies nor passwords are taken from the environment.
    """

    def __init__(self, server: Server, *, clock: Clock, path: str = "/toon/attendance") -> None:
        """Prepare; no connection is made yet. `clock` must be one whose waits take real time."""
        self._server = server
        self._clock = clock
        self._url = server.url.rstrip("/") + path
        self._limit_s = server.connect_timeout_s + server.read_timeout_s
        self._lifeline = Lifeline()
        self._letter: Letter = tuple
        self._is_batch = False
        self._sent: tuple[Envelope, ...] = ()
        self._session = _session(server, self._lifeline, self._open_letter)

    def post(self, letter: Letter, *, is_batch: bool) -> Reply | None:
        """Connect, ask for the letter once the connection stands, TLS included, and send it.

        In the single form the letter is one envelope at most. Returns what came back, its body
        at most 64 KiB; None when there was no letter, and nothing was sent. The whole exchange
        ends after connect and read timeout together, however slowly either side drips.
        LinkDownError: no whole answer, or one that asks to try again. UplinkPausedError: the
        server refuses this kiosk, or a configured file is missing. What `letter` raises comes
        through.
        """
        self._check_files()
        self._letter, self._is_batch, self._sent = letter, is_batch, ()
        self._lifeline.begin()
        done = threading.Event()
        guard = threading.Thread(target=self._guard, args=(done,), name="post-guard", daemon=True)
        guard.start()
        try:
            reply = self._exchange()
        except _NothingToSend:
            return None
        except (OSError, HTTPError) as error:
            # What broke one exchange may lie in wait for the next: it begins on a new connection.
            self._session.close()
            raise self._down(_cause(error)) from error
        finally:
            done.set()
            guard.join()
        if self._lifeline.cut_because:
            # A reply without a length ends with its connection: this one may lack its end.
            raise self._down("a cut connection")
        return reply

    def abort(self) -> None:
        """End the post under way at once, and every later one, with LinkDownError. Any thread.

        From the first packet of the connection on; a name look-up cannot be ended from outside
        and lasts as long as the resolver's own limits say.
        """
        self._lifeline.cut("the kiosk is stopping", for_good=True)

    def close(self) -> None:
        """Close the kept connection."""
        self._session.close()

    def _guard(self, done: threading.Event) -> None:
        if not self._clock.wait(done, self._limit_s):
            self._lifeline.cut(f"no whole reply within {self._limit_s:g} s")

    def _open_letter(self) -> tuple[bytes, dict[str, str]]:
        """Called by the connection when it stands: the body and the headers that go with it."""
        self._sent = tuple(self._letter())
        if not self._sent:
            raise _NothingToSend
        if self._is_batch:
            body = join([envelope.body for envelope in self._sent])
            return body, {"Content-Length": str(len(body))}
        (one,) = self._sent
        headers = {"Content-Length": str(len(one.body))}
        # A heartbeat is no event: to hear it twice is to hear it once.
        return one.body, headers | ({"Idempotency-Key": one.event_id} if one.event_id else {})

    def _exchange(self) -> Reply:
        with self._session.post(
            self._url + ("/batch" if self._is_batch else ""),
            timeout=(self._server.connect_timeout_s, self._server.read_timeout_s),
            allow_redirects=False,
            stream=True,
        ) as reply:
            asked_s = check_status(
                reply.status_code,
                retry_after=reply.headers.get("Retry-After"),
                date=reply.headers.get("Date"),
                is_batch=self._is_batch,
            )
            body = self._bounded(reply)
        if not self._sent:
            raise self._down("a reply before anything was sent")
        return Reply(self._sent, reply.status_code, body, self._is_batch, asked_s)

    def _bounded(self, reply: requests.Response) -> bytes:
        body = bytearray()
        for chunk in reply.iter_content(_CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_REPLY_BYTES:
                raise self._down(f"more than {MAX_REPLY_BYTES} bytes")
        return bytes(body)

    def _down(self, cause: str) -> LinkDownError:
        return LinkDownError(
            f"expected a reply of {self._url}, got {self._lifeline.cut_because or cause}",
            hint="the event stays queued and is sent again",
        )

    def _check_files(self) -> None:
        server = self._server
        for name in ("ca_file", "client_cert_file", "client_key_file"):
            path = getattr(server, name)
            if path and lacks(Path(path), Path.is_file):
                raise UplinkPausedError(
                    f"server.{name} = {path}: expected a PEM file, there is none",
                    hint="put it there or mend the configuration; everything is kept meanwhile",
                )


class _NothingToSend(Exception):  # noqa: N818 - no error: what waited was set aside
    """There is no letter after all; the connection is given up, and nothing was sent."""


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Say that there is none: requests reads a redirect's body to its end without a bound."""
        return None


class _Adapter(HTTPAdapter):
    """One kept connection, held by a lifeline; nothing is retried."""

    def __init__(self, lifeline: Lifeline, open_letter: OpenLetter) -> None:
        self._pools = pool_classes(lifeline, open_letter)
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools


def _session(server: Server, lifeline: Lifeline, open_letter: OpenLetter) -> requests.Session:
    session = _Session()
    session.trust_env = False
    session.verify = server.ca_file or True
    if server.client_cert_file:
        session.cert = (server.client_cert_file, server.client_key_file)
    session.headers.update(
        {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # A receipt is small; nothing that unpacks to more than was sent is asked for.
            "Accept-Encoding": "identity",
            "User-Agent": f"face-kiosk/{__version__}",
        }
    )
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(lifeline, open_letter))
    return session


def _cause(error: BaseException) -> str:
    """Return the innermost reason: requests and urllib3 wrap it in one another."""
    wrapped = (getattr(error, "reason", None), *error.args)
    for inner in wrapped:
        if isinstance(inner, BaseException):
            return _cause(inner)
    if error.__cause__ is not None:
        return _cause(error.__cause__)
    return f"{type(error).__name__}: {error}"
