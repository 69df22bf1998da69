"""One attendance message: read, authenticate, match, record, answer."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

from kiosk.errors import KioskError
from kiosk.server.matching import Found, Matcher
from kiosk.server.store import Record, Store
from kiosk.types import ReceiptStatus
from kiosk.wire import receipt
from kiosk.wire.message import Message, parse
from kiosk.wire.signing import Signer

log = logging.getLogger(__name__)


class UnauthenticError(KioskError):
    """A message that is not signed as this device's key demands."""


@dataclass(frozen=True, slots=True)
class Reception:
    """What the attendance route does, apart from HTTP."""

    store: Store
    matcher: Matcher
    keep_embeddings: bool

    def receive(self, body: bytes, *, unsigned_allowed: bool) -> dict[str, Any]:
        """The receipt for a message, once it is committed.

        MessageError or TokenError names a malformed field, UnauthenticError a missing or wrong
        signature.
        """
        message = parse(body)
        signer = self._signer_of(message, unsigned_allowed=unsigned_allowed)
        found = self._match(message)
        answer = ReceiptStatus(self.store.record(self._record(message, body, found)))
        if answer is ReceiptStatus.REJECTED:
            log.error("another body under event id %s of %s", message.event_id, message.device_id)
        sig1 = message.signature if signer is not None else None
        return receipt.render(message.event_id, answer, sig1=sig1, signer=signer)

    def _signer_of(self, message: Message, *, unsigned_allowed: bool) -> Signer | None:
        keys = self.store.keys(message.device_id)
        if not keys:
            if message.signature is None and unsigned_allowed:
                return None
            if unsigned_allowed:
                # Signed, but no key is registered: taken like an unsigned one, answered unsigned.
                return None
            raise UnauthenticError(
                f"D1: a device with a registered key expected, got {message.device_id}",
                hint="register its key, or send the bearer token",
            )
        key = keys.get(message.key_id or "")
        if key is None:
            raise UnauthenticError(f"K1: one of this device's keys expected, got {message.key_id}")
        signer = Signer(message.key_id or "", key)
        if not signer.message_is_authentic(message.fields):
            raise UnauthenticError("SIG1: the signature of this message expected, it is another")
        return signer

    def _match(self, message: Message) -> Found:
        if message.space is None:
            return Found(None, None, None)
        return self.matcher.match(message.vector, message.space)

    def _record(self, message: Message, body: bytes, found: Found) -> Record:
        fields = message.fields
        claimed, matched = message.employee, found.matched
        differs = claimed is not None and found.similarity is not None and matched != claimed
        return Record(
            event_id=message.event_id,
            device=message.device_id,
            body_sha256=hashlib.sha256(body).digest(),
            employee=claimed if claimed is not None else matched,
            claimed=claimed,
            matched=matched,
            similarity=found.similarity,
            kind=None if message.kind is None else message.kind.value,
            seen=str(fields["TS1"]),
            score=_text(fields, "F3"),
            quality=_text(fields, "S3"),
            liveness=_text(fields, "S2"),
            space=message.space,
            clock=_text(fields, "CLK"),
            seq=_text(fields, "SEQ"),
            signed=message.signature is not None,
            disagrees=differs,
            embedding=message.vector.astype("<f4").tobytes() if self.keep_embeddings else None,
        )


def _text(fields: dict[str, Any] | Any, name: str) -> str | None:
    value = fields.get(name)
    return None if value is None else str(value)
