"""What a server answered, and what its status line means for the event: a pure table."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from kiosk.errors import LinkDownError, ReceiptError, UplinkPausedError, WireError
from kiosk.types import Envelope
from kiosk.wire.batch import split

log = logging.getLogger(__name__)

MAX_DELAY_S = 86_400.0

_AGAIN = frozenset({408, 425, 429})
_KIOSK_REFUSED = frozenset({401, 403, 404, 405, 410, 501})
_EVENT_REFUSED = frozenset({400, 422})
_TOO_LARGE = 413
_NO_BATCH = frozenset({404, 405, 501})
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one message: a 2xx, or a refusal of this event, and the reply's body.

    Neither is believed for its status: only the receipt in `body` can end the event.
    """

    envelope: Envelope
    status: int
    body: bytes

    @property
    def refused(self) -> bool:
        """Whether the status says that the fault lies in this very event."""
        return self.status in _EVENT_REFUSED


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request, in the batch form or the single one.

    `min_delay_s`: what Retry-After asked for, 0 if nothing.
    """

    envelopes: tuple[Envelope, ...]
    status: int
    body: bytes
    is_batch: bool
    min_delay_s: float = 0.0

    @property
    def has_no_batch(self) -> bool:
        """Whether this server has no batch address."""
        return self.is_batch and self.status in _NO_BATCH

    @property
    def is_too_large(self) -> bool:
        """Whether a smaller batch may be taken."""
        return self.is_batch and self.status == _TOO_LARGE

    @property
    def is_refused_batch(self) -> bool:
        """Whether the fault may lie in one of several events."""
        return self.is_batch and self.status in _EVENT_REFUSED

    def answers(self) -> list[Answer]:
        """The answer to each event; ReceiptError where the reply to a batch is not one for each."""
        if not self.is_batch:
            return [Answer(self.envelopes[0], self.status, self.body)]
        bodies = split(self.body, ReceiptError)
        if len(bodies) != len(self.envelopes):
            raise ReceiptError(
                f"expected an array of {len(self.envelopes)} receipts, got {len(bodies)}"
            )
        return [
            Answer(envelope, self.status, body)
            for envelope, body in zip(self.envelopes, bodies, strict=True)
        ]


def check_status(
    status: int, *, retry_after: str | None, date: str | None, is_batch: bool = False
) -> float:
    """Return for 2xx, 400 and 422, and raise for every other HTTP status what it means.

    Returns the seconds that Retry-After asks for, 0 if none. Of a batch 404, 405, 413 and 501 are
    let through too: they speak of batches only.

    408, 425, 429, 5xx but 501: LinkDownError with the delay the server asked for.
    401, 403, 404, 405, 410, 413, 501 and every status that is not named here, redirects among
    them: UplinkPausedError. `retry_after` and `date` are the reply's headers of these names.
    """
    asked_s = _asked_delay_s(retry_after, date)
    if 200 <= status < 300 or status in _EVENT_REFUSED:
        return asked_s
    if is_batch and (status in _NO_BATCH or status == _TOO_LARGE):
        return asked_s
    if status in _AGAIN or (500 <= status < 600 and status not in _KIOSK_REFUSED):
        raise LinkDownError(
            f"expected a receipt, got status {status}",
            hint="the event is sent again later",
            min_delay_s=asked_s,
        )
    if status == _TOO_LARGE:
        raise UplinkPausedError(
            f"expected a receipt, got status {status} for a message of a few kilobytes",
            hint="raise the limit of the server or of what stands in between",
            min_delay_s=asked_s,
        )
    if status in _KIOSK_REFUSED:
        raise UplinkPausedError(
            f"expected a receipt, the server refuses this kiosk: {status}",
            hint="check server.url and the keys on both sides; everything is kept meanwhile",
            min_delay_s=asked_s,
            status=status,
        )
    raise UplinkPausedError(
        f"expected a receipt, got status {status}, which no attendance server sends",
        hint="check server.url and what stands in between; everything is kept meanwhile",
        min_delay_s=asked_s,
    )


def retry_after_s(value: str, date: str | None) -> float:
    """Return Retry-After (RFC 9110, 10.2.3) in seconds, 0..86400; WireError if it is neither form.

    A moment is taken relative to `date`, the same reply's Date: the kiosk's clock may be wrong,
    and the difference of two times of one clock never is.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_DELAY_S)
    seconds = (_moment("Retry-After", text) - _moment("Date", date or "")).total_seconds()
    return min(max(seconds, 0.0), MAX_DELAY_S)


def _asked_delay_s(retry_after: str | None, date: str | None) -> float:
    if retry_after is None:
        return 0.0
    try:
        return retry_after_s(retry_after, date)
    except WireError as error:
        log.warning("uplink.retry_after_ignored", extra={"fields": {"reason": str(error)}})
        return 0.0


def _moment(header: str, text: str) -> datetime:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError) as cause:
        shown = text[:_SHOWN_CHARACTERS]
        raise WireError(f"{header}: expected seconds or an HTTP date, got {shown!r}") from cause
    # HTTP dates are in GMT whether or not they say so.
    return moment.replace(tzinfo=UTC)
