"""What the server takes in of how a kiosk stands, and who may see it."""

import pytest

from kiosk.types import Stamp, Trust
from kiosk.wire.heartbeat import Standing, write
from kiosk.wire.signing import Signer

PATH = "/toon/heartbeat"
SIGNER = Signer("k-1", bytes(range(32)))


def body(device, signer=None, queue=3):
    now = Stamp(1_767_323_000_000, 1, "boot", Trust.SYNCED)
    standing = Standing("m-192", "1.2.3", "ab:17", queue, 60, ["ab:4"], "running")
    return write(device, now, standing, signer)


def test_the_last_of_each_kiosk_is_shown(client):
    """The newest replaces the one before; signatures and keys are not shown."""
    for queue in (3, 1):
        assert client.post(PATH, content=body("d-1", queue=queue)).json() == {"S1": "ok"}
    client.post(PATH, content=body("d-2"))
    shown = client.get("/devices").json()
    assert [(one["D1"], one["QUEUE"]) for one in shown] == [("d-1", 1), ("d-2", 3)]
    assert shown[0]["QUARANTINE"] == ["ab:4"]
    assert shown[0]["heard_ms"] == 1_767_323_045_678
    assert not {"K1", "SIG1"} & set(shown[0])


def test_a_device_with_a_key_must_sign(client):
    """Unsigned, with another key or with one field changed: 401, and nothing is taken in."""
    path = "/devices/d-1/keys/k-1"
    client.put(path, json={"key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="})
    signed = body("d-1", SIGNER)
    for wrong in (body("d-1"), signed.replace(b'"QUEUE":3', b'"QUEUE":0')):
        assert client.post(PATH, content=wrong).status_code == 401
    assert client.get("/devices").json() == []
    assert client.post(PATH, content=signed).status_code == 200


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"D1": 1}', b"\xff"])
def test_what_does_not_check_is_refused(client, content):
    """400 with the field and what was expected."""
    reply = client.post(PATH, content=content)
    assert reply.status_code == 400
    assert "expected" in reply.json()["error"]
