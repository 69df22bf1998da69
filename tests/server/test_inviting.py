"""One-time codes: how a kiosk that has no token gets its key to the server."""

import base64
import json
import sqlite3
import subprocess
import sys

import pytest

from kiosk.server.inviting import digest_of, new_code
from kiosk.server.store import Store

DEVICE = "3f2b6c1e-8a34-4d0e-9d3c-2b1f7a6e5c4d"
KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(32)).decode()
TOKEN = "a-token-that-is-long-enough"


@pytest.fixture
def code(store):
    made = new_code()
    store.invite(digest_of(made), 60)
    return made


def hand_in(client, code, key=KEY, device=DEVICE, key_id="1"):
    return client.post(f"/devices/{device}/keys/{key_id}", json={"key": key, "code": code})


def test_a_code_lets_one_key_in_without_a_token(make_client, store, code):
    """The kiosk has no token and needs none; what it registered is what proves its messages."""
    reply = hand_in(make_client(token=TOKEN), code)
    assert (reply.status_code, reply.json()) == (200, {"D1": DEVICE, "K1": "1"})
    assert store.keys(DEVICE) == {"1": bytes(range(32))}


def test_a_code_works_once(client, store, code):
    """For one device and key id; the same once more, for a lost reply, changes nothing."""
    assert hand_in(client, code).status_code == 200
    assert hand_in(client, code).status_code == 200
    for change in ({"key_id": "2"}, {"device": "another"}):
        reply = hand_in(client, code, **change)
        assert reply.status_code == 403
        assert "this one was" in reply.json()["error"]
    assert hand_in(client, code, key=OTHER).status_code == 409
    assert store.keys(DEVICE) == {"1": bytes(range(32))}


@pytest.mark.parametrize("wrong", ["0000-0000-0000-0000", "x" * 64])
def test_another_code_lets_nothing_in(client, store, code, wrong):
    """Not even a device that is known is helped by it."""
    reply = hand_in(client, wrong)
    assert reply.status_code == 403
    assert "expected one of this server's" in reply.json()["error"]
    assert store.keys(DEVICE) == {}


def test_a_code_grows_old(store, client):
    """After its minutes it is none of ours any more."""
    late = new_code()
    store.invite(digest_of(late), -1)
    assert hand_in(client, late).status_code == 403


def test_a_code_is_read_as_people_write_it():
    """Small letters, other groups, and letters that look like digits."""
    assert digest_of("k7qx-9m2p-0123-abcd") == digest_of("K7QX 9M2P OI23 ABCD".replace("I", "1"))
    codes = {new_code() for _ in range(100)}
    assert len(codes) == 100
    assert not any(letter in code for code in codes for letter in "ILOU")


def test_the_command_prints_a_code_that_the_running_server_takes(start_server, tmp_path):
    """Beside a server that runs on the same store; only a hash of it is kept."""
    with start_server() as (_, url):
        store = f"sqlite:///{tmp_path}/a.db"
        command = [sys.executable, "-m", "kiosk.server", "invite", "--store", store]
        made = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert made.encode() not in (tmp_path / "a.db").read_bytes()
        import urllib.request

        body = json.dumps({"key": KEY, "code": made}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/devices/{DEVICE}/keys/1", body, headers)
        with urllib.request.urlopen(request, timeout=20) as reply:
            assert json.load(reply) == {"D1": DEVICE, "K1": "1"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--store", "sqlite:////nowhere/a.db"], "expected the file of a server"),
        (["--store", "sqlite:///a.db", "--minutes", "0"], "--minutes: expected"),
    ],
)
def test_a_wrong_invitation_is_named(options, told):
    """What was expected, what came; nothing is made."""
    command = [sys.executable, "-m", "kiosk.server", "invite", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_store_of_the_version_before_is_taken_over(tmp_path, clock):
    """With its keys; from then on it takes invitations."""
    path = tmp_path / "a.db"
    store = Store(path, clock=clock)
    store.register_key(DEVICE, "1", bytes(range(32)))
    store.close()
    old = sqlite3.connect(path)
    old.executescript("DROP TABLE invitation; PRAGMA user_version = 2;")
    old.close()
    store = Store(path, clock=clock)
    store.invite(digest_of("K7QX-9M2P-4TRD-0001"), 60)
    assert store.keys(DEVICE) == {"1": bytes(range(32))}
    store.close()
