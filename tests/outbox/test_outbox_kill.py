"""kill -9 at random moments: nothing that was promised is lost, nothing is doubled."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from kiosk.types import Receipt, ReceiptStatus

CHILD = Path(__file__).with_name("outbox_child.py")
HONEST_ROUNDS = 6
CARELESS_ROUNDS = 2


def promised_before_the_kill(folder, seed, manner):
    """Start a child, kill it after a random number of promises; returns all that it promised."""
    command = [sys.executable, str(CHILD), str(folder), str(seed), manner]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        promised = [process.stdout.readline() for _ in range(random.Random(seed).randint(1, 60))]
        process.kill()
        # What it printed between the last line read and its end was promised as well.
        promised += process.stdout.readlines()
    assert process.returncode == -9
    # A line cut in two by the kill was never said.
    return [line.strip() for line in promised if line.endswith("\n")]


@pytest.fixture
def killed(tmp_path):
    """Kill children over one folder in turn; returns promises in order."""

    def run(manner, rounds):
        promised = []
        for seed in range(rounds):
            promised += promised_before_the_kill(tmp_path, seed, manner)
        return promised

    return run


def at_the_server(folder, outbox):
    """All bodies by event id once the queue has run empty; a second body for an id is a fault."""
    bodies = {}
    lines = (folder / "server.jsonl").read_bytes().splitlines()
    while envelopes := outbox.lease(100):
        lines += [envelope.body for envelope in envelopes]
        ok = Receipt(ReceiptStatus.OK, 0.0)
        outbox.settle_all([(envelope.event_id, ok) for envelope in envelopes])
    for body in lines:
        name = json.loads(body)["A1"]
        assert bodies.setdefault(name, body) == body, f"{name} was sent with two bodies"
    return bodies


def test_nothing_promised_is_lost_and_nothing_doubled(tmp_path, killed, reopen, ask):
    """Each promised id is on disk once, and reaches the server with one body and one number."""
    promised = killed("honest", HONEST_ROUNDS)
    outbox = reopen(signer=None)
    recorded = [name for (name,) in ask(outbox, "SELECT lower(hex(event_id)) FROM event")]
    assert {name.replace("-", "") for name in promised} <= set(recorded)
    # At most the one put that each kill interrupted after its commit was recorded unsaid.
    assert len(recorded) - len(promised) <= HONEST_ROUNDS
    bodies = at_the_server(tmp_path, outbox)
    assert set(promised) <= set(bodies)
    numbers = {}
    for body in bodies.values():
        epoch, number = json.loads(body)["SEQ"].split(":")
        numbers.setdefault(epoch, []).append(int(number))
    # A kill in the middle of a put begins a new epoch: its number may have been given out.
    assert len(numbers) <= HONEST_ROUNDS + 1
    for given in numbers.values():
        assert sorted(given) == list(range(1, len(given) + 1))
    assert ask(outbox, "PRAGMA integrity_check") == [("ok",)]
    status = outbox.status()
    assert (status.pending, status.settled) == (0, len(recorded))


def test_the_harness_notices_a_loss(tmp_path, killed, reopen, ask):
    """A kiosk that promises before it commits is found out by the same comparison."""
    promised = killed("careless", CARELESS_ROUNDS)
    recorded = [name for (name,) in ask(reopen(signer=None), "SELECT hex(event_id) FROM event")]
    assert not {name.replace("-", "").upper() for name in promised} <= set(recorded)
