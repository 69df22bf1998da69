"""`kiosk-server invite`: a code with which one kiosk registers its key, once."""

from __future__ import annotations

import argparse
import hashlib
import secrets

from kiosk.clock import SystemClock
from kiosk.commands.console import say
from kiosk.errors import UserError
from kiosk.server.store import Store, path_of

# No letter or digit that a person takes for another (Crockford's base 32); 80 bits.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_GROUPS, _GROUP = 4, 4
_LONGEST_MINUTES = 7 * 24 * 60


def invite(options: argparse.Namespace) -> int:
    """Print a new code; only its hash is kept."""
    if not 1 <= options.minutes <= _LONGEST_MINUTES:
        raise UserError(f"--minutes: expected 1..{_LONGEST_MINUTES}, got {options.minutes}")
    path = path_of(options.store)
    if not path.is_file():
        raise UserError(
            f"--store {path}: expected the file of a server, there is none",
            hint="name the store that the server runs on",
        )
    store = Store(path, clock=SystemClock())
    try:
        code = new_code()
        store.invite(digest_of(code), options.minutes)
    finally:
        store.close()
    say(code)
    return 0


def new_code() -> str:
    """A code of 80 random bits, in groups that can be read aloud."""
    letters = [secrets.choice(_ALPHABET) for _ in range(_GROUPS * _GROUP)]
    groups = ("".join(letters[at : at + _GROUP]) for at in range(0, len(letters), _GROUP))
    return "-".join(groups)


def digest_of(code: str) -> bytes:
    """The SHA-256 of a code; small letters, spaces and hyphens make no difference."""
    plain = code.upper().replace("-", "").replace(" ", "").replace("O", "0")
    return hashlib.sha256(plain.replace("I", "1").replace("L", "1").encode()).digest()
