"""What an operator does about the queue and the gallery: with the daemon, and without one."""

import contextlib
import http.server
import json
import random
import threading

import numpy as np
import pytest

from kiosk.clock import SystemClock
from kiosk.config import load
from kiosk.outbox.store import Outbox
from kiosk.state import open_state
from kiosk.types import Embedding, Punch
from kiosk.wire.eventid import new_event_id


@contextlib.contextmanager
def queue_of(daemon):
    """The outbox of a daemon that does not run, and its state."""
    state = open_state(load(daemon.path))
    outbox = Outbox(
        state.outbox_path,
        vault=state.vault,
        device_id=state.device,
        signer=state.signer,
        clock=SystemClock(),
    )
    outbox.start()
    yield outbox, state
    outbox.close(10.0)
    state.close()


def punch(number):
    """An event of Anna's."""
    face = Embedding.of(np.random.default_rng(1).standard_normal(192), "test-192")
    now = SystemClock().now()
    event_id = new_event_id(now.utc_ms, random.Random(number))
    return Punch(event_id, "anna", None, face, 0.9, 0.8, None, now)


@pytest.fixture
def set_aside(daemon):
    """Two events in quarantine; their ids and numbers."""
    made = []
    with queue_of(daemon) as (outbox, _):
        for number in (1, 2):
            one = punch(number)
            seq = outbox.put(one)
            outbox.quarantine(one.event_id, f"reason {number}")
            made.append((one.event_id, seq))
    return made


class Impostor(http.server.BaseHTTPRequestHandler):
    """Answers in turn as a portal, a proxy and a server without the key; at last as the server."""

    page = b"<html>400 No required SSL certificate was sent</html>"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(body)
        self.server.seen.append(body)
        receipt = {"A1": message["A1"], "S1": "ok"}
        sig2 = self.server.signer.sign_receipt(message["A1"], "ok", message["SIG1"])
        status, reply = {
            1: (200, self.page),
            2: (400, self.page),
            3: (200, json.dumps(receipt).encode()),
            4: (422, json.dumps(receipt | {"S1": "rejected"}).encode()),
        }.get(len(self.server.seen), (200, json.dumps(receipt | {"SIG2": sig2}).encode()))
        self.send_response(status)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def impostor():
    """A server on loopback that becomes honest at its fifth answer."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Impostor) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_daemon_believes_only_the_signed_receipt(daemon, impostor):
    """With a key neither a page nor an unsigned word ends an event or sets it aside."""
    daemon.write(f'http://127.0.0.1:{impostor.server_port}"\nkey_id = "k1')
    with queue_of(daemon) as (outbox, state):
        outbox.put(punch(1))
        impostor.signer = state.signer
    daemon.start()
    daemon.await_said("outbox.settled")
    assert daemon.json("outbox", "status")["quarantined"] == 0
    assert daemon.stop() == 0
    assert len(impostor.seen) == 5
    assert len(set(impostor.seen)) == 1


@pytest.mark.parametrize("running", [True, False])
def test_what_was_set_aside_is_listed_and_tried_again(daemon, set_aside, running):
    """The same commands through the socket and on the files: list, one again, all again."""
    if running:
        daemon.start()
    (first, seq), (second, _) = set_aside
    listed = daemon.json("outbox", "quarantine")
    assert listed["quarantined"] == 2
    event = listed["events"][0]
    assert (event["event_id"], event["seq"], event["reason"]) == (first, seq, "reason 1")
    assert event["aside_ms"] >= event["seen_ms"]
    assert "reason 2" in daemon.cli("outbox", "quarantine").stdout
    assert daemon.json("outbox", "retry", second) == {"queued": 1}
    wrong = daemon.cli("outbox", "retry", second)
    assert wrong.returncode == 2
    assert f"{second} is queued" in wrong.stderr
    assert daemon.cli("outbox", "retry").returncode == 2
    assert daemon.cli("outbox", "retry", "--all", first).returncode == 2
    assert daemon.json("outbox", "retry", "--all") == {"queued": 1}
    assert daemon.json("outbox", "status")["pending"] == 2
    assert daemon.json("outbox", "quarantine") == {"quarantined": 0, "events": []}
    if running:
        assert daemon.stop() == 0


@pytest.mark.parametrize("lost", ["device.id", "device.secret"])
def test_a_queue_of_a_lost_identity_is_not_opened(daemon, set_aside, lost):
    """Missing or another one: no start, one line with what to restore, nothing set aside."""
    path = daemon.folder / "state" / lost
    kept = path.read_bytes()
    path.unlink()
    done = daemon.cli("run")
    assert done.returncode == 1
    assert f"{lost} expected beside outbox.db" in done.stderr
    path.touch(mode=0o600)
    other = b"0b0e7a52-52a6-4f2c-9d6b-0e0d6f9a2f11\n" if lost == "device.id" else bytes(32)
    path.write_bytes(other)
    for command in (("run",), ("outbox", "status")):
        done = daemon.cli(*command)
        assert done.returncode == 1
        assert f"expected the {lost} that this queue was sealed with" in done.stderr
        assert "Traceback" not in done.stderr
    path.write_bytes(kept)
    assert daemon.json("outbox", "status")["quarantined"] == 2


def test_an_older_gallery_is_told_by_journal_status_and_doctor(daemon, people):
    """Somebody removed and put back from an old file: the kiosk works and says so everywhere."""
    sealed = daemon.folder / "state" / "gallery.sealed"
    assert daemon.cli("enrol", "obama", str(people / "obama.jpg")).returncode == 0
    older = sealed.read_bytes()
    assert daemon.cli("gallery", "remove", "obama").returncode == 0
    assert daemon.cli("doctor").returncode == 0
    sealed.write_bytes(older)
    daemon.start(wait_for="gallery.rolled_back")
    assert daemon.json("status")["gallery"].startswith("older than the one saved last")
    done = daemon.cli("doctor", "--json")
    assert done.returncode == 1
    (finding,) = [f for f in json.loads(done.stdout) if f["what"] == "gallery"]
    assert finding["verdict"] == "failed"
    assert daemon.stop() == 0


def test_a_name_that_is_no_text_is_refused_in_one_line(daemon, people):
    """Bytes that are no UTF-8 as a name: nobody is enrolled, and the line can be printed."""
    name = b"ann\xff".decode("utf-8", "surrogateescape")
    done = daemon.cli("enrol", name, str(people / "obama.jpg"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "a person's id: expected 1..200 characters" in done.stderr
    assert daemon.json("gallery", "list")["people"] == {}


def test_the_start_warns_of_what_the_configuration_gives_up(daemon):
    """Plain http to another machine and plain receipts are repeated at every start."""
    risky = 'url = "http://192.0.2.1:9"\nallow_plain_http = true\naccept_plain_receipts = true\n'
    text = daemon.path.read_text().replace('url = "http://127.0.0.1:9"\n', risky)
    daemon.path.write_text(text)
    daemon.start()
    said = "".join(daemon.said)
    assert "uplink.plain_http" in said
    assert "uplink.plain_receipts" in said
    assert daemon.stop() == 0
    daemon.write("http://127.0.0.1:9")
    daemon.start()
    assert "uplink.plain" not in "".join(daemon.said)
    assert daemon.stop() == 0
