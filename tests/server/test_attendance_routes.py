"""The reference server holds to the wire: once, authentic, matched, and named when refused."""

import base64
import json
import re
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiosk.server.app import Rules, create_app
from kiosk.server.store import StoreError
from kiosk.wire.signing import Signer

POST = "/toon/attendance"
KEY = bytes(range(32))


def records(client):
    return client.get("/attendance").json()["attendance"]


def answer(client, body, **headers):
    return client.post(POST, content=body, headers=headers).json()["S1"]


def register(client, device, key_id="k1", key=KEY, **headers):
    document = {"key": base64.b64encode(key).decode()}
    return client.put(f"/devices/{device}/keys/{key_id}", json=document, headers=headers)


def test_a_punch_is_recorded_and_matched(client, kiosk):
    """ok, with the server's own match beside the kiosk's claim, and what SEQ said."""
    assert client.put("/employees/anna/faces", json=kiosk.enrolment(1)).json()["faces"] == 1
    reply = client.post(POST, content=kiosk.body(1))
    assert (reply.status_code, reply.json()["S1"]) == (200, "ok")
    (record,) = records(client)
    assert (record["employee"], record["matched"], record["disagrees"]) == ("anna", "anna", False)
    assert record["similarity"] > 0.999
    assert record["seq"] == "ab12cd34:1"
    assert (record["score"], record["received"]) == (0.9, "2026-01-02T03:04:05.678Z")


BOUNDS = {
    "CLK": "estimated",
    "TS1_MIN": "2025-10-09T07:00:00.000Z",
    "TS1_MAX": "2025-10-09T11:30:00.000Z",
}


def test_an_estimated_time_is_kept_with_its_bounds(client, kiosk):
    """Who pays by it must see that it is an estimate, and between which times it lies."""
    assert [answer(client, kiosk.body(1)), answer(client, kiosk.body(2, 2, changes=BOUNDS))] == [
        "ok",
        "ok",
    ]
    estimated, certain = records(client)
    known = (estimated["clock"], estimated["earliest"], estimated["latest"])
    assert known == tuple(BOUNDS.values())
    assert (certain["clock"], certain["earliest"], certain["latest"]) == ("synced", None, None)
    page = client.get("/attendance", headers={"Accept": "text/html"}).text
    assert page.count("time estimated") == 1
    assert "not before 2025-10-09 07:00:00, not after 2025-10-09 11:30:00" in page


def test_the_same_message_is_recorded_once(client, kiosk):
    """A retry is `duplicate`; another body under the same id is `rejected` and alarmed, once."""
    body = kiosk.body(1)
    other = kiosk.body(1, changes={"S3": "0.1000"})
    assert [answer(client, b) for b in (body, body, other, other)] == [
        "ok",
        "duplicate",
        "rejected",
        "rejected",
    ]
    (record,) = records(client)
    assert record["conflicts"] == 1
    (alarm,) = client.get("/attendance").json()["alarms"]
    assert "another body" in alarm["what"]
    page = client.get("/attendance", headers={"Accept": "text/html"}).text
    assert "rejected another body" in page


def test_the_same_fields_in_another_order_are_the_same_body(client, kiosk):
    """Sameness is that of the RFC 8785 form: a proxy that rewrites JSON makes no alarm."""
    body = kiosk.body(1)
    turned = json.dumps(dict(reversed(json.loads(body).items())), indent=1).encode()
    assert turned != body
    assert [answer(client, b) for b in (body, turned)] == ["ok", "duplicate"]


def test_an_event_id_belongs_to_its_device(client, kiosk):
    """Unique on (D1, A1): another device may use the same id."""
    other = kiosk.body(1, changes={"D1": "another-kiosk"})
    assert [answer(client, body) for body in (kiosk.body(1), other)] == ["ok", "ok"]


def test_two_at_once_are_one(client, kiosk):
    """Equal posts racing each other: one ok, the others duplicate."""
    body, answers = kiosk.body(1), []
    threads = [
        threading.Thread(target=lambda: answers.append(answer(client, body))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == ["duplicate"] * 5 + ["ok"]


def test_a_claim_that_disagrees_is_flagged(client, kiosk):
    """Recorded under the kiosk's name, flagged: nobody matches, or somebody else does."""
    for number, name in ((1, "anna"), (2, "bert")):
        client.put(f"/employees/{name}/faces", json=kiosk.enrolment(number))
    for number, seed in ((1, 9), (2, 2), (3, 1)):
        assert answer(client, kiosk.body(seed, number, employee="anna")) == "ok"
    rows = [(r["employee"], r["matched"], r["disagrees"]) for r in records(client)]
    assert rows == [("anna", "anna", False), ("anna", "bert", True), ("anna", None, True)]


def test_a_claim_that_cannot_be_checked_is_not_flagged(client, kiosk):
    """The claimed person has no face here, and the face is nobody else's: no disagreement."""
    client.put("/employees/bert/faces", json=kiosk.enrolment(2))
    answer(client, kiosk.body(1, employee="anna"))
    assert [r["disagrees"] for r in records(client)] == [False]


def test_without_a_name_the_server_names_or_leaves_it(client, kiosk):
    """No E1: matched against the gallery; nobody found is an unidentified visit, still ok."""
    client.put("/employees/anna/faces", json=kiosk.enrolment(1))
    for number, seed in ((1, 1), (2, 7)):
        assert answer(client, kiosk.body(seed, number, employee=None)) == "ok"
    assert [record["employee"] for record in records(client)] == [None, "anna"]


def test_spaces_are_never_compared(client, kiosk):
    """The same vector in another space, or in none, meets nobody."""
    client.put("/employees/anna/faces", json=kiosk.enrolment(1))
    for number, space in ((1, "another-192-4pt"), (2, None)):
        body = kiosk.body(1, number, employee=None, changes={"F2_MODEL": space})
        assert answer(client, body) == "ok"
    assert [record["similarity"] for record in records(client)] == [None, None]


def test_the_manifest_gives_the_threshold_and_the_option_overrides_it(make_client, kiosk):
    """A cosine between the two thresholds is a match by one and none by the other."""
    near = kiosk.face(1).vector + 0.08 * np.random.default_rng(5).standard_normal(192)
    token = kiosk.enrolment(1) | {"faces": [kiosk_token(near)]}
    strict = make_client(threshold=0.95)
    strict.put("/employees/anna/faces", json=token)
    answer(strict, kiosk.body(1, 1, employee=None))
    answer(make_client(), kiosk.body(1, 2, employee=None))
    by_manifest, by_option = records(strict)
    assert 0.57 < by_option["similarity"] < 0.95
    assert (by_option["matched"], by_manifest["matched"]) == (None, "anna")


def kiosk_token(vector):
    from kiosk.wire import f2

    return f2.encode(vector / np.linalg.norm(vector)).fields()


def test_a_space_without_a_threshold_takes_nobody(make_client, store, clock, kiosk):
    """Enrolment is refused without --threshold, and so is a start on what it left behind."""
    enrolment = kiosk.enrolment(1, space="own-64", dim=64)
    refused = make_client().put("/employees/anna/faces", json=enrolment)
    assert refused.status_code == 422
    assert "--threshold" in refused.json()["error"]
    with_one = make_client(threshold=0.5)
    assert with_one.put("/employees/anna/faces", json=enrolment).status_code == 200
    with pytest.raises(Exception, match="own-64"):
        create_app(store, Rules(), clock=clock)


@pytest.mark.parametrize(
    ("keep", "employee", "kept"),
    [(False, "anna", False), (True, "anna", True), (True, None, False)],
)
def test_embeddings_are_kept_only_if_asked(make_client, kiosk, store, keep, employee, kept):
    """After the match it is gone, unless configured; an unidentified visit's always is."""
    answer(make_client(keep_embeddings=keep), kiosk.body(1, employee=employee))
    (row,) = store._rows("SELECT embedding FROM attendance")
    assert (row["embedding"] is not None) is kept


def test_a_registered_key_demands_signatures_and_signs_receipts(client, kiosk):
    """Unsigned, forged or under another key: 401 and not recorded; right: SIG2 comes back."""
    signer = Signer("k1", KEY)
    assert register(client, kiosk.device).status_code == 200
    forged = kiosk.body(1, signer=signer, changes={"E1": "mallory"})
    other = kiosk.body(1, signer=Signer("k1", b"x" * 32))
    unknown = kiosk.body(1, signer=Signer("k2", KEY))
    for body in (kiosk.body(1), forged, other, unknown):
        assert client.post(POST, content=body).status_code == 401
    assert records(client) == []
    body = kiosk.body(1, signer=signer)
    for expected in ("ok", "duplicate"):
        reply = client.post(POST, content=body).json()
        assert reply["S1"] == expected
        sig1 = json.loads(body)["SIG1"]
        assert signer.receipt_is_authentic(reply["A1"], expected, sig1, reply["SIG2"])


def test_a_signature_that_nobody_can_check_is_refused(client, kiosk):
    """Signed, but no key is registered: an unsigned receipt would not end it on the kiosk."""
    body = kiosk.body(1, signer=Signer("k1", KEY))
    reply = client.post(POST, content=body)
    assert reply.status_code == 401
    assert reply.json()["error"].startswith("K1:")
    register(client, kiosk.device)
    assert answer(client, body) == "ok"


def test_a_key_id_stands_for_one_key(client, kiosk):
    """The same key again is fine, another under its id is 409; a new id is a rotation."""
    register(client, kiosk.device)
    assert register(client, kiosk.device).status_code == 200
    assert register(client, kiosk.device, key=b"x" * 32).status_code == 409
    assert register(client, kiosk.device, "k2", b"x" * 32).status_code == 200
    for number, signer in ((1, Signer("k1", KEY)), (2, Signer("k2", b"x" * 32))):
        assert answer(client, kiosk.body(1, number, signer=signer)) == "ok"


@pytest.mark.parametrize(
    ("body", "field"),
    [(b"", "JSON"), (b"[]", "object"), (b"{}", "A1"), (b'{"A1": NaN}', "NaN"), (b"\xff", "UTF-8")],
)
def test_bad_messages_are_400_and_say_why(client, body, field):
    """Never a 500, always a reason."""
    reply = client.post(POST, content=body)
    assert reply.status_code == 400
    assert field in reply.json()["error"]


@pytest.mark.parametrize("field", ["F2_DATA", "F2_META", "F2_DIM", "TS1", "D1", "S1", "S3", "CLK"])
def test_a_wrong_field_is_named(client, kiosk, field):
    """The error names the field that is wrong."""
    reply = client.post(POST, content=kiosk.body(1, changes={field: "non sense"}))
    assert reply.status_code == 400
    assert field in reply.json()["error"]


def test_a_dimension_that_the_space_has_not_is_refused(client, kiosk):
    """A token of 64 values in a space of 192 is malformed, whether or not anybody is enrolled."""
    reply = client.post(POST, content=kiosk.body(1, dim=64))
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("F2_DIM: expected 192")


def test_the_idempotency_key_must_be_the_event_id(client, kiosk):
    """A differing header is 400 and records nothing; the same one is fine."""
    body = kiosk.body(1)
    for wrong in ("x", json.loads(body)["A1"].upper()):
        reply = client.post(POST, content=body, headers={"Idempotency-Key": wrong})
        assert reply.status_code == 400
        assert "Idempotency-Key" in reply.json()["error"]
    assert answer(client, body, **{"Idempotency-Key": json.loads(body)["A1"]}) == "ok"


def test_a_message_is_bounded(client):
    """413 by its announced length, and when a body that announces none grows over it."""
    for body in (b" " * 1_000_001, (b" " * 100_000 for _ in range(11))):
        reply = client.post(POST, content=body)
        assert reply.status_code == 413
        assert "1000000" in reply.json()["error"]


def test_a_store_that_fails_promises_nothing(tough_client, kiosk, monkeypatch):
    """503 with Retry-After: the kiosk keeps the event and comes again."""
    import kiosk.server.store as module

    def broken(*_):
        raise StoreError("the store: expected it to answer, got: disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(module.Store, "record", broken)
        reply = tough_client.post(POST, content=kiosk.body(1, 77))
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
    assert answer(tough_client, kiosk.body(1, 77)) == "ok"


def test_filters(client, kiosk):
    """One UTC day, one employee, the newest first, no more than asked for."""
    late = {"TS1": "2025-10-09T23:59:59.999Z"}
    next_day = {"TS1": "2025-10-10T00:00:00.000Z"}
    answer(client, kiosk.body(1, 1, employee="anna", changes=late))
    answer(client, kiosk.body(1, 2, employee="bert", changes=next_day))
    answer(client, kiosk.body(1, 3, employee="anna", changes=next_day))

    def shown(query):
        reply = client.get(f"/attendance?{query}").json()["attendance"]
        return [int(r["event_id"][-2:]) for r in reply]

    assert shown("") == [3, 2, 1]
    assert shown("day=2025-10-10") == [3, 2]
    assert shown("day=2025-10-09") == [1]
    assert shown("employee=anna&limit=1") == [3]
    assert shown("employee=nobody") == []
    assert shown("employee=%20anna%20") == [3, 1]
    assert shown("day=&employee=&device=") == [3, 2, 1]
    assert shown(f"device={kiosk.device}&employee=bert") == [2]
    assert shown("device=another") == []
    wrongs = ("day=2025-13-40", "day=yesterday", "limit=0", "limit=x", "page=0", "page=x")
    for wrong in (*wrongs, f"page={10**30}"):
        reply = client.get(f"/attendance?{wrong}")
        assert reply.status_code == 422
        assert wrong.split("=")[0] in reply.json()["error"]


def html(client, address):
    reply = client.get(address, headers={"Accept": "text/html"})
    assert reply.status_code == 200
    return reply.text


def test_pages_hold_every_record_once(client, kiosk):
    """Newest first over all of them, counted for a program and linked for a person; the links keep
    the filter, and a page beyond the last leads back."""
    for number in range(1, 6):
        answer(client, kiosk.body(1, number, employee="anna & co"))
    answer(client, kiosk.body(1, 6, employee="bert"))
    query, found = "/attendance?employee=anna+%26+co&limit=2", []
    for page in (1, 2, 3):
        reply = client.get(f"{query}&page={page}").json()
        assert (reply["total"], reply["page"], reply["pages"]) == (5, page, 3)
        found += [int(r["event_id"][-2:]) for r in reply["attendance"]]
    assert found == [5, 4, 3, 2, 1]
    assert client.get(f"{query}&page=4").json()["attendance"] == []
    page = html(client, f"{query}&page=2")
    link = 'href="/attendance?employee=anna+%26+co&amp;limit=2'
    assert f'{link}" rel="prev"' in page
    assert f'{link}&amp;page=3" rel="next"' in page
    assert "3 to 4 of" in page
    assert "5 records of" in page
    assert 'rel="next"' not in html(client, f"{query}&page=3")
    assert 'rel="prev"' not in html(client, query)
    beyond = html(client, f"{query}&page=9")
    assert f'There is no page 9: the last is <a {link}&amp;page=3">page 3</a>' in beyond
    assert "<nav" not in html(client, "/attendance")


def test_an_empty_page_says_what_was_asked_for_and_why_there_may_be_nothing(client, kiosk):
    """Nothing at all yet, nothing that fits, an id that never was: each in words of its own."""
    assert "Nothing has been recorded yet" in html(client, "/attendance")
    answer(client, kiosk.body(1, 1, employee="anna"))
    page = html(client, "/attendance?employee=Anna&day=2025-01-01&device=none")
    said = " ".join(re.sub("<[^>]*>", "", page).split())
    assert "No record of Anna on 2025-01-01 (UTC) at kiosk none." in said
    assert "Nobody of this id was ever recorded" in said
    assert "No kiosk of this id" in said
    assert "near midnight" in said
    page = html(client, f"/attendance?employee=anna&day=2025-01-01&device={kiosk.device}")
    assert "Nobody of this id" not in page
    assert "No kiosk of this id" not in page
    hostile = html(client, "/attendance?employee=%3Ci%3E&device=%22%3E%3Cb%3E")
    assert "<i>" not in hostile
    assert "<b>" not in hostile


def test_the_form_offers_who_and_where_there_is(client, kiosk):
    """Kiosks to choose from, the chosen one selected, and the ids of people as they are typed."""
    answer(client, kiosk.body(1, 1, employee="anna"))
    answer(client, kiosk.body(1, 2, changes={"D1": "second", "E1": "bert"}))
    page = html(client, "/attendance?device=second&limit=7")
    assert page.startswith("<!doctype html>")
    assert "<option selected>second</option>" in page
    assert f"<option>{kiosk.device}</option>" in page
    assert page.count('<option value="') == 3
    assert '<input type="hidden" name="limit" value="7">' in page
    assert page.count("<tr title=") == 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers()
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
FUZZ = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(JSON)
def test_no_json_is_ever_a_500(tough_client, document):
    """Whatever JSON comes, the answer is a named refusal."""
    paths = ((POST, "POST"), ("/employees/a/faces", "PUT"), ("/devices/d/keys/k", "PUT"))
    for path, method in paths:
        reply = tough_client.request(method, path, json=document)
        assert 400 <= reply.status_code < 500
        assert reply.json()["error"]


@FUZZ
@given(data=st.data())
def test_no_damaged_message_is_ever_a_500(tough_client, kiosk, data):
    """A right message with one field replaced by anything: recorded, or refused by name."""
    right = json.loads(kiosk.body(1, 99, signer=Signer("k1", KEY)))
    name = data.draw(st.sampled_from([*right, "X9"]))
    damaged = right | {name: data.draw(JSON | st.sampled_from(list(right.values())))}
    reply = tough_client.post(POST, content=json.dumps(damaged).encode())
    assert reply.status_code in {200, 400, 401}


@FUZZ
@given(st.text(max_size=70), st.sampled_from(["employees", "devices/d/keys", "attendance"]))
def test_no_path_is_ever_a_500(tough_client, text, place):
    """Ids that nobody would choose are refused by name."""
    from urllib.parse import quote

    encoded = quote(text, safe="", errors="replace")
    for method, path in (
        ("DELETE", f"/employees/{encoded}"),
        ("PUT", f"/{place}/{encoded}"),
        ("GET", f"/attendance?employee={encoded}&day={encoded}"),
    ):
        assert tough_client.request(method, path).status_code < 500


def test_routes_that_are_none_say_so_in_json(client):
    """404 and 405 are errors like all others, and nothing loads a page from elsewhere."""
    for method, path, status in (
        ("GET", "/docs", 404),
        ("GET", "/redoc", 404),
        ("DELETE", "/attendance", 405),
        ("PUT", POST, 405),
    ):
        reply = client.request(method, path)
        assert reply.status_code == status
        assert path in reply.json()["error"]


def test_the_openapi_document_describes_the_routes(client):
    """Another implementer finds routes, bodies, receipt and errors; no reference is dead."""
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {POST, "/attendance", "/employees/{employee}/faces"} <= set(document["paths"])
    assert {"AttendanceMessage", "AttendanceReceipt", "F2Token", "Problem"} <= set(schemas)
    assert "SIG1" in schemas["AttendanceMessage"]["properties"]
    post = document["paths"][POST]["post"]
    assert {"200", "400", "401", "413", "503"} <= set(post["responses"])
    assert post["requestBody"]["content"]["application/json"]["schema"]
    references = [part.split('"')[0] for part in json.dumps(document).split('"$ref": "')[1:]]
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in schemas
