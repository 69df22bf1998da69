"""Signatures: over every field, under one key, compared whole."""

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.errors import MessageError, WireError
from kiosk.wire.signing import Signer

KEY = bytes(range(32))
SIGNER = Signer("k1", KEY)


def signed(**fields: object) -> dict[str, object]:
    """Return fields with K1 and SIG1."""
    message: dict[str, object] = {"A1": "a", "F2_DIM": 64, "K1": "k1", **fields}
    return message | {"SIG1": SIGNER.sign_message(message)}


def test_a_signature_is_hmac_sha256_over_the_sorted_fields():
    """SIG1 is plain HMAC-SHA256 over the JCS form of all other fields, K1 among them."""
    text = b'{"A1":"a","F2_DIM":64,"K1":"k1","X":"\xc3\xa9"}'
    right = base64.b64encode(hmac.new(KEY, text, hashlib.sha256).digest()).decode()
    assert signed(X="é")["SIG1"] == right


def test_the_order_of_fields_is_of_no_account():
    """A server that keeps fields in another order comes to the same signature."""
    fields = signed(X=1, B="b")
    assert SIGNER.message_is_authentic(dict(reversed(fields.items())))


@pytest.mark.parametrize("how", ["changed", "removed", "added"])
def test_a_tampered_field_is_noticed(frozen, signer, how):
    """No field of a signed message can be changed or removed, and none added."""
    fields = json.loads(frozen)
    assert signer.message_is_authentic(fields)
    names = ["NEW"] if how == "added" else list(fields)
    for name in names:
        tampered = dict(fields)
        if how == "removed":
            del tampered[name]
        else:
            value = fields.get(name, "")
            tampered[name] = value + 1 if isinstance(value, int) else value + "0"
        assert not signer.message_is_authentic(tampered), name


@settings(deadline=None, max_examples=60)
@given(bit=st.integers(0, 255), fields=st.dictionaries(st.text("ABC", min_size=1), st.text("xyé")))
def test_another_key_or_signature_is_wrong(bit, fields):
    """One flipped bit of the key or of the signature is enough to be refused."""
    message = signed(**fields)
    assert SIGNER.message_is_authentic(message)
    flipped = (int.from_bytes(KEY, "big") ^ 1 << bit).to_bytes(32, "big")
    assert not Signer("k1", flipped).message_is_authentic(message)
    digest = int.from_bytes(base64.b64decode(str(message["SIG1"])), "big") ^ 1 << bit
    forged = base64.b64encode(digest.to_bytes(32, "big")).decode()
    assert not SIGNER.message_is_authentic(message | {"SIG1": forged})


@pytest.mark.parametrize("forged", [None, 7, "", "é", [], True, "A" * 43 + "="])
def test_a_signature_that_is_none_is_wrong_and_no_accident(forged):
    """A value of any type in SIG1 or SIG2 is just a wrong signature."""
    assert not SIGNER.message_is_authentic(signed() | {"SIG1": forged})
    assert not SIGNER.receipt_is_authentic("a", "ok", "s", forged)


def test_another_spelling_of_the_signature_is_wrong():
    """The text itself is compared: no stray bits, missing padding or white space."""
    message = signed()
    text = str(message["SIG1"])
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stray = text[:-2] + last[last.index(text[-2]) + 1] + "="
    assert base64.b64decode(stray) == base64.b64decode(text)
    for spelling in (stray, text.rstrip("="), text + "\n"):
        assert not SIGNER.message_is_authentic(message | {"SIG1": spelling})


@pytest.mark.parametrize("key_id", ["k2", None, 1])
def test_a_message_under_another_key_id_is_not_ours(key_id):
    """K1 must name the key, even where the signature under it would be right."""
    message: dict[str, object] = {"A1": "a", "K1": key_id}
    message["SIG1"] = SIGNER.sign_message(message)
    assert not SIGNER.message_is_authentic(message)


def test_a_receipt_is_bound_to_event_word_and_message():
    """SIG2 of one event, word and message signs no other."""
    sig2 = SIGNER.sign_receipt("a", "ok", "s")
    text = b'{"A1":"a","S1":"ok","SIG1":"s"}'
    assert sig2 == base64.b64encode(hmac.new(KEY, text, hashlib.sha256).digest()).decode()
    assert SIGNER.receipt_is_authentic("a", "ok", "s", sig2)
    assert not SIGNER.receipt_is_authentic("b", "ok", "s", sig2)
    assert not SIGNER.receipt_is_authentic("a", "rejected", "s", sig2)
    assert not SIGNER.receipt_is_authentic("a", "ok", "t", sig2)


def test_what_cannot_be_written_cannot_be_signed():
    """Fields without a canonical form are a named error."""
    with pytest.raises(MessageError):
        SIGNER.sign_message({"X": float("nan")})


@pytest.mark.parametrize(
    ("key_id", "key"),
    [
        ("", KEY),
        ("a b", KEY),
        ("é", KEY),
        ("k" * 65, KEY),
        ("k\n", KEY),
        ("k", KEY[:-1]),
        ("k", b""),
    ],
)
def test_a_bad_key_is_refused_at_once(key_id, key):
    """A short key or an unwritable key id is told when the signer is made."""
    with pytest.raises(WireError, match="expected"):
        Signer(key_id, key)


def test_a_signer_never_shows_its_key():
    """The key is not in the repr, raw or in hexadecimal."""
    assert "key=" not in repr(SIGNER)
    assert KEY.hex() not in repr(SIGNER)
