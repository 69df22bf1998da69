"""A store, an application, a program of its own, and messages as a kiosk sends them."""

import json
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from starlette.testclient import TestClient

from kiosk.server.app import Rules, create_app
from kiosk.server.store import Store
from kiosk.types import Direction, Embedding, Punch, Stamp, Trust
from kiosk.wire import f2, message

SPACE = "mobilefacenet-192-4pt"
DEVICE = "3f2b6c1e-8a34-4d0e-9d3c-2b1f7a6e5c4d"
OWN_ADDRESS = "http://127.0.0.1:8320"
HANG_S = 60


class FixedClock:
    """It is 2026-01-02 03:04:05.678 UTC, for ever."""

    def now(self):
        return Stamp(1_767_323_045_678, self.boottime_ns(), "boot", Trust.SYNCED)

    def boottime_ns(self):
        return 1

    def wait(self, event, timeout_s):
        return event.is_set()


class Kiosk:
    """Makes faces and messages; the same seed is the same person."""

    space = SPACE
    device = DEVICE

    @staticmethod
    def face(seed, space=SPACE, dim=192):
        return Embedding.of(np.random.default_rng(seed).standard_normal(dim), space)

    def body(self, seed, number=1, employee="anna", signer=None, changes=None, **place):
        """A frozen message; `changes` are put into its JSON afterwards, None takes out."""
        event_id = f"01890a5d-ac96-774b-bcce-{number:012x}"
        punch = Punch(
            event_id=event_id,
            employee=employee,
            kind=Direction.IN,
            embedding=self.face(seed, **place),
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
        fields = {**json.loads(body), **(changes or {})}
        changed = {name: value for name, value in fields.items() if value is not None}
        return json.dumps(changed).encode() if changes else body

    def enrolment(self, *seeds, space=SPACE, dim=192):
        faces = [f2.encode(self.face(seed, space, dim).vector).fields() for seed in seeds]
        return {"F2_MODEL": space, "faces": faces}


@contextmanager
def running_server(folder, *arguments):
    """The program as a user starts it, on a free port; yields its process and its URL."""
    command = [sys.executable, "-m", "kiosk.server", "--store", f"sqlite:///{folder}/a.db"]
    process = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on "), process.stderr.read()
        yield process, line.removeprefix("listening on ").strip()
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=HANG_S)


@pytest.fixture(scope="session")
def kiosk():
    return Kiosk()


@pytest.fixture(scope="session")
def server_program():
    """A function that starts the program in a given folder."""
    return running_server


@pytest.fixture(scope="session")
def clock():
    return FixedClock()


@pytest.fixture
def start_server(tmp_path):
    """A function that starts the program in a folder of the test's own."""
    return lambda *arguments: running_server(tmp_path, *arguments)


@pytest.fixture
def store(tmp_path, clock):
    opened = Store(tmp_path / "attendance.db", clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def make_client(store, clock):
    """A client of the application on the test's store, by the given rules."""
    opened = []

    def make(base_url=OWN_ADDRESS, **rules):
        app = create_app(store, Rules(**rules), clock=clock)
        opened.append(TestClient(app, base_url=base_url))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def client(make_client):
    return make_client()


@pytest.fixture(scope="module")
def tough_client(tmp_path_factory, clock):
    """One client for many requests, which sees a fault of the server as status 500."""
    store = Store(tmp_path_factory.mktemp("tough") / "a.db", clock=clock)
    app = create_app(store, Rules(), clock=clock)
    with TestClient(app, base_url=OWN_ADDRESS, raise_server_exceptions=False) as client:
        yield client
    store.close()
