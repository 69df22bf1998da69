"""`kiosk key show`: what the server must be told before a kiosk may sign."""

import base64
import json

import pytest

from kiosk.config import load
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
