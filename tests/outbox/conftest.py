"""A vault, a clock that stands still, punches to record, and an outbox on a fresh folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kiosk.outbox.store import Outbox
from kiosk.vault import Vault
from kiosk.wire.signing import Signer
from outbox.punching import DEVICE, Punches, StillClock


@pytest.fixture(scope="session")
def device() -> str:
    """The device id that outboxes are opened for."""
    return DEVICE


@pytest.fixture
def clock() -> StillClock:
    """A clock that only moves when told."""
    return StillClock()


@pytest.fixture(scope="session")
def vault() -> Vault:
    """The device's vault."""
    return Vault(bytes(range(32)))


@pytest.fixture(scope="session")
def signer(vault) -> Signer:
    """The device's sign key."""
    return Signer("hall-1", vault.sign_key)


@pytest.fixture
def punches(clock) -> Punches:
    """A maker of punches."""
    return Punches(clock)


@pytest.fixture
def path(tmp_path) -> Path:
    """Where the outbox lies."""
    return tmp_path / "outbox.db"


@pytest.fixture
def build(path, vault, signer, clock) -> Callable[..., Outbox]:
    """Make an outbox that is not started yet."""

    def make(**changes: object) -> Outbox:
        values = {"vault": vault, "device_id": DEVICE, "signer": signer, "clock": clock} | changes
        return Outbox(path, **values)

    return make


@pytest.fixture
def reopen(build) -> Iterator[Callable[..., Outbox]]:
    """Open the outbox; called again, close it first, as a restart does."""
    opened: list[Outbox] = []

    def restart(**changes: object) -> Outbox:
        for earlier in opened:
            earlier.close(10.0)
        outbox = build(**changes)
        outbox.start()
        opened.append(outbox)
        return outbox

    yield restart
    for outbox in opened:
        outbox.close(10.0)


@pytest.fixture
def outbox(reopen) -> Outbox:
    """An open, empty outbox."""
    return reopen()


@pytest.fixture
def ask(reopen) -> Callable[..., list[tuple[object, ...]]]:
    """Run one statement in the owner's own connection: what is really in the file."""

    def run(outbox: Outbox, sql: str, *values: object) -> list[tuple[object, ...]]:
        def work() -> list[tuple[object, ...]]:
            return outbox._queue.database._connection.execute(sql, values).fetchall()

        return outbox._owner.ask(work)

    return run
