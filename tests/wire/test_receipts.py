"""Receipts: only the server's own word on this very event ends it."""

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.errors import Fate, ReceiptError
from kiosk.types import Receipt, ReceiptStatus
from kiosk.wire import receipt
from kiosk.wire.signing import Signer


@pytest.fixture(scope="session")
def read(punch, frozen, signer):
    """Read a reply to the signed punch, by default with its key and a signature required."""

    def parse(reply: object, **changes: object) -> Receipt:
        arguments = {
            "event_id": punch.event_id,
            "frozen": frozen,
            "keys": lambda key_id: Signer(key_id, signer.key),
            "required": True,
        }
        body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        return receipt.parse(body, **(arguments | changes))

    return parse


@pytest.fixture(scope="session")
def right(punch, frozen, signer):
    """A right and signed reply, `ok`."""
    sig1 = json.loads(frozen)["SIG1"]
    return receipt.render(punch.event_id, ReceiptStatus.OK, sig1=sig1, signer=signer)


@pytest.mark.parametrize("status", ReceiptStatus)
@pytest.mark.parametrize("rto_s", [None, 0, 1.5, 86_400])
def test_what_the_server_renders_the_kiosk_reads(read, punch, frozen, signer, status, rto_s):
    """Every word and delay survives the way, signed."""
    sig1 = json.loads(frozen)["SIG1"]
    reply = receipt.render(punch.event_id, status, rto_s=rto_s, sig1=sig1, signer=signer)
    assert read(reply) == Receipt(status, rto_s or 0.0)


def test_an_unsigned_message_gets_an_unsigned_reply(punch, signer):
    """SIG2 answers SIG1 and needs the key."""
    assert receipt.render(punch.event_id, ReceiptStatus.OK, signer=signer) == {
        "A1": punch.event_id,
        "S1": "ok",
    }
    assert "SIG2" not in receipt.render("a", ReceiptStatus.OK, sig1="s")


def test_unknown_fields_of_a_reply_are_ignored(read, right):
    """A server may say more than we know."""
    assert read(right | {"MATCH": {"score": 0.9}, "E1": "E-1001"}).status is ReceiptStatus.OK


def test_a_delay_is_a_day_at_most(read, right):
    """A server's slip must not silence a kiosk for longer."""
    assert read(right | {"RTO": 10**9}).min_delay_s == 86_400.0


@pytest.mark.parametrize("rto", [-1, -0.001, "5", True, None, [], {}])
def test_a_malformed_delay_is_named(read, right, rto):
    """RTO is a number of seconds from 0 on."""
    with pytest.raises(ReceiptError, match=r"^RTO: expected .* got "):
        read(right | {"RTO": rto})


PORTAL = b"<!DOCTYPE html><html><head><title>Welcome to Free\nWi-Fi</title></head>" + b"x" * 5000


@pytest.mark.parametrize(
    "body",
    [
        PORTAL, b"", b" \n", b"OK", b"[]", b"null", b"true", b'"ok"', b"{", b"\xff\xfe",
        b"\x00" * 9, b'{"A1":NaN}', b"[" * 60_000,
    ],
)  # fmt: skip
def test_a_200_that_is_no_receipt_leaves_the_event(read, body):
    """A captive portal also answers 200: its page is an error that asks for a retry."""
    with pytest.raises(ReceiptError, match="expected") as caught:
        read(body)
    assert caught.value.fate is Fate.RETRY


def test_an_error_shows_the_first_60_printable_characters_at_most(read):
    """Enough to know a portal, never a page of it."""
    with pytest.raises(ReceiptError) as caught:
        read(PORTAL)
    text = str(caught.value)
    assert "<!DOCTYPE html><html><head><title>Welcome to FreeWi-Fi</titl'" in text
    assert text.isprintable()
    assert len(text) < 300


@settings(deadline=None, max_examples=60)
@given(body=st.binary(max_size=200))
def test_no_bytes_at_all_pass_for_a_receipt(read, body):
    """Random bytes give a printable, short, named error."""
    with pytest.raises(ReceiptError) as caught:
        read(body)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_an_oversized_reply_is_not_even_read(read, right):
    """A right receipt within a megabyte of something else is refused."""
    with pytest.raises(ReceiptError, match="at most 65536 bytes, got"):
        read(right | {"X": "x" * 65_536})


@pytest.mark.parametrize("a1", ["017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "", None, 1, [], ...])
def test_a_receipt_of_another_event_is_refused(read, right, a1):
    """The reply must name this very event."""
    reply = {name: value for name, value in (right | {"A1": a1}).items() if value is not ...}
    with pytest.raises(ReceiptError, match=r"^A1: expected .* got "):
        read(reply)


@pytest.mark.parametrize("word", ["OK", "done", "", None, 200, True, ["ok"], ...])
def test_an_unknown_word_is_refused(read, right, word):
    """S1 is one of the four; anything else leaves the event."""
    reply = {name: value for name, value in (right | {"S1": word}).items() if value is not ...}
    with pytest.raises(
        ReceiptError, match=r"^S1: expected one of ok, duplicate, pending, rejected, got"
    ):
        read(reply)


def test_a_key_given_twice_is_refused(read, right):
    """Two readers must not see two words."""
    with pytest.raises(ReceiptError, match="twice"):
        read(json.dumps(right).encode()[:-1] + b',"S1":"ok"}')


def test_a_required_signature_must_be_there(read, right):
    """Without SIG2 the event stays; where it is not required, an unsigned reply is taken."""
    unsigned = {name: value for name, value in right.items() if name != "SIG2"}
    with pytest.raises(ReceiptError, match=r"^SIG2: expected a signed receipt, got none"):
        read(unsigned)
    assert read(unsigned, required=False).status is ReceiptStatus.OK


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("sig2", ["", "A" * 43 + "=", None, 1, "é"])
def test_a_signature_that_is_there_must_be_right(read, right, sig2, required):
    """A wrong SIG2 is refused even where none would have been accepted."""
    with pytest.raises(
        ReceiptError, match=r"^SIG2: expected the signature under hall-1, got another"
    ):
        read(right | {"SIG2": sig2}, required=required)


def test_a_signature_of_another_word_or_message_is_refused(read, right, freeze_punch):
    """A recorded `rejected` cannot be turned to `ok`, nor an old receipt be replayed."""
    with pytest.raises(ReceiptError, match=r"^SIG2"):
        read(right | {"S1": "duplicate"})
    with pytest.raises(ReceiptError, match=r"^SIG2"):
        read(right, frozen=freeze_punch(quality=0.5))


def test_a_signature_needs_the_key_of_the_message(read, right, signer):
    """The message itself names its key; another one leaves the event, required or not."""
    asked = []

    def keys(key_id):
        asked.append(key_id)
        return Signer(key_id, signer.key)

    assert read(right, keys=keys).status is ReceiptStatus.OK
    assert asked == ["hall-1"]
    for required in (True, False):
        with pytest.raises(ReceiptError, match=r"^SIG2: expected the signature under hall-1"):
            read(right, keys=lambda key_id: Signer(key_id, bytes(32)), required=required)


def test_a_message_sent_unsigned_needs_no_signature(read, right, freeze_punch):
    """An event frozen before a key was set has no SIG1 that a server could answer."""
    unsigned = {name: value for name, value in right.items() if name != "SIG2"}
    assert read(unsigned, frozen=freeze_punch(signed=False)).status is ReceiptStatus.OK


def test_a_damaged_message_is_not_settled(read, right):
    """Without the message that was sent, nothing tells whether it was signed."""
    with pytest.raises(ReceiptError, match="expected"):
        read(right, frozen=b"")


def test_the_error_for_a_number_beyond_a_double_is_named(read, right):
    """1e999 is no delay."""
    body = json.dumps(right | {"RTO": math.inf}).encode()
    assert re.search(b"Infinity", body)
    for text in (b"Infinity", b"1e999"):
        with pytest.raises(ReceiptError, match="no receipt"):
            read(body.replace(b"Infinity", text))
