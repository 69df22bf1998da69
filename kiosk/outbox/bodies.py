"""What an event holds, on its way from draft to body; on disk it is sealed at all times."""

from __future__ import annotations

from kiosk.types import Punch, Stamp
from kiosk.vault import Vault
from kiosk.wire import message
from kiosk.wire.signing import Signer


class Bodies:
    """Writes, seals and opens the drafts and bodies of one device.

    A seal is bound to device, event and purpose: rows that were swapped, or brought from another
    card, do not open (VaultError).
    """

    def __init__(self, vault: Vault, device_id: str, signer: Signer | None) -> None:
        self._vault = vault
        self._device_id = device_id
        self._signer = signer

    def draft(self, punch: Punch) -> bytes:
        """Write and seal all of a punch that will not change; WireError for one nobody can read."""
        return self._vault.seal(message.draft(punch), self._context("draft", punch.event_id))

    def secret_check(self) -> bytes:
        """Return 16 bytes that only this device secret gives."""
        return self._vault.tag("", "outbox.secret")

    def device_check(self) -> bytes:
        """Return 16 bytes that only this device id gives, under this secret."""
        return self._vault.tag(self._device_id, "outbox.device")

    def mark_tag(self, data: bytes) -> bytes:
        """Return 16 bytes that authenticate the high-water mark of this device's queue."""
        return self._vault.tag(f"{self._device_id}/{data.hex()}", "outbox.mark")

    def check(self, event_id: str, draft: bytes | None, body: bytes | None) -> None:
        """VaultError unless what is kept of an event, of either form, is this very event's."""
        if draft is not None:
            self._vault.unseal(draft, self._context("draft", event_id))
        if body is not None:
            self.open(event_id, body)

    def seal_mark(self, number: int) -> bytes:
        """Seal the number of the newest gallery."""
        return self._vault.seal(str(number).encode("ascii"), self._context("gallery", "newest"))

    def open_mark(self, sealed: bytes) -> int:
        """Open the number of the newest gallery; VaultError if it does not authenticate."""
        return int(self._vault.unseal(sealed, self._context("gallery", "newest")))

    def employee_tag(self, employee: str) -> bytes:
        """Return 16 bytes by which a person is found again without the name being kept."""
        return self._vault.tag(employee, "outbox.employee")

    def freeze(self, event_id: str, draft: bytes, seen: Stamp, seq: str) -> tuple[bytes, bytes]:
        """Turn a sealed draft into the final body; returns it open and sealed."""
        body = message.freeze(
            self.open_draft(event_id, draft),
            seen=seen,
            seq=seq,
            device_id=self._device_id,
            signer=self._signer,
        )
        return body, self._vault.seal(body, self._context("body", event_id))

    def open(self, event_id: str, sealed: bytes) -> bytes:
        """Open a sealed body."""
        return self._vault.unseal(sealed, self._context("body", event_id))

    def open_draft(self, event_id: str, sealed: bytes) -> bytes:
        """Open a sealed draft."""
        return self._vault.unseal(sealed, self._context("draft", event_id))

    def _context(self, purpose: str, event_id: str) -> str:
        return f"outbox.{purpose}/{self._device_id}/{event_id}"
