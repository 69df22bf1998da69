"""Whose word ends an event: every combination of setting, status and receipt."""

import json

import pytest

from kiosk.config import Server
from kiosk.errors import ReceiptError, UplinkPausedError
from kiosk.types import Envelope, Receipt, ReceiptStatus
from kiosk.uplink.answer import Answer
from kiosk.uplink.belief import Belief
from kiosk.wire.signing import Signer

URL = "http://127.0.0.1:9"
A1 = "01890a5d-ac96-774b-bcce-b302099a8057"
KEY = Signer("k1", bytes(range(32)))
SIG1 = "s" * 43 + "="
PAGE = b"<html>400 No required SSL certificate was sent</html>"


def answer(body, status=200, *, signed=True):
    message = {"A1": A1, "K1": "k1", "SIG1": SIG1} if signed else {"A1": A1}
    return Answer(Envelope("e:1", A1, json.dumps(message).encode(), 1), status, body)


def word(s1="ok", signer=None, a1=A1):
    reply = {"A1": a1, "S1": s1}
    if signer is not None:
        reply["SIG2"] = signer.sign_receipt(a1, s1, SIG1)
    return json.dumps(reply).encode()


def belief(**options):
    return Belief(Server(url=URL, **options), lambda key_id: Signer(key_id, KEY.key))


def test_with_a_key_only_a_signed_receipt_ends_an_event():
    """An unsigned reply, a forged one and a page leave it; the key's own word ends it."""
    one = belief(key_id="k1")
    for body in (word(), word(signer=Signer("k1", bytes(32))), PAGE, b""):
        with pytest.raises(ReceiptError):
            one.read(answer(body))
    assert one.read(answer(word(signer=KEY))) == Receipt(ReceiptStatus.OK, 0.0)


def test_signed_receipts_can_be_left_optional():
    """`require_signed_receipts = false` takes an unsigned receipt, but never a wrong one."""
    one = belief(key_id="k1", require_signed_receipts=False)
    assert one.read(answer(word())).status is ReceiptStatus.OK
    with pytest.raises(ReceiptError):
        one.read(answer(word(signer=Signer("k1", bytes(32)))))


def test_a_new_key_id_still_reads_answers_to_the_old_one():
    """The key is the one that the sent message names."""
    asked = []

    def keys(key_id):
        asked.append(key_id)
        return Signer(key_id, KEY.key)

    one = Belief(Server(url=URL, key_id="k2"), keys)
    assert one.read(answer(word(signer=KEY))).status is ReceiptStatus.OK
    assert asked == ["k1"]


def test_a_plain_server_is_taken_at_its_status_only_where_configured():
    """A captive portal also answers 200: off by default."""
    with pytest.raises(ReceiptError):
        belief().read(answer(PAGE, signed=False))
    plain = belief(accept_plain_receipts=True)
    assert plain.read(answer(PAGE, signed=False)) == Receipt(ReceiptStatus.OK, 0.0)
    assert plain.read(answer(word("rejected"), signed=False)).status is ReceiptStatus.REJECTED


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accept_plain_receipts": True},
        {"key_id": "k1"},
        {"key_id": "k1", "require_signed_receipts": False},
    ],
)
def test_a_refusal_needs_the_servers_own_word(status, options):
    """A page, another event's receipt, an `ok`, an unsigned one for a signed message: all pause."""
    one = belief(**options)
    signed = "key_id" in options
    doubtful = [PAGE, b"", word("rejected", a1="x"), word("ok", KEY if signed else None)]
    if signed:
        doubtful += [word("rejected"), word("rejected", Signer("k1", bytes(32)))]
    for body in doubtful:
        with pytest.raises(UplinkPausedError, match=str(status)):
            one.read(answer(body, status, signed=signed))
    right = word("rejected", KEY if signed else None)
    assert one.read(answer(right, status, signed=signed)).status is ReceiptStatus.REJECTED


def test_a_message_that_was_sent_unsigned_can_be_refused_unsigned():
    """There is no SIG1 that a server could answer: its A1 must do, or it would block for ever."""
    one = belief(key_id="k1")
    right = one.read(answer(word("rejected"), 422, signed=False))
    assert right.status is ReceiptStatus.REJECTED
