"""The catalogue of what a network does to an attempt."""

import gzip
import json
import random
import threading
from collections.abc import Callable, Iterator

from faults.chaos import REFUSE, Exchange, Fault, reset

_HTML = b"<!doctype html><title>Welcome to Free Wi-Fi</title><form action=/login></form>"
_FOREIGN = "01890a5d-ac96-774b-bcce-b302099a8057"
_STRAY_S = 0.02
_HUGE = 10_000_000
_NEVER = threading.Event()

STATUSES = range(100, 600)
TELLING = (100, 101, 200, 204, 206, 302, 304, 400, 401, 403, 404, 405, 408, 409, 410, 413, 418, 421)
TELLING += (422, 425, 429, 431, 451, 500, 501, 502, 503, 504, 505, 511, 599)
"""Those that mean something to somebody."""


def answer(status: str = "200 OK", body: bytes = b"", *headers: str) -> bytes:
    """A whole reply."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def body_of(message: bytes) -> bytes:
    """The body of a request or reply."""
    return message.partition(b"\r\n\r\n")[2]


def sent(name: str, reply: bytes, *, forwarded: bool = False, goes_on: bool = False) -> Fault:
    """Something that is not the server answers; `forwarded`: the server has it nevertheless."""

    def do(exchange: Exchange) -> bool:
        request = exchange.request()
        if forwarded:
            exchange.forward(request)
        exchange.send(reply)
        return goes_on

    return Fault(f"{name}{', after the commit' * forwarded}", do)


def status(code: int, *, forwarded: bool) -> Fault:
    """A status and nothing else."""
    return sent(f"status {code}", answer(f"{code} So"), forwarded=forwarded, goes_on=True)


def cut_request(at: int, *, hard: bool) -> Fault:
    """The line goes after so many bytes of the request, on both sides."""

    def do(exchange: Exchange) -> bool:
        part = exchange.request(at) if at else b""
        exchange.forward_part(part)
        if hard:
            reset(exchange.client)
        return False

    return Fault(f"request cut at {at}{'!' * hard}", do)


def cut_reply(at: int, *, hard: bool) -> Fault:
    """The server commits; the line goes after so many bytes of its reply."""

    def do(exchange: Exchange) -> bool:
        exchange.send(exchange.forward(exchange.request())[:at])
        if hard:
            reset(exchange.client)
        return False

    return Fault(f"reply cut at {at}{'!' * hard}", do)


def changed(name: str, change: Callable[[bytes, bytes], bytes]) -> Fault:
    """The server commits, and its reply's body is changed; given the bodies of both."""

    def do(exchange: Exchange) -> bool:
        request = exchange.request()
        reply = exchange.forward(request)
        exchange.send(answer("200 OK", change(body_of(request), body_of(reply))))
        return True

    return Fault(f"changed: {name}", do)


def cuts(request: int, reply: int, step: int = 1) -> Iterator[Fault]:
    """Cuts at every byte of request and reply, by RST and by a polite end in turn or both."""
    for count, of in ((request, cut_request), (reply, cut_reply)):
        for at in range(0, count + 1, step):
            for hard in (False, True) if step == 1 else (at // step % 2 == 0,):
                yield of(at, hard=hard)


def statuses(codes: range | tuple[int, ...]) -> Iterator[Fault]:
    """Every status, before and after a commit."""
    for code in codes:
        for forwarded in (False, True):
            yield status(code, forwarded=forwarded)


def quick() -> Iterator[Fault]:
    """What costs no time."""
    yield REFUSE
    yield from _wrong_json()
    yield from _changed_replies()
    yield from _nonsense()
    yield from _moved()
    yield from _delays()
    yield Fault("duplicated", _duplicated)
    yield Fault("sent twice at once", _at_once)
    yield Fault("late", _late)
    yield Fault("late, refused at first", _late_and_refused)
    yield Fault("byte by byte", _fragments)


def slow() -> Iterator[Fault]:
    """What costs the kiosk a timeout."""
    yield Fault("stall before the server", _stall)
    yield Fault("stall after the commit", _stall_after)
    yield Fault("stall within the reply", _stall_within)
    yield Fault("drip", _drip)
    yield Fault("late, a stall at first", _late_and_stalled)
    yield sent("status 100 and no more", b"HTTP/1.1 100 Continue\r\n\r\n", forwarded=True)


def _wrong_json() -> Iterator[Fault]:
    foreign = {"A1": _FOREIGN, "S1": "ok"}
    bodies = {
        "nothing": b"",
        "null": b"null",
        "a word": b'"ok"',
        "an object": b"{}",
        "an array": b"[]",
        "half an object": b'{"A1": "',
        "a foreign receipt": json.dumps(foreign).encode(),
        "foreign receipts": json.dumps([foreign] * 100).encode(),
        "brackets": b"[" * 60_000,
        "not a number": b'{"A1": NaN, "S1": "ok"}',
        "UTF-16": json.dumps(foreign).encode("utf-16"),
        "no text": bytes(range(256)),
        "a captive portal": _HTML,
    }
    for name, body in bodies.items():
        for forwarded in (False, True):
            yield sent(f"200, {name}", answer("200 OK", body), forwarded=forwarded, goes_on=True)


def _changed_replies() -> Iterator[Fault]:
    yield changed("unsigned", lambda _, reply: _each(reply, SIG2=None))
    yield changed("a wrong signature", lambda _, reply: _each(reply, SIG2="AAAA"))
    yield changed("another word", lambda _, reply: _each(reply, S1="maybe"))
    yield changed("rejected, by nobody", lambda _, reply: _each(reply, S1="rejected"))
    yield changed("rejected, unsigned", lambda _, reply: _each(reply, S1="rejected", SIG2=None))
    yield changed("another event", lambda _, reply: _each(reply, A1=_FOREIGN))
    yield changed("RTO of a word", lambda _, reply: _each(reply, RTO="soon"))
    yield changed("the message itself", lambda request, _: request)
    yield changed("twice", lambda _, reply: reply + reply)
    yield changed("within an array", lambda _, reply: b"[" + reply + b"]")
    yield changed("in reverse", lambda _, reply: _several(reply, lambda words: words[::-1]))
    yield changed("one missing", lambda _, reply: _several(reply, lambda words: words[1:]))
    yield changed("one too many", lambda _, reply: _several(reply, lambda words: words + words[:1]))


def _each(reply: bytes, **fields: object) -> bytes:
    """Every receipt in a reply with other fields; None takes one out."""
    told = json.loads(reply)
    words = [
        {name: value for name, value in (word | fields).items() if value is not None}
        for word in (told if isinstance(told, list) else [told])
    ]
    return json.dumps(words if isinstance(told, list) else words[0]).encode()


def _several(reply: bytes, change: Callable[[list[object]], list[object]]) -> bytes:
    """The receipts of a reply changed as a list; one by itself goes as a list."""
    told = json.loads(reply)
    return json.dumps(change(told if isinstance(told, list) else [told])).encode()


def _nonsense() -> Iterator[Fault]:
    raw = {
        "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/0.9": _HTML,
        "a status of words": b"HTTP/1.1 ok ok\r\n\r\n",
        "a status of two digits": b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        "a status of four digits": b"HTTP/1.1 2000 High\r\nContent-Length: 0\r\n\r\n",
        "a length of words": b"HTTP/1.1 200 OK\r\nContent-Length: few\r\n\r\n{}",
        "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        "chunks of words": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n",
        "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000,
        "an endless line": b"HTTP/1.1 200 OK\r\nX: " + b"y" * _HUGE,
        "an endless chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1"
        + b"0" * _HUGE,
        "a hundred continues": b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
        "a huge body": answer("200 OK", b"x" * _HUGE),
        "a huge error": answer("500 Oops", b"x" * _HUGE),
        "a huge body without a length": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * _HUGE,
        "a bomb": answer("200 OK", gzip.compress(bytes(_HUGE)), "Content-Encoding: gzip"),
        "no gzip": answer("200 OK", b"{}", "Content-Encoding: gzip"),
    }
    for name, data in raw.items():
        yield sent(name, data)


def _moved() -> Iterator[Fault]:
    for code in (301, 302, 303, 307, 308):
        for place in ("/toon/attendance", "http://127.0.0.1:9/", "//", "\x00"):
            reply = answer(f"{code} Moved", _HTML, f"Location: {place}")
            yield sent(f"redirect {code} to {place!r}", reply, goes_on=True)


def _delays() -> Iterator[Fault]:
    date = "Date: Thu, 01 Jan 2026 00:00:00 GMT"
    for after in ("7", "86400", "99999999999", "soon", "-1", "Thu, 01 Jan 2026 00:00:09 GMT"):
        for code in (429, 503):
            reply = answer(f"{code} Later", b"", f"Retry-After: {after}", date)
            yield sent(f"status {code}, {after}", reply, goes_on=True)


def _duplicated(exchange: Exchange) -> bool:
    """The request comes twice, the answer to the second one goes back."""
    request = exchange.request()
    exchange.forward_apart(request)
    exchange.send(exchange.forward(request))
    return True


def _at_once(exchange: Exchange) -> bool:
    """The request comes twice over two lines at once."""
    request = exchange.request()
    other = threading.Thread(target=exchange.forward_apart, args=(request,))
    other.start()
    try:
        reply = exchange.forward(request)
    finally:
        other.join()
    exchange.send(reply)
    return True


def _late(exchange: Exchange) -> bool:
    """The request comes now, and once more when others came after it."""
    request = exchange.request()
    exchange.send(exchange.forward(request))
    exchange.hold(request)
    return True


def _late_and_refused(exchange: Exchange) -> bool:
    """The kiosk hears of an error; the request was held and comes when others came after it."""
    exchange.hold(exchange.request())
    exchange.send(answer("504 Gateway Timeout"))
    return True


def _late_and_stalled(exchange: Exchange) -> bool:
    exchange.hold(exchange.request())
    exchange.until_gone()
    return False


def _fragments(exchange: Exchange) -> bool:
    """Each byte of the reply by itself, without a pause: slow is not wrong."""
    for byte in exchange.forward(exchange.request()):
        exchange.send(bytes((byte,)))
    return True


def _stall(exchange: Exchange) -> bool:
    exchange.request()
    exchange.until_gone()
    return False


def _stall_after(exchange: Exchange) -> bool:
    exchange.forward(exchange.request())
    exchange.until_gone()
    return False


def _stall_within(exchange: Exchange) -> bool:
    reply = exchange.forward(exchange.request())
    exchange.send(reply[: len(reply) // 2])
    exchange.until_gone()
    return False


def _drip(exchange: Exchange) -> bool:
    """Each byte in time, the whole never."""
    reply = answer("200 OK", b" " * 60_000)
    for byte in reply:
        exchange.send(bytes((byte,)))
        _NEVER.wait(_STRAY_S)
    return False


def shuffled(faults: list[Fault], through: Fault, rng: random.Random) -> list[Fault]:
    """Bursts of faults with calm in between, so that requests grow and shrink again."""
    left = list(faults)
    rng.shuffle(left)
    plan: list[Fault] = []
    while left:
        for _ in range(rng.randint(1, 4)):
            if left:
                plan.append(left.pop())
        plan += [through] * rng.choice((0, 0, 1, 2, 4))
    return plan
