"""One attendance message: read, authenticate, match, record, answer. Nothing here knows HTTP."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

from kiosk.errors import Fate, KioskError, MessageError
from kiosk.server.matching import NOBODY, Found, Matcher
from kiosk.server.store import Store
from kiosk.server.tables import Record
from kiosk.types import ReceiptStatus
from kiosk.wire import receipt
from kiosk.wire.jsontext import canonical, quoted
from kiosk.wire.message import Message, parse
from kiosk.wire.signing import Signer

log = logging.getLogger(__name__)

# Of a message without F2_MODEL, which is never compared with anything.
_NO_SPACE = "unnamed"


class UnauthenticError(KioskError):
    """A message that does not come, provably, from the device it names."""

    fate = Fate.REFUSE


@dataclass(frozen=True, slots=True)
class Reception:
    """What the attendance route does."""

    store: Store
    matcher: Matcher
    keep_embeddings: bool

    def receive(
        self, body: bytes, idempotency_key: str | None, unsigned_allowed: bool
    ) -> dict[str, str | float]:
        """The receipt for a message, once what it says is committed.

        MessageError, TokenError or EmbeddingError names a malformed field, UnauthenticError a
        missing or wrong signature; StoreError: nothing was recorded. `unsigned_allowed`: whether
        the sender may speak for a device that has no key here.
        """
        message = parse(body)
        if idempotency_key is not None and idempotency_key != message.event_id:
            raise MessageError(
                f"Idempotency-Key: expected the value of A1, got {quoted(idempotency_key)}"
            )
        signer = self._signer_of(message, unsigned_allowed=unsigned_allowed)
        status = self.store.record(self._record(message))
        _tell(message, status)
        sig1 = message.signature if signer is not None else None
        return receipt.render(message.event_id, status, sig1=sig1, signer=signer)

    def _signer_of(self, message: Message, *, unsigned_allowed: bool) -> Signer | None:
        """The key that the message is signed with, proven; None for a rightly unsigned one."""
        keys = self.store.keys(message.device_id)
        if message.key_id is None:
            if keys:
                raise UnauthenticError("K1, SIG1: expected of this device, got neither")
            if not unsigned_allowed:
                raise UnauthenticError(
                    "K1, SIG1 or a bearer token: expected one of them, got neither",
                    hint="register the device's key",
                )
            return None
        if message.key_id not in keys:
            raise UnauthenticError(
                f"K1: expected a registered key of this device, got {message.key_id}",
                hint=f"PUT /devices/{message.device_id}/keys/{message.key_id}",
            )
        signer = Signer(message.key_id, keys[message.key_id])
        if not signer.message_is_authentic(message.fields):
            raise UnauthenticError(
                f"SIG1: expected this message's signature under {signer.key_id}, got another"
            )
        return signer

    def _record(self, message: Message) -> Record:
        embedding = self.matcher.embedding(message.vector, message.space or _NO_SPACE)
        found = NOBODY
        # A retry is answered from what is on record, whoever was enrolled since.
        is_retry = self.store.is_known(message.device_id, message.event_id)
        if message.space is not None and not is_retry:
            found = self.matcher.match(embedding, message.employee)
        employee = message.employee if message.employee is not None else found.matched
        # An unidentified visit keeps no embedding, whatever was configured.
        keep = self.keep_embeddings and employee is not None
        return Record(
            event_id=message.event_id,
            device=message.device_id,
            # Over the canonical form: white space and the order of keys make no other body.
            body_sha256=hashlib.sha256(canonical(message.fields)).digest(),
            employee=employee,
            claimed=message.employee,
            matched=found.matched,
            similarity=found.similarity,
            kind=None if message.kind is None else message.kind.value,
            seen=str(message.fields["TS1"]),
            score=message.score,
            quality=message.quality,
            liveness=message.liveness,
            space=message.space,
            clock=message.clock,
            seq=message.seq,
            signed=message.signature is not None,
            disagrees=_disagrees(message.employee, found),
            embedding=embedding.vector.astype("<f4").tobytes() if keep else None,
        )


def _tell(message: Message, status: ReceiptStatus) -> None:
    fields = {
        "event_id": message.event_id,
        "device": message.device_id,
        "seq": message.seq or "",
        "answer": status.value,
    }
    if status is ReceiptStatus.REJECTED:
        log.error("attendance.other_body_under_known_id", extra={"fields": fields})
    else:
        log.info("attendance.answered", extra={"fields": fields})


def _disagrees(claimed: str | None, found: Found) -> bool:
    """Whether this server takes the face for another person's, or not for the claimed one's.

    A claim that it cannot check, because that person is not enrolled here, is no disagreement
    unless the face is somebody else's.
    """
    if claimed is None or found.matched == claimed:
        return False
    return found.matched is not None or found.claim_checked
