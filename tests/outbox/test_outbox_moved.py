"""A card that moves to another board: its old events keep their id, new ones get a new one."""

import logging

import pytest

from kiosk.errors import OutboxError
from kiosk.types import Receipt, ReceiptStatus
from kiosk.wire import message
from outbox.punching import DEVICE

HERE = "2f6a1d8e-0d43-4f51-8d0b-7a3c5e9b1f42"


def sent(outbox):
    """What a server gets, in order."""
    while leased := outbox.lease(1):
        (envelope,) = leased
        outbox.settle(envelope.event_id, Receipt(ReceiptStatus.OK, 0.0))
        yield message.parse(envelope.body)


def test_each_event_goes_out_under_the_id_it_was_recorded_under(reopen, punches, caplog):
    """Numbers begin anew under a new epoch: two boards never contradict each other."""
    old = reopen()
    before = [old.put(punches.make()) for _ in range(2)]
    frozen = old.lease(1)[0].body
    here = reopen(device_id=HERE, former_id=DEVICE)
    (told,) = [r for r in caplog.records if r.message == "outbox.moved_to_another_board"]
    assert (told.levelno, told.fields["waiting"]) == (logging.CRITICAL, 2)
    after = here.put(punches.make())
    assert after.split(":")[0] != before[0].split(":")[0]
    assert after.endswith(":1")
    assert here.lease(1)[0].body == frozen
    went = [(read.device_id, read.seq) for read in sent(here)]
    assert went == [(DEVICE, before[0]), (DEVICE, before[1]), (HERE, after)]


def test_it_is_told_once(reopen, punches, caplog):
    """The next start on the same board is an ordinary one."""
    reopen().put(punches.make())
    first = reopen(device_id=HERE, former_id=DEVICE).status().epoch
    caplog.clear()
    assert reopen(device_id=HERE, former_id=DEVICE).status().epoch == first
    assert "moved" not in caplog.text


def test_the_mark_holds_on_the_other_board(reopen, punches, caplog):
    """Nothing is taken for lost or damaged because the board is another."""
    reopen().put(punches.make())
    assert reopen(device_id=HERE, former_id=DEVICE).status().pending == 1
    assert not [r for r in caplog.records if r.message in {"outbox.lost", "outbox.salvaged"}]


def test_without_its_former_id_a_queue_is_not_taken_over(reopen, build, punches):
    """An id file from elsewhere is a mistake, not a move."""
    reopen().put(punches.make())
    reopen().close(10.0)
    for former in ("", HERE):
        with pytest.raises(OutboxError, match=r"expected the device\.id"):
            build(device_id=HERE, former_id=former).start()
