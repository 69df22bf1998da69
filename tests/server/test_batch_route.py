"""Several messages in one request: receipts in order, one commit, each message judged by itself."""

import base64
import json

import pytest

from kiosk.server.store import StoreError
from kiosk.wire.batch import MAX_MESSAGES, join
from kiosk.wire.signing import Signer

POST = "/toon/attendance"
BATCH = f"{POST}/batch"
KEY = bytes(range(32))
SIGNER = Signer("k1", KEY)


@pytest.fixture
def known(client, kiosk):
    """A client of a server that knows the kiosk's key."""
    document = {"key": base64.b64encode(KEY).decode()}
    client.put(f"/devices/{kiosk.device}/keys/k1", json=document)
    return client


def malformed(kiosk, number, signer=SIGNER, **changes):
    """A message with a field that no server reads, rightly signed if at all."""
    fields = json.loads(kiosk.body(1, number)) | (changes or {"TS1": "yesterday"})
    if signer is not None:
        fields["K1"] = signer.key_id
        fields["SIG1"] = signer.sign_message(fields)
    return json.dumps(fields).encode()


def words(reply):
    return [receipt["S1"] for receipt in reply.json()]


def shown(client):
    return client.get("/attendance").json()


def is_proven(receipt, body):
    sig1 = json.loads(body)["SIG1"]
    return SIGNER.receipt_is_authentic(receipt["A1"], receipt["S1"], sig1, receipt["SIG2"])


def test_a_batch_is_answered_in_its_order(known, kiosk):
    """One receipt for each message, in the same order, each signed; again, all are duplicates."""
    bodies = [kiosk.body(1, number, signer=SIGNER) for number in (3, 1, 2)]
    for expected in ("ok", "duplicate"):
        reply = known.post(BATCH, content=join(bodies))
        assert reply.status_code == 200
        assert words(reply) == [expected] * 3
        for receipt, body in zip(reply.json(), bodies, strict=True):
            assert receipt["A1"] == json.loads(body)["A1"]
            assert is_proven(receipt, body)
    assert len(shown(known)["attendance"]) == 3


def test_both_forms_know_the_same_events(known, kiosk):
    """What came alone is a duplicate in a batch, and the other way round."""
    first, second = (kiosk.body(1, number, signer=SIGNER) for number in (1, 2))
    known.post(POST, content=first)
    assert words(known.post(BATCH, content=join([first, second]))) == ["duplicate", "ok"]
    assert known.post(POST, content=second).json()["S1"] == "duplicate"


def test_one_event_twice_in_a_batch_is_recorded_once(known, kiosk):
    """The same body is `duplicate`, another one `rejected` and alarmed: within a batch too."""
    body = kiosk.body(1, 1, signer=SIGNER)
    other = kiosk.body(2, 1, signer=SIGNER)
    reply = known.post(BATCH, content=join([body, body, other, other]))
    assert words(reply) == ["ok", "duplicate", "rejected", "rejected"]
    assert len(shown(known)["alarms"]) == 1


def test_a_malformed_message_takes_no_other_with_it(known, kiosk):
    """It gets a signed `rejected` with the reason, an alarm, and the others are recorded."""
    bodies = [
        kiosk.body(1, 1, signer=SIGNER),
        malformed(kiosk, 2),
        kiosk.body(1, 3, signer=SIGNER),
    ]
    reply = known.post(BATCH, content=join(bodies))
    assert words(reply) == ["ok", "rejected", "ok"]
    assert all(is_proven(*pair) for pair in zip(reply.json(), bodies, strict=True))
    assert reply.json()[1]["error"].startswith("TS1:")
    (alarm,) = shown(known)["alarms"]
    assert alarm["event_id"] == json.loads(bodies[1])["A1"]
    assert "TS1" in alarm["what"]


@pytest.mark.parametrize("signed", [True, False])
def test_a_malformed_message_alone_is_400_with_its_receipt(client, known, kiosk, signed):
    """The kiosk may set it aside only on the server's own word: signed if the message was."""
    if signed:
        body = malformed(kiosk, 1)
    else:
        body = malformed(kiosk, 1, signer=None, D1="a-kiosk-without-a-key", TS1="yesterday")
    for _ in range(2):
        reply = client.post(POST, content=body)
        assert reply.status_code == 400
        assert (reply.json()["S1"], reply.json()["error"][:4]) == ("rejected", "TS1:")
    assert ("SIG2" in reply.json()) is signed
    if signed:
        assert is_proven(reply.json(), body)
    assert len(shown(known)["alarms"]) == 1
    assert shown(known)["attendance"] == []


def test_a_dimension_that_the_space_has_not_is_rejected_by_receipt(known, kiosk):
    """Also what only the gallery can tell is the message's own fault, and said so."""
    body = kiosk.body(1, 1, signer=SIGNER, dim=64)
    reply = known.post(POST, content=body)
    assert (reply.status_code, reply.json()["S1"]) == (400, "rejected")
    assert is_proven(reply.json(), body)


@pytest.mark.parametrize("how", ["unsigned", "forged", "malformed and forged"])
def test_a_batch_of_which_one_is_unproven_is_refused_whole(known, kiosk, how):
    """401 and nothing recorded: whoever sends unproven messages gets no word on any."""
    bad = {
        "unsigned": kiosk.body(1, 2),
        "forged": kiosk.body(1, 2, signer=Signer("k1", b"x" * 32)),
        "malformed and forged": malformed(kiosk, 2, signer=Signer("k1", b"x" * 32)),
    }[how]
    reply = known.post(BATCH, content=join([kiosk.body(1, 1, signer=SIGNER), bad]))
    assert reply.status_code == 401
    assert reply.json()["error"].startswith("message 2: ")
    assert (shown(known)["attendance"], shown(known)["alarms"]) == ([], [])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "array"),
        (b"{}", "array"),
        (b"[{}", "array"),
        (b"[{}] x", "array"),
        (b"[{},]", "array"),
        (b"\xff", "UTF-8"),
        (b"[" * 100_000, "nested"),
        (b"[{}]", "message 1: A1"),
        (b"[1]", "message 1: "),
        (b'[{"A1": 1, "A1": 2}]', "twice"),
    ],
)
def test_what_is_no_batch_is_400_and_says_why(client, body, said):
    """Never a 500, always a reason, and nothing recorded."""
    reply = client.post(BATCH, content=body)
    assert reply.status_code == 400
    assert said in reply.json()["error"]


def test_an_empty_batch_is_answered_with_none(client):
    """No message, no receipt."""
    assert client.post(BATCH, content=b" [ ] ").json() == []


def test_a_batch_has_a_bound(client, kiosk):
    """More than 100 messages are 413, which makes a kiosk send fewer; 100 are taken."""
    bodies = [kiosk.body(1, number) for number in range(1, MAX_MESSAGES + 2)]
    assert client.post(BATCH, content=join(bodies)).status_code == 413
    assert words(client.post(BATCH, content=join(bodies[:-1]))) == ["ok"] * MAX_MESSAGES


def test_a_batch_is_committed_as_a_whole(store, kiosk, make_client, monkeypatch):
    """A store that fails in the middle promises nothing: 503, and not one of them is recorded."""
    import kiosk.server.store as module

    recorded = module._recorded
    calls = []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise StoreError("the store: expected it to answer, got: disk I/O error")
        return recorded(*arguments)

    monkeypatch.setattr(module, "_recorded", failing)
    client = make_client()
    batch = join([kiosk.body(1, number) for number in (1, 2, 3, 4)])
    reply = client.post(BATCH, content=batch)
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
    assert shown(client)["attendance"] == []
    assert words(client.post(BATCH, content=batch)) == ["ok"] * 4


def test_a_message_that_a_stricter_server_refuses_stays_a_duplicate(store, known, kiosk):
    """What was recorded once is answered so for ever, whatever this version thinks of it."""
    body = malformed(kiosk, 1)
    known.post(POST, content=kiosk.body(1, 1, signer=SIGNER))
    assert known.post(POST, content=body).json()["S1"] == "rejected"
    with store._transaction() as connection:
        connection.execute(
            "UPDATE attendance SET body_sha256 = (SELECT body_sha256 FROM alarm LIMIT 1)"
        )
    reply = known.post(POST, content=body)
    assert (reply.status_code, reply.json()["S1"]) == (200, "duplicate")
