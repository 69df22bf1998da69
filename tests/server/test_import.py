"""`kiosk-server import`: signed messages are recorded once, whatever is wrong with some lines."""

import base64
import json

import pytest

from kiosk.server.__main__ import main
from kiosk.server.tables import Filter
from kiosk.wire.signing import Signer

KEY = bytes(range(32))
SIGNER = Signer("k1", KEY)


@pytest.fixture
def known(store, kiosk):
    """A store that knows the kiosk's key."""
    store.register_key(kiosk.device, "k1", KEY)
    return store


@pytest.fixture
def take(tmp_path, capsys):
    """A function that imports lines: exit status, counts, what was said of single lines."""

    def run(lines, *options):
        file = tmp_path / "events.jsonl"
        file.write_bytes(b"".join(line + b"\n" for line in lines))
        capsys.readouterr()
        url = f"sqlite:///{tmp_path}/attendance.db"
        status = main(["import", str(file), "--store", url, "--json", *options])
        said = capsys.readouterr()
        return status, json.loads(said.out), said.err.splitlines()

    return run


def counted(ok=0, duplicate=0, rejected=0, bad=0):
    return {"ok": ok, "duplicate": duplicate, "rejected": rejected, "bad": bad}


def recorded(store):
    rows = store.attendance(Filter(), limit=1000)
    return sorted(row["event_id"] for row in rows)


def test_importing_twice_changes_nothing(known, kiosk, take):
    """The first time all are recorded, the second time all are duplicates: the same records."""
    lines = [kiosk.body(1, number, signer=SIGNER) for number in range(1, 251)]
    assert take(lines) == (0, counted(ok=250), [])
    before = known.attendance(Filter(), limit=1000)
    assert take(lines) == (0, counted(duplicate=250), [])
    assert known.attendance(Filter(), limit=1000) == before
    assert len(before) == 250


def test_what_came_over_the_network_is_a_duplicate_and_the_other_way(known, kiosk, take, client):
    """Whichever way an event comes first, it is recorded once."""
    bodies = [kiosk.body(1, number, signer=SIGNER) for number in (1, 2)]
    assert client.post("/toon/attendance", content=bodies[0]).json()["S1"] == "ok"
    assert take(bodies)[1] == counted(ok=1, duplicate=1)
    assert client.post("/toon/attendance", content=bodies[1]).json()["S1"] == "duplicate"


def test_bad_lines_are_named_and_the_others_taken(known, kiosk, take):
    """Forged, unsigned, of an unknown kiosk, no JSON, far too long: each by its number."""
    lines = [
        kiosk.body(1, 1, signer=SIGNER),
        kiosk.body(1, 2, signer=Signer("k1", b"x" * 32)),
        kiosk.body(1, 3),
        kiosk.body(1, 4, signer=SIGNER, changes={"D1": "a-stranger"}),
        b"no JSON",
        b"",
        b"x" * 2_500_000,
        kiosk.body(1, 8, signer=SIGNER),
    ]
    status, counts, said = take(lines)
    assert (status, counts) == (1, counted(ok=2, bad=5))
    assert [line.split(":")[0] for line in said] == [f"line {n}" for n in (2, 3, 4, 5, 7)]
    assert len(recorded(known)) == 2


def test_a_known_id_with_another_body_is_rejected_and_alarmed(known, kiosk, take):
    """What is recorded stays as it is, and somebody is told."""
    take([kiosk.body(1, 1, signer=SIGNER)])
    status, counts, said = take([kiosk.body(2, 1, signer=SIGNER)])
    assert (status, counts) == (1, counted(rejected=1))
    assert any("line 1" in line and "another body" in line for line in said)
    assert len(known.alarms()) == 1


def test_a_malformed_message_is_rejected_with_its_reason(known, kiosk, take):
    """Proven, but unreadable: named, alarmed, not recorded."""
    fields = json.loads(kiosk.body(1, 1)) | {"TS1": "yesterday", "K1": "k1"}
    fields["SIG1"] = SIGNER.sign_message(fields)
    status, counts, said = take([json.dumps(fields).encode()])
    assert (status, counts) == (1, counted(rejected=1))
    assert any("TS1" in line for line in said)
    assert recorded(known) == []


def test_unsigned_messages_are_taken_only_when_asked(store, kiosk, take):
    """Anybody can write an unsigned line: the operator must vouch, for a device with a key too.

    What it recorded before it had one would be locked out for good.
    """
    lines = [kiosk.body(1, 1)]
    assert take(lines)[:2] == (1, counted(bad=1))
    assert take(lines, "--allow-unsigned")[:2] == (0, counted(ok=1))
    store.register_key(kiosk.device, "k1", KEY)
    later = [kiosk.body(1, 2)]
    status, counts, said = take(later)
    assert (status, counts) == (1, counted(bad=1))
    assert "--allow-unsigned" in said[0]
    assert take(later, "--allow-unsigned")[:2] == (0, counted(ok=1))


def test_what_a_kiosk_froze_before_its_key_ends_once_it_is_imported(client, kiosk, store):
    """Word for word on record it is a duplicate; changed, or never recorded, it proves nothing."""
    body, other = kiosk.body(1, 1), kiosk.body(1, 2)
    assert client.post("/toon/attendance", content=body).json()["S1"] == "ok"
    store.register_key(kiosk.device, "k1", KEY)
    assert client.post("/toon/attendance", content=body).json()["S1"] == "duplicate"
    changed = body.replace(b'"anna"', b'"bob2"')
    assert changed != body
    for refused in (other, changed):
        assert client.post("/toon/attendance", content=refused).status_code == 401


@pytest.mark.parametrize("missing", ["file", "store"])
def test_what_is_not_there_is_named_and_nothing_made(tmp_path, store, capsys, missing):
    """A mistyped path is the caller's mistake; an empty store would know no kiosk."""
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"")
    url = f"sqlite:///{tmp_path}/attendance.db"
    if missing == "file":
        file = tmp_path / "other.jsonl"
    else:
        url = f"sqlite:///{tmp_path}/other.db"
    assert main(["import", str(file), "--store", url]) == 2
    assert "other." in capsys.readouterr().err
    assert not (tmp_path / "other.db").exists()


def test_the_counts_are_told_in_words_too(known, kiosk, tmp_path, capsys):
    """One line for a person."""
    file = tmp_path / "events.jsonl"
    file.write_bytes(kiosk.body(1, 1, signer=SIGNER))
    assert main(["import", str(file), "--store", f"sqlite:///{tmp_path}/attendance.db"]) == 0
    assert capsys.readouterr().out == "1 ok, 0 duplicate, 0 rejected, 0 bad\n"


def test_a_running_server_and_an_import_share_the_store(start_server, kiosk, tmp_path, take):
    """The file is the server's own while it serves; both go on."""
    import urllib.request

    with start_server() as (_, url):
        document = json.dumps({"key": base64.b64encode(KEY).decode()}).encode()
        request = urllib.request.Request(
            f"{url}/devices/{kiosk.device}/keys/k1",
            document,
            {"Content-Type": "application/json"},
            method="PUT",
        )
        urllib.request.urlopen(request, timeout=60).close()
        (tmp_path / "attendance.db").symlink_to(tmp_path / "a.db")
        assert take([kiosk.body(1, 1, signer=SIGNER)])[:2] == (0, counted(ok=1))
        with urllib.request.urlopen(f"{url}/attendance", timeout=60) as reply:
            assert len(json.load(reply)["attendance"]) == 1
