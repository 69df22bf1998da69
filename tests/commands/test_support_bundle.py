"""`kiosk doctor --bundle`: everything that helps, and nothing of anybody."""

import base64
import json
import os
import tarfile

import numpy as np
import pytest

from kiosk.bundle import Censor
from kiosk.config import load
from kiosk.decide.gallery import Gallery, Template
from kiosk.state import open_state, pack_vector
from kiosk.types import Embedding

NAME = "Zuzana Planted"
SPACE = "mobilefacenet-192-4pt"


@pytest.fixture
def vector():
    """An embedding."""
    values = np.random.default_rng(1).normal(size=192).astype(np.float32)
    return values / np.linalg.norm(values)


@pytest.fixture
def secrets(config, vector, monkeypatch, tmp_path):
    """A state with somebody enrolled, and a journal into which everything has leaked."""
    settings = load(config())
    state = open_state(settings)
    state.save_gallery(Gallery([Template(NAME, Embedding(vector, SPACE), "a.jpg")]))
    key = (state.folder / "device.secret").read_bytes()
    state.close()
    planted = {
        "name": NAME,
        "embedding": pack_vector(vector),
        "hex": key.hex(),
        "base64": base64.b64encode(key).decode(),
        "urlsafe": base64.urlsafe_b64encode(key).decode(),
        "token": "s3cret_" + "Ab9" * 16,
    }
    entries = [
        {"MESSAGE": f'visit.recorded employee="{NAME}" seq=1:7', "KIOSK_EMPLOYEE": NAME},
        {"MESSAGE": f"hello {NAME}, good day", "KIOSK_SEQ": "1:8"},
        *(
            {"MESSAGE": f"leak.leak what={value}", "KIOSK_WHAT": value}
            for value in planted.values()
        ),
    ]
    journal = tmp_path / "bin" / "journalctl"
    journal.parent.mkdir()
    lines = "\n".join(json.dumps(entry) for entry in entries)
    journal.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nnot json\nEND\n")
    journal.chmod(0o755)
    monkeypatch.setenv("PATH", f"{journal.parent}:{os.environ['PATH']}")
    return planted


@pytest.fixture
def bundle(kiosk, config, tmp_path):
    """A function that writes one: its texts by name."""

    def write(name="support.tar.gz"):
        path = tmp_path / name
        _, out, _ = kiosk("doctor", "--config", config(), "--bundle", path)
        assert str(path) in out
        assert path.stat().st_mode & 0o777 == 0o600
        with tarfile.open(path) as tar:
            return {
                member.name.removeprefix("kiosk-support/"): tar.extractfile(member).read().decode()
                for member in tar
            }

    return write


def test_nothing_of_anybody_is_in_it(secrets, bundle, monkeypatch):
    """What was planted is found in a bundle without the censor, and in none with it."""
    clean = "".join(bundle().values())
    assert not [what for what, planted in secrets.items() if planted in clean]
    monkeypatch.setattr(Censor, "document", lambda _, document: document)
    leaking = "".join(bundle("without.tar.gz").values())
    assert [what for what, planted in secrets.items() if planted in leaking] == list(secrets)


def test_what_helps_is_in_it(secrets, bundle):
    """Findings, settings, machine, and the journal with its facts."""
    parts = bundle()
    assert set(parts) == {
        "README.txt",
        "findings.json",
        "system.json",
        "config.json",
        "status.json",
        "journal.jsonl",
    }
    assert any(found["what"] == "software" for found in json.loads(parts["findings.json"]))
    assert json.loads(parts["config.json"])["models"]["threads"] == 1
    assert "error" in json.loads(parts["status.json"])
    lines = [json.loads(line) for line in parts["journal.jsonl"].splitlines()]
    assert lines[0]["message"] == "visit.recorded employee=[left out] seq=1:7"
    assert lines[0]["kiosk_employee"] == "[left out]"
    assert lines[1]["message"] == "hello [left out], good day"
    assert lines[-1]["error"] == "journalctl: expected a JSON object, got another line"


def test_it_is_written_where_there_is_no_journal(bundle, monkeypatch, tmp_path):
    """Then it says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "journalctl" in json.loads(bundle()["journal.jsonl"])["error"]


def test_it_is_written_without_a_configuration(kiosk, tmp_path):
    """A file that does not check is why somebody asks for help: the findings tell it."""
    broken = tmp_path / "broken.toml"
    broken.write_text("[server]\nurl = 1\n")
    path = tmp_path / "support.tar.gz"
    status, _, _ = kiosk("doctor", "--config", broken, "--bundle", path)
    assert status == 1
    with tarfile.open(path) as tar:
        findings = json.load(tar.extractfile("kiosk-support/findings.json"))
    assert any("server.url" in found["found"] for found in findings)


def test_no_file_is_written_over(kiosk, config, tmp_path):
    """What is there already stays as it is."""
    path = tmp_path / "support.tar.gz"
    path.write_text("mine")
    status, _, error = kiosk("doctor", "--config", config(), "--bundle", path)
    assert status == 2
    assert "expected a new file" in error
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "seq=3:17 in 42 ms",
        "0198c0de-2fdd-756b-98af-c0c3557d1398",
        "/var/lib/kiosk/a/folder/with/a/name/that/is/rather/long/outbox.db",
        "mobilefacenet-int8-nhwc-u8",
    ],
)
def test_what_is_nobodys_stays(text):
    """Counts, ids, paths and models are what a helper needs; somebody called 42 takes none away."""
    assert Censor(("42", "Ann")).text(text) == text
