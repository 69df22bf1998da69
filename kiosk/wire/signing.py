"""Signatures of messages and receipts: HMAC-SHA256 (RFC 2104) over JCS (RFC 8785), in base64."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kiosk.errors import WireError
from kiosk.wire.jsontext import canonical, quoted

KEY_BYTES = 32
KEY_ID = r"[A-Za-z0-9._-]{1,64}"
KEY_ID_EXPECTED = "1..64 letters, digits, '.', '_' or '-'"


@dataclass(frozen=True, slots=True)
class Signer:
    """One device's sign key, 32 bytes, and the id that the server knows it by (`K1`)."""

    key_id: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(KEY_ID, self.key_id):
            raise WireError(f"K1: expected {KEY_ID_EXPECTED}, got {quoted(self.key_id)}")
        if len(self.key) != KEY_BYTES:
            raise WireError(f"expected a sign key of {KEY_BYTES} bytes, got {len(self.key)}")

    def sign_message(self, fields: Mapping[str, object]) -> str:
        """Return SIG1 over all fields but SIG1 itself: K1 and unknown fields are signed too."""
        signed = {name: value for name, value in fields.items() if name != "SIG1"}
        return self._mac(canonical(signed))

    def message_is_authentic(self, fields: Mapping[str, object]) -> bool:
        """Whether a message names this key and carries the right SIG1."""
        if fields.get("K1") != self.key_id:
            return False
        return _same(self.sign_message(fields), fields.get("SIG1"))

    def sign_receipt(self, a1: str, s1: str, sig1: str) -> str:
        """Return SIG2, which binds the server's word `s1` to one signed message."""
        return self._mac(canonical({"A1": a1, "S1": s1, "SIG1": sig1}))

    def receipt_is_authentic(self, a1: str, s1: str, sig1: str, sig2: object) -> bool:
        """Whether `sig2` is the right SIG2; a value that is no text is a wrong one."""
        return _same(self.sign_receipt(a1, s1, sig1), sig2)

    def _mac(self, message: bytes) -> str:
        digest = hmac.new(self.key, message, hashlib.sha256).digest()
        return base64.b64encode(digest).decode("ascii")


def _same(right: str, came: object) -> bool:
    """Compare in constant time; text beyond ASCII, which compare_digest refuses, is wrong."""
    if not isinstance(came, str) or not came.isascii():
        return False
    return hmac.compare_digest(right, came)
