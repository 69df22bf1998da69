"""Who may ask: the token beyond loopback, no other site's page ever."""

import base64

import pytest

from kiosk.wire.signing import Signer

POST = "/toon/attendance"
TOKEN = "a-token-of-the-tests"
KEY = bytes(range(32))
BEARER = {"Authorization": f"Bearer {TOKEN}"}
KEY_DOCUMENT = {"key": base64.b64encode(KEY).decode()}


def basic(password):
    return {"Authorization": "Basic " + base64.b64encode(f"me:{password}".encode()).decode()}


@pytest.fixture
def guarded(make_client):
    return make_client(base_url="https://attendance.example:8320", token=TOKEN)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/attendance"),
        ("GET", "/employees"),
        ("GET", "/healthz"),
        ("GET", "/openapi.json"),
        ("PUT", "/employees/anna/faces"),
        ("DELETE", "/employees/anna"),
        ("PUT", "/devices/d/keys/k"),
    ],
)
def test_every_route_but_the_signed_posts_asks_for_the_token(guarded, method, path):
    """None, a wrong one and one in another scheme are 401; the right one gets further."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        reply = guarded.request(method, path, headers=headers)
        assert reply.status_code == 401
        assert "WWW-Authenticate" in reply.headers
        assert TOKEN not in reply.text
    assert guarded.request(method, path, headers=BEARER).status_code != 401


def test_the_test_above_knows_every_route(guarded):
    """A route that is added without a guard must not slip by."""
    document = guarded.get("/openapi.json", headers=BEARER).json()
    unguarded = [
        (path, method)
        for path, methods in document["paths"].items()
        for method, route in methods.items()
        if "security" not in route
    ]
    assert unguarded == [
        (POST, "post"),
        (f"{POST}/batch", "post"),
        ("/toon/heartbeat", "post"),
        # Its code is what it asks for.
        ("/devices/{device}/keys/{key_id}", "post"),
    ]


def test_a_signed_post_needs_no_token_and_an_unsigned_one_does(guarded, kiosk):
    """The signature is the kiosk's own proof."""
    unsigned = kiosk.body(1, 1)
    assert guarded.post(POST, content=unsigned).status_code == 401
    assert guarded.post(POST, content=unsigned, headers=basic(TOKEN)).status_code == 401
    assert guarded.post(POST, content=unsigned, headers=BEARER).json()["S1"] == "ok"
    path = f"/devices/{kiosk.device}/keys/k1"
    assert guarded.put(path, json=KEY_DOCUMENT, headers=BEARER).status_code == 200
    signed = kiosk.body(1, 2, signer=Signer("k1", KEY))
    assert guarded.post(POST, content=signed).json()["S1"] == "ok"
    # Once the device can sign, a token is no way around it.
    assert guarded.post(POST, content=kiosk.body(1, 3), headers=BEARER).status_code == 401


def test_a_browser_may_give_the_token_as_password_but_only_to_look(guarded, kiosk):
    """HTTP Basic opens the page; it changes nothing, for browsers send it unasked."""
    page = guarded.get("/attendance", headers={"Accept": "text/html", **basic(TOKEN)})
    assert page.status_code == 200
    assert guarded.get("/attendance", headers=basic("wrong")).status_code == 401
    enrolment = kiosk.enrolment(1)
    reply = guarded.put("/employees/anna/faces", json=enrolment, headers=basic(TOKEN))
    assert reply.status_code == 401


def test_a_page_of_another_site_cannot_punch(client, kiosk):
    """A browser on this machine reaches loopback for any page: without the guard it would do."""
    body = kiosk.body(1)
    for headers in (
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        reply = client.post(POST, content=body, headers=headers)
        assert reply.status_code == 403
    own = {"Origin": str(client.base_url), "Sec-Fetch-Site": "same-origin"}
    assert client.post(POST, content=body, headers=own).json()["S1"] == "ok"


def test_a_name_made_to_point_here_is_not_answered(client, make_client):
    """DNS rebinding: the Host is then that name. With a token the name does not matter."""
    for host in ("elsewhere.example", "127.0.0.1.elsewhere.example", "localhost.example:8320"):
        assert client.get("/attendance", headers={"Host": host}).status_code == 421
    for host in ("localhost:8320", "127.0.0.1", "[::1]:8320"):
        assert client.get("/attendance", headers={"Host": host}).status_code == 200
    guarded = make_client(token=TOKEN)
    named = BEARER | {"Host": "attendance.example"}
    assert guarded.get("/attendance", headers=named).status_code == 200


@pytest.mark.parametrize("path", ["/attendance/", "/nowhere", "/toon/attendance", "/openapi.json"])
def test_a_foreign_name_meets_the_guard_before_any_route(client, path):
    """No path, known or not, is answered or led on to the name that a foreign Host gives."""
    reply = client.get(path, headers={"Host": "evil.example"}, follow_redirects=False)
    assert reply.status_code == 421
    assert "Location" not in reply.headers


def test_a_path_is_not_mended(client):
    """A slash too many is no such route: a redirect would repeat the Host that came."""
    reply = client.get("/attendance/", follow_redirects=False)
    assert reply.status_code == 404
    assert "Location" not in reply.headers


def test_nothing_is_shared_with_other_sites(client):
    """No CORS header invites anybody in, and the page may load and run nothing but itself."""
    reply = client.get(
        "/attendance", headers={"Accept": "text/html", "Origin": "https://elsewhere.example"}
    )
    assert not [name for name in reply.headers if name.startswith("access-control")]
    policy = reply.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert reply.headers["Cache-Control"] == "no-store"
    assert "http://" not in reply.text
    assert "https://" not in reply.text


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/html", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
    ],
)
def test_a_browser_gets_the_page_and_a_program_json(client, accept, page):
    """By Accept, JSON unless HTML is asked for."""
    kind = client.get("/attendance", headers={"Accept": accept}).headers["Content-Type"]
    assert kind.startswith("text/html" if page else "application/json")


def test_the_root_leads_to_the_page(client):
    """Whoever types the bare address finds the records."""
    reply = client.get("/", follow_redirects=False)
    assert (reply.status_code, reply.headers["Location"]) == (307, "/attendance")


def test_the_page_escapes_what_kiosks_send(client, kiosk):
    """A name is text, never markup, in the table and in the filter alike."""
    hostile = '"><script>x</script>'
    client.post(POST, content=kiosk.body(1, employee=hostile))
    page = client.get(
        "/attendance", params={"employee": hostile}, headers={"Accept": "text/html"}
    ).text
    assert page.count("&lt;script&gt;x") == 4
    assert "<script>x" not in page
