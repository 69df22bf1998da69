"""The signed test vectors: what another implementation checks itself against."""

import base64
import hmac
import json
from pathlib import Path

import pytest

from kiosk.types import ReceiptStatus
from kiosk.wire import f2, message, receipt
from kiosk.wire.jsontext import canonical
from kiosk.wire.signing import Signer

HERE = Path(__file__).parent
VECTORS = json.loads((HERE / "vectors.json").read_text(encoding="utf-8"))
PAGE = HERE.parents[1] / "docs" / "wire.md"


def mac(vector: dict[str, str], text: str) -> str:
    """Sign by the standard library alone."""
    digest = hmac.digest(bytes.fromhex(vector["key"]), text.encode(), "sha256")
    return base64.b64encode(digest).decode()


def as_printed(number: int, vector: dict[str, object]) -> str:
    """Return a vector as the page prints it."""
    reply = json.dumps(vector["reply"], ensure_ascii=False)
    return (
        f"### {number}. {vector['title']}\n\n"
        f"Key: `{vector['key']}`\n\n"
        f"Signed text:\n```text\n{vector['jcs']}\n```\n"
        f"`SIG1`: `{vector['sig1']}`\n\n"
        f"First values: `{json.dumps(vector['values'])}`\n\n"
        f"Reply:\n```json\n{reply}\n```\n"
        f"Signed text of the reply:\n```text\n{vector['reply_jcs']}\n```\n"
        f"`SIG2`: `{vector['sig2']}`\n"
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["title"])
def test_the_vectors_hold_by_the_standard_library_alone(vector):
    """HMAC over the printed text gives the printed signature, without any code of ours."""
    assert mac(vector, vector["jcs"]) == vector["sig1"] == vector["fields"]["SIG1"]
    assert mac(vector, vector["reply_jcs"]) == vector["sig2"] == vector["reply"]["SIG2"]
    assert json.loads(vector["jcs"]) | {"SIG1": vector["sig1"]} == vector["fields"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["title"])
def test_our_code_agrees_with_the_vectors(vector):
    """Canonical form, both signatures, decoding and the receipt come out as printed."""
    fields = vector["fields"]
    signer = Signer(fields["K1"], bytes.fromhex(vector["key"]))
    unsigned = {name: value for name, value in fields.items() if name != "SIG1"}
    assert canonical(unsigned).decode() == vector["jcs"]
    body = canonical(fields)
    read = message.parse(body)
    assert signer.message_is_authentic(read.fields)
    assert f2.decode(fields)[:4].tolist() == vector["values"]
    reply = vector["reply"]
    assert signer.sign_receipt(reply["A1"], reply["S1"], fields["SIG1"]) == vector["sig2"]
    taken = receipt.parse(
        json.dumps(reply).encode(),
        event_id=read.event_id,
        frozen=body,
        keys=lambda key_id: Signer(key_id, signer.key),
        required=True,
    )
    assert (taken.status, taken.min_delay_s) == (ReceiptStatus(reply["S1"]), reply.get("RTO", 0))


def test_the_vectors_cover_what_goes_wrong():
    """One with employee and type, one without an employee, one with unknown non-ASCII fields."""
    named, unknown, foreign = (vector["fields"] for vector in VECTORS)
    assert {"E1", "A2", "F3"} <= set(named)
    assert not {"E1", "A2", "F3"} & set(unknown)
    assert any(name.startswith("X_") for name in foreign)
    assert not json.dumps(foreign, ensure_ascii=False).isascii()


def test_the_page_prints_the_vectors():
    """docs/wire.md and vectors.json never differ."""
    page = PAGE.read_text(encoding="utf-8")
    for number, vector in enumerate(VECTORS, start=1):
        assert as_printed(number, vector) in page
