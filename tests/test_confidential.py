"""The guard that looks at every line that any test logs: it sees what it must see."""

import base64
import logging

import numpy as np
import pytest

from kiosk.state import pack_vector
from kiosk.vault import Vault
from kiosk.wire import f2

SECRET = bytes(range(7, 39))
log = logging.getLogger("kiosk.test")
SAYINGS = {
    "hex": lambda: SECRET.hex().upper(),
    "base64": lambda: f"key={base64.b64encode(SECRET).decode()}",
    "urlsafe": lambda: base64.urlsafe_b64encode(SECRET).decode(),
    "sign key": lambda: f"{Vault(SECRET).sign_key.hex()}.",
    "token": lambda: "xyz" + f2.encode(unit()).data,
    "template": lambda: pack_vector(unit()),
}


def unit():
    """An embedding."""
    vector = np.random.default_rng(3).normal(size=192).astype(np.float32)
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("what", SAYINGS)
@pytest.mark.parametrize("level", ["debug", "info", "critical"])
def test_a_secret_in_a_line_is_seen(confidential, what, level):
    """In whatever form, as a fact or in an error, also where the level is not written."""
    Vault(SECRET)
    say = getattr(log, level)
    say("leak.planted", extra={"fields": {"reason": SAYINGS[what]()}})
    assert confidential.found == ["leak.planted"]
    confidential.found.clear()


def test_a_secret_in_an_error_is_seen(confidential):
    """A trace goes into the journal too."""
    Vault(SECRET)
    try:
        raise ValueError(SECRET.hex())
    except ValueError:
        log.critical("thread.failed", exc_info=True)
    assert confidential.found == ["thread.failed"]
    confidential.found.clear()


def test_an_ordinary_line_is_not(confidential):
    """Ids, hashes and arrays, which the journal replaces by their type, are no leak."""
    Vault(SECRET)
    facts = {"event": "0198c0de-2fdd-756b-98af-c0c3557d1398", "sha256": "ab" * 32, "face": unit()}
    log.warning("visit.recorded", extra={"fields": facts})
    assert confidential.found == []
