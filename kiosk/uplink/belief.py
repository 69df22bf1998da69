"""Whether to believe an answer: only the server's own word on this very event ends it."""

from __future__ import annotations

from collections.abc import Callable

from kiosk.config import Server, signed_receipts_required
from kiosk.errors import BareRefusalError, ReceiptError, UplinkPausedError
from kiosk.types import Receipt, ReceiptStatus
from kiosk.uplink.answer import Answer
from kiosk.wire import receipt
from kiosk.wire.signing import Signer


class Belief:
    """Reads receipts as the configuration says; `keys` gives this device's key of an id."""

    def __init__(self, server: Server, keys: Callable[[str], Signer]) -> None:
        self._required = signed_receipts_required(server)
        self._plain = server.accept_plain_receipts
        self._keys = keys

    def read(self, answer: Answer) -> Receipt:
        """Return the receipt in an answer.

        ReceiptError: a 2xx without one. UplinkPausedError: a refusal that does not carry the
        receipt `rejected` for this event, signed if the message was: whoever stands in between
        can send a status, and an event set aside is paid to nobody. BareRefusalError: the same,
        of a message without a signature, which no receipt could prove either.
        """
        try:
            told = receipt.parse(
                answer.body,
                event_id=answer.envelope.event_id,
                frozen=answer.envelope.body,
                keys=self._keys,
                required=self._required or answer.refused,
            )
        except ReceiptError as error:
            if answer.refused:
                raise _unproven(answer, error.message) from error
            if self._plain:
                return Receipt(ReceiptStatus.OK, 0.0)
            raise
        if answer.refused and told.status is not ReceiptStatus.REJECTED:
            raise _unproven(answer, f"S1: {told.status.value}")
        return told


def _unproven(answer: Answer, came: str) -> UplinkPausedError:
    kind = UplinkPausedError if receipt.is_signed(answer.envelope.body) else BareRefusalError
    return kind(
        f"expected the receipt `rejected` with status {answer.status}, got {came}",
        hint="a proxy may have answered in the server's place; everything is kept meanwhile",
    )
