"""Events that came on a stick instead of the network: the same checks, the same records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from kiosk.errors import MessageError, UserError, WireError
from kiosk.server.intake import MAX_JSON_BYTES
from kiosk.server.reception import Heard, Reception, UnauthenticError
from kiosk.types import ReceiptStatus
from kiosk.wire.batch import MAX_MESSAGES

_COUNTED = (ReceiptStatus.OK, ReceiptStatus.DUPLICATE, ReceiptStatus.REJECTED)

Numbered = tuple[int, Heard]


def import_file(
    path: Path, reception: Reception, *, unsigned_allowed: bool, tell: Callable[[str], None]
) -> dict[str, int]:
    """Record a file of messages, one a line; how many were `ok`, `duplicate`, `rejected`, `bad`.

    Recorded in slices, each in one commit; what was recorded before is a duplicate, so that a
    file can be imported again at any time. `bad` are lines that are no message of a known
    kiosk's. `tell` is given a line of text about each that was rejected or bad; they stop none of
    the others. UserError: the file cannot be read; StoreError: the slice was not recorded.
    """
    counts = dict.fromkeys([*(status.value for status in _COUNTED), "bad"], 0)
    try:
        with path.open("rb") as file:
            waiting: list[Numbered] = []
            for number, line in _lines(file):
                try:
                    waiting.append((number, _hear(reception, line, unsigned_allowed)))
                except (WireError, UnauthenticError) as error:
                    counts["bad"] += 1
                    tell(f"line {number}: {error}")
                if len(waiting) == MAX_MESSAGES:
                    _record(reception, waiting, counts, tell)
                    waiting = []
            _record(reception, waiting, counts, tell)
    except OSError as error:
        raise UserError(f"{path}: expected a file to read, got: {error.strerror}") from error
    return counts


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Number and text of each line that is not empty; one that is too long is cut."""
    number, begins = 0, True
    # A file without line ends must not be read into memory as a whole.
    while part := file.readline(MAX_JSON_BYTES + 1):
        if begins:
            number += 1
            if part.strip():
                yield number, part
        begins = part.endswith(b"\n")


def _hear(reception: Reception, line: bytes, unsigned_allowed: bool) -> Heard:
    if len(line) > MAX_JSON_BYTES:
        raise MessageError(f"expected at most {MAX_JSON_BYTES} bytes, got more")
    try:
        return reception.hear(line, unsigned_allowed="any" if unsigned_allowed else False)
    except UnauthenticError as error:
        if unsigned_allowed:
            raise
        hint = "if the file came to you on a trusted way: --allow-unsigned"
        raise UnauthenticError(error.message, hint=hint) from error


def _record(
    reception: Reception,
    waiting: list[Numbered],
    counts: dict[str, int],
    tell: Callable[[str], None],
) -> None:
    verdicts = reception.answer([heard for _, heard in waiting])
    for (number, heard), verdict in zip(waiting, verdicts, strict=True):
        word = str(verdict.receipt["S1"])
        counts[word] += 1
        if word == ReceiptStatus.REJECTED.value:
            why = verdict.problem or "another body is recorded under this event id"
            tell(f"line {number}: {heard.sender.event_id} rejected: {why}")
