"""What an event holds, on its way from draft to body; on disk it is sealed at all times."""

from __future__ import annotations

import json
from collections.abc import Callable

from kiosk.types import Punch, Stamp, Trust
from kiosk.vault import Vault
from kiosk.wire import message
from kiosk.wire.signing import Signer


class Bodies:
    """Writes, seals and opens the drafts and bodies of one device.

    A seal is bound to device, event and purpose: rows that were swapped, or brought from another
    card, do not open (VaultError). The device is bound by its secret. Its id lies under the seal:
    what was recorded on another board, before the card moved here, is sent under the id it had.
    """

    def __init__(
        self, vault: Vault, device_id: str, signer: Signer | None, *, former_id: str = ""
    ) -> None:
        self._vault = vault
        self._device_id = device_id
        self._former_id = former_id
        self._signer = signer

    def draft(self, punch: Punch) -> Callable[[str], bytes]:
        """Write all of a punch that will not change; WireError for one nobody can read.

        Returns what seals it with its SEQ, once that is given. When it was seen and its number lie
        under the seal too: a card that changes the row beside it changes nothing that is sent.
        """
        content, seen = message.draft(punch), punch.seen

        def seal(seq: str) -> bytes:
            moment = [seen.utc_ms, seen.boottime_ns, seen.boot_id, seen.trust.value]
            head = json.dumps([*moment, seq, self._device_id]).encode("ascii")
            return self._vault.seal(head + b"\n" + content, self._context("draft", punch.event_id))

        return seal

    def secret_check(self) -> bytes:
        """Return 16 bytes that only this device secret gives."""
        return self._vault.tag("", "outbox.secret")

    def device_check(self) -> bytes:
        """Return 16 bytes that only this device id gives, under this secret."""
        return self._vault.tag(self._device_id, "outbox.device")

    def former_check(self) -> bytes | None:
        """Return the same of the id on the board before, None for a card that never moved."""
        return self._vault.tag(self._former_id, "outbox.device") if self._former_id else None

    def mark_tags(self, data: bytes) -> list[bytes]:
        """Return the 16 bytes that authenticate the high-water mark of this device's queue.

        And those that do so for the board which its card came from, if it moved.
        """
        ids = [self._device_id, *filter(None, [self._former_id])]
        return [self._vault.tag(f"{name}/{data.hex()}", "outbox.mark") for name in ids]

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

    def freeze(
        self, event_id: str, draft: bytes, dated: Callable[[Stamp], Stamp]
    ) -> tuple[bytes, bytes, Stamp]:
        """Turn a sealed draft into the final body, its time as `dated` tells it.

        Returns the body open and sealed, and the time.
        """
        written, seq, device_id, content = self._opened(event_id, draft)
        seen = dated(written)
        body = message.freeze(
            content,
            seen=seen,
            seq=seq,
            device_id=device_id,
            signer=self._signer,
        )
        return body, self._vault.seal(body, self._context("body", event_id)), seen

    def open(self, event_id: str, sealed: bytes) -> bytes:
        """Open a sealed body."""
        return self._vault.unseal(sealed, self._context("body", event_id))

    def open_draft(self, event_id: str, sealed: bytes) -> bytes:
        """Open a sealed draft: all of the message that does not change."""
        return self._opened(event_id, sealed)[-1]

    def good_time_tag(self, boot: int, boot_id: str, boottime_ns: int, utc_ms: int) -> bytes:
        """Return 16 bytes that authenticate a moment in which the clock was synchronised.

        The boot's own id is bound with its number: a number that came to another boot, by damage
        or after a loss, dates nothing.
        """
        return self._vault.tag(f"{boot}/{boot_id}/{boottime_ns}/{utc_ms}", "outbox.good_time")

    def _opened(self, event_id: str, sealed: bytes) -> tuple[Stamp, str, str, bytes]:
        opened = self._vault.unseal(sealed, self._context("draft", event_id))
        head, _, content = opened.partition(b"\n")
        utc_ms, boottime_ns, boot_id, trust, seq, device_id = json.loads(head)
        return Stamp(utc_ms, boottime_ns, boot_id, Trust(trust)), seq, device_id, content

    def _context(self, purpose: str, event_id: str) -> str:
        return f"outbox.{purpose}/{event_id}"
