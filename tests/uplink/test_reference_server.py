"""The kiosk's sending against the reference server, as a program of its own."""

import base64
import json
import random
import subprocess
import sys
import threading
import urllib.request

import pytest

from kiosk.clock import SystemClock
from kiosk.config import Server
from kiosk.outbox.store import Outbox
from kiosk.server.__main__ import main as server_main
from kiosk.types import ReceiptStatus
from kiosk.uplink.belief import Belief
from kiosk.uplink.post import Poster
from kiosk.uplink.sender import Sender
from kiosk.vault import Vault
from kiosk.wire.signing import Signer

HANG_S = 60
DEVICE = "d-1"


class Site:
    """A queue of a kiosk that signs, and the reference server, which knows its key."""

    def __init__(self, folder, url):
        self.url, self.clock, self.stop = url, SystemClock(), threading.Event()
        self.vault = Vault(bytes(range(32)))
        self.signer = Signer("k1", self.vault.sign_key)
        self.answers = []
        self.outbox = Outbox(
            folder / "outbox.db",
            vault=self.vault,
            device_id=DEVICE,
            signer=self.signer,
            clock=self.clock,
        )
        self.outbox.start()
        key = {"key": base64.b64encode(self.vault.sign_key).decode()}
        self.ask(f"/devices/{DEVICE}/keys/k1", key)

    def ask(self, path, document=None):
        data = None if document is None else json.dumps(document).encode()
        headers = {"Content-Type": "application/json"}
        method = "GET" if data is None else "PUT"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=HANG_S) as reply:
            return json.load(reply)

    def send_all(self):
        settings = Server(url=self.url, key_id="k1")
        poster = Poster(settings, clock=self.clock)
        expected = len(self.answers) + self.outbox.status().pending

        def settled(envelope, receipt):
            self.answers.append(receipt.status)
            if len(self.answers) == expected:
                self.stop.set()

        sender = Sender(
            self.outbox,
            poster,
            Belief(settings, lambda key_id: Signer(key_id, self.vault.sign_key)).read,
            clock=self.clock,
            rng=random.Random(1),
            server=settings,
            on_settled=settled,
            clock_is_kept=False,
            beat=lambda *_: None,
        )
        sender.run(self.stop)
        self.stop.clear()
        poster.close()


@pytest.fixture
def site(tmp_path):
    """A site with a server that runs."""
    command = [sys.executable, "-m", "kiosk.server", "--listen", "127.0.0.1:0", "--store"]
    # A pipe that nobody reads would stop the server in the end.
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"sqlite:///{tmp_path}/a.db"], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on "), (tmp_path / "server.log").read_text()
        one = Site(tmp_path, line.removeprefix("listening on ").strip())
        yield one
        one.outbox.close(HANG_S)
    finally:
        process.terminate()
        process.communicate(timeout=HANG_S)


def recorded(site):
    return [row["seq"] for row in reversed(site.ask("/attendance?limit=1000")["attendance"])]


def test_a_queue_arrives_in_batches_once_and_in_order(site, make_punch):
    """250 events in three requests: each recorded once, oldest first, each receipt believed."""
    seqs = [site.outbox.put(make_punch()) for _ in range(250)]
    site.send_all()
    assert site.answers == [ReceiptStatus.OK] * 250
    assert recorded(site) == seqs
    assert site.outbox.status().settled == 250


def test_what_was_imported_and_is_then_sent_is_recorded_once(site, make_punch, tmp_path, capsys):
    """The stick and the network may both bring an event: the second is a duplicate."""
    seqs = [site.outbox.put(make_punch()) for _ in range(20)]
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(one.body + b"\n" for one in site.outbox.export(100, beyond=0)))
    assert server_main(["import", str(file), "--store", f"sqlite:///{tmp_path}/a.db"]) == 0
    assert capsys.readouterr().out.startswith("20 ok")
    seqs += [site.outbox.put(make_punch()) for _ in range(5)]
    site.send_all()
    assert site.answers == [ReceiptStatus.DUPLICATE] * 20 + [ReceiptStatus.OK] * 5
    assert recorded(site) == seqs
