"""A punch, a moment and a key to write messages with."""

import random
from dataclasses import replace

import numpy as np
import pytest

from kiosk.types import Direction, Embedding, Punch, Stamp, Trust
from kiosk.wire import message
from kiosk.wire.eventid import new_event_id
from kiosk.wire.signing import Signer

SEEN_MS = 1_790_000_000_123


@pytest.fixture(scope="session")
def seen() -> Stamp:
    """A moment of a synced clock."""
    return Stamp(SEEN_MS, 5_000_000_000, "boot", Trust.SYNCED)


@pytest.fixture(scope="session")
def signer() -> Signer:
    """A sign key."""
    return Signer("hall-1", bytes(range(32)))


@pytest.fixture(scope="session")
def punch(seen) -> Punch:
    """A punch with everything that a punch can carry."""
    raw = np.random.default_rng(7).standard_normal(64)
    return Punch(
        event_id=new_event_id(SEEN_MS, random.Random(7)),
        employee="E-1001",
        kind=Direction.IN,
        embedding=Embedding.of(raw, "test-space"),
        score=0.8125,
        quality=0.75,
        liveness=0.5,
        seen=seen,
    )


@pytest.fixture(scope="session")
def freeze_punch(punch, seen, signer):
    """Freeze the punch, changed as told, to a body."""

    def freeze(*, signed: bool = True, stamp: Stamp = seen, **changes: object) -> bytes:
        return message.freeze(
            message.draft(replace(punch, **changes)),
            seen=stamp,
            seq="epoch:7",
            device_id="device-1",
            signer=signer if signed else None,
        )

    return freeze


@pytest.fixture(scope="session")
def frozen(freeze_punch) -> bytes:
    """The signed body of the punch."""
    return freeze_punch()
