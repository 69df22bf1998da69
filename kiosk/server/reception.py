"""Attendance messages: authenticate, read, match, record, answer. Nothing here knows HTTP."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kiosk.errors import EmbeddingError, Fate, KioskError, MessageError, WireError
from kiosk.server.matching import NOBODY, Found, Matcher
from kiosk.server.store import Store
from kiosk.server.tables import Record, Unreadable
from kiosk.types import ReceiptStatus
from kiosk.wire import receipt
from kiosk.wire.jsontext import canonical, quoted, read_object
from kiosk.wire.message import Message, Sender, read, sender_of
from kiosk.wire.signing import Signer

log = logging.getLogger(__name__)

# Of a message without F2_MODEL, which is never compared with anything.
_NO_SPACE = "unnamed"


class UnauthenticError(KioskError):
    """A message that does not come, provably, from the device it names."""

    fate = Fate.REFUSE


@dataclass(frozen=True, slots=True)
class Heard:
    """A message that comes, provably, from the device it names; not yet read any further.

    `signer` is None for a rightly unsigned one.
    """

    sender: Sender
    fields: Mapping[str, Any]
    body_sha256: bytes
    signer: Signer | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The receipt for a message, and why it was rejected if it could not be read."""

    receipt: dict[str, str | float]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Reception:
    """What the attendance routes do."""

    store: Store
    matcher: Matcher
    keep_embeddings: bool

    def hear(
        self,
        body: bytes,
        *,
        unsigned_allowed: bool | Literal["any"],
        idempotency_key: str | None = None,
    ) -> Heard:
        """Read who sent a message, and prove it.

        MessageError: not even that can be read; UnauthenticError: a missing or wrong signature.
        `unsigned_allowed`: whether the sender may speak for a device that has no key here; "any":
        for any device, which only somebody at the server itself may say.
        """
        fields = read_object(body, MessageError)
        sender = sender_of(fields)
        if idempotency_key is not None and idempotency_key != sender.event_id:
            raise MessageError(
                f"Idempotency-Key: expected the value of A1, got {quoted(idempotency_key)}"
            )
        # Over the canonical form: white space and the order of keys make no other body.
        digest = hashlib.sha256(canonical(fields)).digest()
        # Word for word what is on record already: whoever sends it learns nothing and adds
        # nothing, and a kiosk that was given a key meanwhile gets rid of it.
        repeats = sender.key_id is None and self.store.is_recorded(
            sender.device_id, sender.event_id, digest
        )
        signer = self.prove(
            sender.device_id,
            sender.key_id,
            fields,
            unsigned_allowed="any" if repeats else unsigned_allowed,
        )
        return Heard(sender, fields, digest, signer)

    def answer(self, heard: Sequence[Heard]) -> list[Verdict]:
        """The receipts for messages, in their order, once what they say is committed as a whole.

        One that is malformed is rejected by a receipt, signed if it was: a status alone could be
        anybody's. StoreError: nothing was recorded.
        """
        events = [self._event(one) for one in heard]
        verdicts = []
        for one, event, status in zip(heard, events, self.store.record(events), strict=True):
            problem = event.what if isinstance(event, Unreadable) else ""
            _tell(one, status, problem)
            sig1 = one.fields["SIG1"] if one.signer is not None else None
            said = receipt.render(one.sender.event_id, status, sig1=sig1, signer=one.signer)
            verdicts.append(Verdict(said, problem if status is ReceiptStatus.REJECTED else ""))
        return verdicts

    def prove(
        self,
        device: str,
        key_id: str | None,
        fields: Mapping[str, Any],
        *,
        unsigned_allowed: bool | Literal["any"],
    ) -> Signer | None:
        """The key that fields are signed with, proven; None for what is rightly unsigned.

        UnauthenticError for anything else.
        """
        keys = self.store.keys(device)
        if key_id is None and unsigned_allowed == "any":
            return None
        if key_id is None:
            if keys:
                raise UnauthenticError(
                    "K1, SIG1: expected of this device, got neither",
                    hint="what it recorded before it had a key can be imported on the server's own"
                    " machine: kiosk-server import --allow-unsigned",
                )
            if not unsigned_allowed:
                raise UnauthenticError(
                    "K1, SIG1 or a bearer token: expected one of them, got neither",
                    hint="register the device's key",
                )
            return None
        if key_id not in keys:
            raise UnauthenticError(
                f"K1: expected a registered key of this device, got {key_id}",
                hint=f"PUT /devices/{device}/keys/{key_id}",
            )
        signer = Signer(key_id, keys[key_id])
        if not signer.message_is_authentic(fields):
            raise UnauthenticError(
                f"SIG1: expected this message's signature under {signer.key_id}, got another"
            )
        return signer

    def _event(self, heard: Heard) -> Record | Unreadable:
        try:
            return self._record(read(heard.fields), heard.body_sha256)
        except (WireError, EmbeddingError) as error:
            sender = heard.sender
            return Unreadable(sender.event_id, sender.device_id, heard.body_sha256, str(error))

    def _record(self, message: Message, body_sha256: bytes) -> Record:
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
            body_sha256=body_sha256,
            employee=employee,
            claimed=message.employee,
            matched=found.matched,
            similarity=found.similarity,
            kind=None if message.kind is None else message.kind.value,
            seen=str(message.fields["TS1"]),
            earliest=message.fields.get("TS1_MIN"),
            latest=message.fields.get("TS1_MAX"),
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


def _tell(heard: Heard, status: ReceiptStatus, problem: str) -> None:
    fields = {
        "event_id": heard.sender.event_id,
        "device": heard.sender.device_id,
        "seq": str(heard.fields.get("SEQ", "")),
        "answer": status.value,
    }
    if status is not ReceiptStatus.REJECTED:
        log.info("attendance.answered", extra={"fields": fields})
    elif problem:
        log.error("attendance.unreadable", extra={"fields": fields | {"reason": problem}})
    else:
        log.error("attendance.other_body_under_known_id", extra={"fields": fields})


def _disagrees(claimed: str | None, found: Found) -> bool:
    """Whether this server takes the face for another person's, or not for the claimed one's.

    A claim that it cannot check, because that person is not enrolled here, is no disagreement
    unless the face is somebody else's.
    """
    if claimed is None or found.matched == claimed:
        return False
    return found.matched is not None or found.claim_checked
