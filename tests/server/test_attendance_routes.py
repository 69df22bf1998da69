"""The reference server holds to the wire: once, authentic, matched, and named when refused."""

import base64
import json
import sqlite3
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiosk.wire.signing import Signer

POST = "/toon/attendance"
KEY = bytes(range(32))


def records(client):
    return client.get("/attendance").json()["attendance"]


def test_a_punch_is_recorded_and_matched(client, kiosk):
    """ok, with the server's own match beside the kiosk's claim."""
    assert client.put("/employees/anna/faces", json=kiosk.enrolment(1)).json()["faces"] == 1
    reply = client.post(POST, content=kiosk.body(1))
    assert reply.status_code == 200
    assert reply.json()["S1"] == "ok"
    (record,) = records(client)
    assert (record["employee"], record["matched"], record["disagrees"]) == ("anna", "anna", 0)
    assert record["similarity"] > 0.999


def test_the_same_message_is_recorded_once(client, kiosk):
    """A retry is `duplicate`; another body under the same id is `rejected` and alarmed."""
    body = kiosk.body(1)
    answers = [client.post(POST, content=b).json()["S1"] for b in (body, body)]
    other = client.post(POST, content=kiosk.body(1, S3="0.1000")).json()["S1"]
    assert (*answers, other) == ("ok", "duplicate", "rejected")
    assert len(records(client)) == 1
    (alarm,) = client.get("/attendance").json()["alarms"]
    assert "another body" in alarm["what"]


def test_two_at_once_are_one(client, kiosk):
    """Equal posts racing each other: one ok, the others duplicate."""
    body, answers = kiosk.body(1), []

    def send():
        answers.append(client.post(POST, content=body).json()["S1"])

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == ["duplicate"] * 5 + ["ok"]


def test_a_claim_that_disagrees_is_flagged(client, kiosk):
    """Recorded under the kiosk's name, flagged for somebody to look at."""
    client.put("/employees/anna/faces", json=kiosk.enrolment(1))
    client.post(POST, content=kiosk.body(2, employee="anna"))
    (record,) = records(client)
    assert (record["employee"], record["matched"], record["disagrees"]) == ("anna", None, 1)


def test_without_a_name_the_server_names_or_leaves_it(client, kiosk):
    """No E1: matched against the gallery; nobody found is an unidentified visit, still ok."""
    client.put("/employees/anna/faces", json=kiosk.enrolment(1))
    for number, seed in ((1, 1), (2, 7)):
        reply = client.post(POST, content=kiosk.body(seed, number, employee=None))
        assert reply.json()["S1"] == "ok"
    assert [record["employee"] for record in records(client)] == [None, "anna"]


@pytest.mark.parametrize(("keep", "kept"), [(False, False), (True, True)])
def test_embeddings_are_kept_only_if_asked(make_client, kiosk, tmp_path, keep, kept):
    """After the match the embedding is gone, unless the server was started to keep it."""
    make_client(keep_embeddings=keep).post(POST, content=kiosk.body(1))
    rows = sqlite3.connect(tmp_path / "attendance.db").execute("SELECT embedding FROM attendance")
    assert (rows.fetchone()[0] is not None) is kept
    rows.connection.close()


def test_a_registered_key_demands_signatures_and_signs_receipts(client, kiosk):
    """Unsigned, forged or under another key: 401 and not recorded; right: SIG2 comes back."""
    signer = Signer("k1", KEY)
    path = f"/devices/{kiosk.device}/keys/k1"
    assert client.put(path, json={"key": base64.b64encode(KEY).decode()}).status_code == 200
    assert client.put(path, json={"key": base64.b64encode(b"x" * 32).decode()}).status_code == 409
    forged = kiosk.body(1, signer=signer, E1="mallory")
    other = kiosk.body(1, signer=Signer("k1", b"x" * 32))
    for body in (kiosk.body(1), forged, other):
        assert client.post(POST, content=body).status_code == 401
    assert records(client) == []
    body = kiosk.body(1, signer=signer)
    reply = client.post(POST, content=body).json()
    assert signer.receipt_is_authentic(
        reply["A1"], reply["S1"], json.loads(body)["SIG1"], reply["SIG2"]
    )


def test_a_token_guards_everything_but_signed_posts(make_client, kiosk):
    """Beyond loopback each route asks for the bearer token; a signed post does not need it."""
    client = make_client(token="a" * 20)
    bearer = {"Authorization": "Bearer " + "a" * 20}
    for path in ("/attendance", "/employees"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=bearer).status_code == 200
    assert client.post(POST, content=kiosk.body(1)).status_code == 401
    key = {"key": base64.b64encode(KEY).decode()}
    path = f"/devices/{kiosk.device}/keys/k1"
    assert client.put(path, json=key).status_code == 401
    assert client.put(path, json=key, headers=bearer).status_code == 200
    signed = kiosk.body(1, signer=Signer("k1", KEY))
    assert client.post(POST, content=signed).json()["S1"] == "ok"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{}", "A1"),
        (b'{"A1": NaN}', ""),
    ],
)
def test_bad_messages_are_400_and_name_the_field(client, body, field):
    """Never a 500, always a reason."""
    reply = client.post(POST, content=body)
    assert reply.status_code == 400
    assert field in reply.json()["error"]


@pytest.mark.parametrize("field", ["F2_DATA", "F2_META", "F2_DIM", "TS1", "S1", "S3", "CLK"])
def test_a_wrong_field_is_named(client, kiosk, field):
    """The error names the field that is wrong."""
    reply = client.post(POST, content=kiosk.body(1, **{field: "nonsense"}))
    assert reply.status_code == 400
    assert field in reply.json()["error"]


def test_the_idempotency_key_must_be_the_event_id(client, kiosk):
    """A differing header is 400."""
    reply = client.post(POST, content=kiosk.body(1), headers={"Idempotency-Key": "x"})
    assert reply.status_code == 400


def test_bodies_are_bounded(client, kiosk):
    """A megabyte for messages, ten for pictures."""
    assert client.post(POST, content=b" " * 1_000_001).status_code == 413
    picture = {"Content-Type": "image/png"}
    reply = client.put("/employees/a/faces", content=b" " * 10_000_001, headers=picture)
    assert reply.status_code == 413


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_nothing_is_ever_a_500(fuzzed, document):
    """Whatever JSON comes (infinities too), the answer is a named refusal."""
    body, kind = json.dumps(document).encode(), {"Content-Type": "application/json"}
    for path, method in (
        (POST, "POST"),
        ("/employees/a/faces", "PUT"),
        ("/devices/d/keys/k", "PUT"),
    ):
        reply = fuzzed.request(method, path, content=body, headers=kind)
        assert 400 <= reply.status_code < 500


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    from starlette.testclient import TestClient

    from kiosk.server.app import Rules, create_app
    from kiosk.server.store import Store

    store = Store(tmp_path_factory.mktemp("fuzz") / "a.db")
    with TestClient(create_app(store, Rules()), raise_server_exceptions=False) as client:
        yield client
    store.close()


def test_enrolment_from_a_picture(client, people):
    """One usable face is enrolled; none or garbage is refused with the reason."""
    jpeg = {"Content-Type": "image/jpeg"}
    photo = (people / "obama.jpg").read_bytes()
    done = client.put("/employees/obama/faces", content=photo, headers=jpeg)
    assert done.json()["faces"] == 1
    bad = client.put("/employees/obama/faces", content=b"no picture", headers=jpeg)
    assert bad.status_code == 422
    assert client.put("/employees/x/faces", content=b"x").status_code == 415
    assert client.get("/employees").json()["employees"][0]["employee"] == "obama"
    assert client.delete("/employees/obama").status_code == 200
    assert client.delete("/employees/obama").status_code == 404


def test_the_openapi_document_describes_the_routes(client):
    """Another implementer finds routes, receipt and errors."""
    document = client.get("/openapi.json").json()
    assert {POST, "/attendance", "/employees/{employee}/faces"} <= set(document["paths"])
    assert {"AttendanceReceipt", "Problem"} <= set(document["components"]["schemas"])


def test_the_page_escapes_what_kiosks_send(client, kiosk):
    """A name is text, never markup."""
    client.post(POST, content=kiosk.body(1, employee="<script>x</script>"))
    page = client.get("/attendance", headers={"Accept": "text/html"}).text
    assert "&lt;script&gt;x" in page
    assert "<script>x" not in page
