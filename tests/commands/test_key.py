"""`kiosk key show`: what the server must be told before a kiosk may sign."""

import base64
import io
import json
import re
import subprocess
import sys

import pytest

from kiosk.clock import SystemClock
from kiosk.config import load
from kiosk.identity import recover_vault
from kiosk.server.inviting import digest_of, new_code
from kiosk.server.store import Store
from kiosk.state import open_state


@pytest.fixture
def named(config):
    """A configuration with a key id."""
    path = config()
    path.write_text(path.read_text().replace("[paths]", 'key_id = "k1"\n[paths]'))
    return path


@pytest.mark.parametrize("held", [False, True])
def test_the_sign_key_is_shown_whoever_holds_the_state(kiosk, named, held):
    """Device, key id and the very key that signs, alone on standard output; the warning beside."""
    state = open_state(load(named))
    expected = {
        "device": state.device,
        "key_id": "k1",
        "key": base64.b64encode(state.vault.sign_key).decode(),
    }
    if not held:
        state.close()
    status, out, err = kiosk("key", "show", "--config", named, "--json")
    assert (status, json.loads(out)) == (0, expected)
    assert "secret" in err
    status, out, _ = kiosk("key", "show", "--config", named)
    assert status == 0
    assert all(value in out for value in expected.values())
    if held:
        state.close()


def test_before_the_first_start_the_key_is_made(kiosk, named):
    """What is shown first is what the daemon then signs with."""
    _, out, _ = kiosk("key", "show", "--config", named, "--json")
    state = open_state(load(named))
    state.close()
    assert base64.b64decode(json.loads(out)["key"]) == state.vault.sign_key


@pytest.fixture
def handed_in(named, tmp_path):
    """A configuration for a server that runs, its URL, and a code that works."""
    store = Store(tmp_path / "a.db", clock=SystemClock())
    code = new_code()
    store.invite(digest_of(code), 60)
    command = [sys.executable, "-m", "kiosk.server", "--store", f"sqlite:///{tmp_path}/a.db"]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as server:
        url = server.stdout.readline().removeprefix("listening on ").strip()
        named.write_text(re.sub(r'url = ".*"', f'url = "{url}"', named.read_text()))
        yield named, store, code
        server.terminate()
    store.close()


def test_the_key_is_handed_in_for_a_code(kiosk, handed_in, monkeypatch):
    """The code on standard input, where no list of processes shows it; the key is not printed."""
    path, store, code = handed_in
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{code}\n"))
    status, out, err = kiosk("key", "register", "--config", path)
    assert (status, err) == (0, "")
    state = open_state(load(path))
    state.close()
    assert store.keys(state.device) == {"k1": state.vault.sign_key}
    assert base64.b64encode(state.vault.sign_key).decode() not in out
    assert "knows the key k1" in out


@pytest.mark.parametrize(
    ("given", "change", "told"),
    [
        ("\n", {}, "a code expected on standard input"),
        ("0000-0000-0000-0000\n", {}, "kiosk-server invite makes a new code"),
        ("x\n", {'key_id = "k1"': 'key_id = ""'}, "server.key_id: expected the id"),
        ("x\n", {"http://127.0.0.1:": "http://attendance.invalid:"}, "expected https"),
    ],
)
def test_a_key_that_cannot_be_handed_in(kiosk, handed_in, monkeypatch, given, change, told):
    """Each by name, and nothing is sent over a way that anybody reads."""
    path, *_ = handed_in
    text = path.read_text()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    if "invalid" in text:
        text = text.replace("[server]", "[server]\nallow_plain_http = true")
    path.write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    status, out, err = kiosk("key", "register", "--config", path)
    assert status in {1, 2}
    assert out == ""
    assert told in err


@pytest.mark.parametrize("held", [False, True])
def test_a_secret_that_others_could_read_is_not_shown(kiosk, named, held):
    """The rules for the file are the vault's, with a daemon and without."""
    state = open_state(load(named))
    (state.folder / "device.secret").chmod(0o644)
    if not held:
        state.close()
    status, out, err = kiosk("key", "show", "--config", named)
    assert (status, out) == (1, "")
    assert "0600" in err
    if held:
        state.close()


def test_without_a_key_id_it_is_said_that_nothing_is_signed(kiosk, config):
    """An empty server.key_id is null, and told."""
    status, out, err = kiosk("key", "show", "--config", config(), "--json")
    assert (status, json.loads(out)["key_id"]) == (0, None)
    assert "server.key_id is empty" in err


def test_the_secret_is_sealed_under_the_boards_key(kiosk, named, tmp_path, monkeypatch):
    """With the credential it works as before; without it the file opens nothing."""
    before = open_state(load(named))
    before.close()
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "kiosk.board-key").write_bytes(bytes(range(32)))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    status, out, err = kiosk("key", "wrap", "--config", named)
    assert status == 0
    assert "sealed under this board's key" in out
    assert "unused blocks" in err
    after = open_state(load(named))
    after.close()
    assert after.vault.sign_key == before.vault.sign_key
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    status, out, err = kiosk("key", "show", "--config", named)
    assert (status, out) == (1, "")
    assert "sealed under a board's key" in err


@pytest.mark.parametrize("command", [("wrap",), ("recovery", base64.b64encode(bytes(32)).decode())])
def test_keys_are_not_changed_under_a_running_daemon(kiosk, named, command):
    """Whoever holds the state is named."""
    state = open_state(load(named))
    status, _, err = kiosk("key", *command, "--config", named)
    assert status == 1
    assert "held by another process" in err
    state.close()


def test_a_recovery_key_is_made_once_and_opens_the_card(kiosk, named, tmp_path):
    """The public half at set-up, the private half years later on another machine."""
    private = tmp_path / "site.key"
    status, out, err = kiosk("key", "make-recovery", private)
    assert status == 0
    assert "keep it offline" in err
    assert private.stat().st_mode & 0o777 == 0o600
    assert kiosk("key", "recovery", out.strip(), "--config", named)[0] == 0
    state = open_state(load(named))
    state.close()
    recovered = recover_vault(state.folder, base64.b64decode(private.read_text()))
    assert recovered.sign_key == state.vault.sign_key
    status, _, err = kiosk("key", "make-recovery", private)
    assert status == 2
    assert "there is one already" in err


@pytest.mark.parametrize("public", ["", "AAAA", "not base64!", "A" * 44])
def test_what_is_no_public_key_is_refused(kiosk, named, public):
    """Named, before anything is written."""
    status, _, err = kiosk("key", "recovery", public, "--config", named)
    assert status == 2
    assert "PUBLIC: expected base64 of 32 bytes" in err
