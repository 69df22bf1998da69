"""The server's reply to one event, and whether to believe it."""

from __future__ import annotations

import math
from collections.abc import Callable

from kiosk.errors import ReceiptError
from kiosk.types import Receipt, ReceiptStatus
from kiosk.wire.jsontext import quoted, read_object
from kiosk.wire.signing import Signer

MAX_BYTES = 65_536
MAX_DELAY_S = 86_400.0
_SHOWN_CHARACTERS = 60
_STATUSES = ", ".join(status.value for status in ReceiptStatus)


def parse(
    body: bytes, *, event_id: str, frozen: bytes, keys: Callable[[str], Signer], required: bool
) -> Receipt:
    """Read the receipt for the event whose message was `frozen`.

    When the message carried SIG1, a SIG2 must be right if it is there, and with `required` it
    must be there. It is checked with the key that the message itself names: `keys` gives this
    device's key of an id, also of one that is no longer used for new messages. ReceiptError for
    all else, a captive portal's page above all: the event then stays unsettled.
    """
    reply = _read(body)
    if reply.get("A1") != event_id:
        raise ReceiptError(f"A1: expected {event_id}, got {_came(reply, 'A1')}")
    status = _status(reply)
    delay_s = _delay_s(reply)
    _check_signature(reply, frozen, keys, required=required)
    return Receipt(status, delay_s)


def is_signed(frozen: bytes) -> bool:
    """Whether a message carried SIG1, so that its receipt can be proven."""
    return isinstance(read_object(frozen, ReceiptError).get("SIG1"), str)


def render(
    a1: str,
    status: ReceiptStatus,
    *,
    rto_s: float | None = None,
    sig1: str | None = None,
    signer: Signer | None = None,
) -> dict[str, str | float]:
    """Build the reply to event `a1`; signed when the message was (`sig1`) and its key is known."""
    reply: dict[str, str | float] = {"A1": a1, "S1": status.value}
    if rto_s is not None:
        reply["RTO"] = rto_s
    if sig1 is not None and signer is not None:
        reply["SIG2"] = signer.sign_receipt(a1, status.value, sig1)
    return reply


def _read(body: bytes) -> dict[str, object]:
    if len(body) > MAX_BYTES:
        raise ReceiptError(
            f"expected a receipt of at most {MAX_BYTES} bytes, got {len(body)}: {_shown(body)}"
        )
    if not body.strip():
        raise ReceiptError("expected a receipt, got an empty body")
    try:
        return read_object(body, ReceiptError)
    except ReceiptError as cause:
        raise ReceiptError(
            f"no receipt: {cause}; it begins {_shown(body)}",
            hint="a page here means a captive portal or a wrong server.url",
        ) from cause


def _status(reply: dict[str, object]) -> ReceiptStatus:
    word = reply.get("S1")
    for status in ReceiptStatus:
        if word == status.value:
            return status
    raise ReceiptError(f"S1: expected one of {_STATUSES}, got {_came(reply, 'S1')}")


def _delay_s(reply: dict[str, object]) -> float:
    if "RTO" not in reply:
        return 0.0
    rto = reply["RTO"]
    if isinstance(rto, bool) or not isinstance(rto, int | float):
        raise ReceiptError(f"RTO: expected seconds as a number, got {quoted(rto)}")
    if not math.isfinite(rto) or rto < 0:
        raise ReceiptError(f"RTO: expected 0 seconds or more, got {quoted(rto)}")
    # A day at most: a server's slip must not silence a kiosk for a year.
    return min(float(rto), MAX_DELAY_S)


def _check_signature(
    reply: dict[str, object], frozen: bytes, keys: Callable[[str], Signer], *, required: bool
) -> None:
    message = read_object(frozen, ReceiptError)
    sig1 = message.get("SIG1")
    if not isinstance(sig1, str):
        # Sent before a key was set: the server has nothing to sign over.
        return
    if "SIG2" not in reply:
        if required:
            raise ReceiptError(
                "SIG2: expected a signed receipt, got none",
                hint="give the server this kiosk's sign key",
            )
        return
    signer = keys(str(message.get("K1")))
    if not signer.receipt_is_authentic(str(reply["A1"]), str(reply["S1"]), sig1, reply["SIG2"]):
        raise ReceiptError(
            f"SIG2: expected the signature under {signer.key_id}, got another",
            hint="the server holds another key for this kiosk, or someone else answered",
        )


def _came(reply: dict[str, object], name: str) -> str:
    return quoted(reply[name]) if name in reply else "no such field"


def _shown(body: bytes) -> str:
    """Return the first 60 printable characters of a body, quoted."""
    text = body[:MAX_BYTES].decode("utf-8", errors="replace")
    return repr("".join(filter(str.isprintable, text))[:_SHOWN_CHARACTERS])
