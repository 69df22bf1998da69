"""Any order of insert, send, answer, crash, damage, full disk and jumping clock: no divergence."""

import logging

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from faults.model import Machine, oldest
from kiosk.errors import OutboxFullError
from kiosk.outbox import rows
from kiosk.outbox.store import Outbox

STEPS = 20
# The constant of the outbox that says which event is sent next.
ORDER = "_OLDEST"


@pytest.fixture(autouse=True)
def quiet():
    """Thousands of events set aside, each told as it should be, are not to be told here."""
    logging.getLogger("kiosk").setLevel(logging.CRITICAL + 1)


def walk(sequences, phases=tuple(Phase), **mistakes):
    """Walk so many sequences; returns the machine's class with its counts."""
    kind = type("Machine", (Machine,), {"sequences": 0, "steps": 0, "mistakes": mistakes})
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=True,
            report_multiple_bugs=False,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return kind


@pytest.mark.parametrize("sequences", [150, pytest.param(10_000, marks=pytest.mark.faults)])
def test_no_sequence_tells_the_outbox_from_the_model(tell, sequences):
    """After every step the same counts; in the end everything at the server, once and in order."""
    walked = walk(sequences)
    tell("model-based", sequences=walked.sequences, steps=walked.steps, divergences=0)
    assert walked.sequences >= sequences


def divergence(**mistakes):
    """What the machine finds in a wrong outbox."""
    with pytest.raises(AssertionError) as found:
        # Found is enough: the shortest way there is for a mistake that nobody made on purpose.
        walk(300, phases=(Phase.generate,), **mistakes)
    return str(found.value).splitlines()[0]


def test_a_promise_before_the_commit_is_reported(tell):
    """Seeded: the outbox says recorded, and commits when the next one comes."""
    late = {}

    def promise(outbox, punch):
        if (earlier := late.pop(outbox, None)) is not None:
            outbox.put(earlier)
        status = outbox.status()
        late[outbox] = punch
        return f"{status.epoch}:{status.highest + 1}"

    tell("model-based, control: promise", found=divergence(put=promise))


def test_believing_any_200_is_reported(tell):
    """Seeded: what does not come from the server ends an event."""
    found = divergence(believe=lambda: None)
    tell("model-based, control: any 200", found=found)
    assert "lost=" in found


def test_sending_the_newest_first_is_reported(tell, monkeypatch):
    """Seeded: the queue is a stack."""
    was = getattr(rows, ORDER)
    monkeypatch.setattr(rows, ORDER, was.replace("BY waiting.position", "BY waiting.position DESC"))
    assert getattr(rows, ORDER) != was
    tell("model-based, control: newest first", found=divergence())


def test_a_body_that_changes_is_reported(tell):
    """Seeded: each attempt has bytes of its own."""

    def thawing(outbox):
        envelope = oldest(outbox)
        if envelope is None or envelope.attempts == 1:
            return envelope
        return type(envelope)(envelope.seq, envelope.event_id, b"{}", envelope.attempts)

    tell("model-based, control: new bytes", found=divergence(lease=thawing))


def test_an_outbox_that_records_on_a_full_disk_only_in_words_is_reported(tell):
    """Seeded: no space is no reason not to promise."""

    def deaf(outbox, punch):
        status = outbox.status()
        try:
            return Outbox.put(outbox, punch)
        except OutboxFullError:
            return f"{status.epoch}:{status.highest + 1}"

    tell("model-based, control: deaf", found=divergence(put=deaf))
