"""A store, an application, and messages as a kiosk sends them."""

import json

import numpy as np
import pytest
from starlette.testclient import TestClient

from kiosk.server.app import Rules, create_app
from kiosk.server.store import Store
from kiosk.types import Direction, Embedding, Punch, Stamp, Trust
from kiosk.wire import f2, message

SPACE = "mobilefacenet-192-4pt"
DEVICE = "3f2b6c1e-8a34-4d0e-9d3c-2b1f7a6e5c4d"


class Kiosk:
    """Makes faces and messages; the same seed is the same person."""

    space = SPACE
    device = DEVICE

    @staticmethod
    def face(seed):
        return Embedding.of(np.random.default_rng(seed).standard_normal(192), SPACE)

    def body(self, seed, number=1, employee="anna", signer=None, **changes):
        event_id = f"01890a5d-ac96-774b-bcce-{number:012x}"
        punch = Punch(
            event_id=event_id,
            employee=employee,
            kind=Direction.IN,
            embedding=self.face(seed),
            score=None if employee is None else 0.9,
            quality=0.8,
            liveness=None,
            seen=Stamp(1_760_000_000_000 + number * 1000, 1, "boot", Trust.SYNCED),
        )
        body = message.freeze(
            message.draft(punch),
            seen=punch.seen,
            seq=f"ab12cd34:{number}",
            device_id=DEVICE,
            signer=signer,
        )
        if not changes:
            return body
        return json.dumps({**json.loads(body), **changes}).encode()

    def enrolment(self, *seeds):
        faces = [f2.encode(self.face(seed).vector).fields() for seed in seeds]
        return {"F2_MODEL": SPACE, "faces": faces}


@pytest.fixture
def kiosk():
    return Kiosk()


@pytest.fixture
def make_client(tmp_path):
    """A client of a fresh server started by the given rules."""
    opened = []

    def make(**rules):
        store = Store(tmp_path / "attendance.db")
        client = TestClient(create_app(store, Rules(**rules)))
        opened.append((client, store))
        return client

    yield make
    for client, store in opened:
        client.close()
        store.close()


@pytest.fixture
def client(make_client):
    return make_client()
