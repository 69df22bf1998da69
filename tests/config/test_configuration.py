"""One file, every mistake told at once, and examples that load."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from kiosk.address import is_loopback
from kiosk.config import (
    Camera,
    Replay,
    Settings,
    check,
    load,
    signed_receipts_required,
)
from kiosk.control import socket_path
from kiosk.errors import ConfigError
from kiosk.joint import MAX_RUNTIME_DIR

LEAST = '[server]\nurl = "https://a.example"\n'


def problems(text):
    with pytest.raises(ConfigError) as caught:
        check(tomllib.loads(text), "test.toml")
    return caught.value.problems


def test_every_mistake_is_told_at_once():
    """Wrong type, unknown key, value out of range and a missing key, each with what is allowed."""
    told = problems(
        '[server]\nread_timeout_s = 1e9\n[camera]\nsource = "webcam"\nwidht = 5\nheight = "x"\n'
        '[recognition]\nthreshold = "high"\n'
    )
    assert len(told) == 6
    text = "\n".join(told)
    assert "server.url: missing" in text
    assert (
        "server.read_timeout_s = 1000000000.0: expected float at least 0.1, at most 300.0" in text
    )
    assert "camera.source = 'webcam': allowed: 'picamera2', 'v4l2', 'replay'" in text
    assert "camera.widht: unknown key; did you mean width?" in text
    assert "camera.height = 'x': expected int at least 64" in text
    assert "recognition.threshold = 'high': expected float" in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[server]\nurl = "http://pay.example"\n', "allow_plain_http"),
        (LEAST + 'client_cert_file = "x"\n', "both or neither"),
        (LEAST + "require_signed_receipts = true\n", "key_id"),
        (LEAST + 'key_id = "k"\naccept_plain_receipts = true\n', "cannot sign"),
        (LEAST + '[camera]\nsource = "replay"\n', "camera.replay"),
        (LEAST + '[camera]\nsource = "v4l2"\n', "camera.device"),
        (LEAST + "[recognition]\nframes_to_agree = 9\n", "frames_to_give_up"),
        (LEAST + "[recognition]\nmin_quality = true\n", "min_quality"),
        ("server = 3\n", "server: expected a table"),
        ("[server]\nurl = 5\n", "server.url = 5"),
    ],
)
def test_mistakes_between_keys(text, told):
    """What no single key shows is told too."""
    assert told in "\n".join(problems(text))


def test_mistakes_between_keys_are_told_beside_others():
    """A rule is judged as soon as its own keys are right, whatever else the file gets wrong."""
    told = problems(
        '[server]\nurl = "http://10.0.0.1"\nclient_cert_file = "a"\nbackoff_cap_s = 1.0\n'
        'backoff_base_s = 2.0\n[camera]\nsource = "v4l2"\nframes_per_s = "x"\n'
        "[recognition]\nframes_to_agree = 9\nframes_to_give_up = true\n"
    )
    text = "\n".join(told)
    for key in ("allow_plain_http", "both or neither", "backoff_cap_s", "camera.device"):
        assert key in text
    assert "camera.frames_per_s = 'x'" in text
    # One of its two keys cannot be read: nothing is said about the other.
    assert len([line for line in told if line.startswith("recognition.")]) == 1


def test_files_that_are_not_there_are_told_where_asked(tmp_path):
    """check-config names each one beside every other mistake; the daemon starts without them."""
    path = tmp_path / "kiosk.toml"
    text = LEAST + 'ca_file = "/no/ca"\nclient_cert_file = "/no/c"\nclient_key_file = "/no/k"\n'
    path.write_text(text)
    load(path)
    path.write_text(text + "read_timeout_s = true\n")
    with pytest.raises(ConfigError) as caught:
        load(path, files=True)
    told = "\n".join(caught.value.problems)
    for key in ("ca_file = '/no/ca'", "client_cert_file = '/no/c'", "client_key_file = '/no/k'"):
        assert f"server.{key}: expected a PEM file, there is none" in told
    assert "server.read_timeout_s = True" in told


@pytest.mark.parametrize("length", [94, 95, 150])
def test_a_socket_has_room_for_so_much(tmp_path, length):
    """A runtime folder whose socket could not be bound is told by key; the longest one can be."""
    folder = "/" + "r" * (length - 1)
    text = LEAST + f'[paths]\nruntime_dir = "{folder}"\n'
    if length > MAX_RUNTIME_DIR:
        assert "paths.runtime_dir: expected at most 94 bytes" in problems(text)[0]
        return
    assert len(str(socket_path(check(tomllib.loads(text), "t").paths.runtime_dir))) == 107


@pytest.mark.parametrize(
    "text",
    [
        '[paths]\nstate_dir = "/tmp/a\\u0000b"\n',
        '[paths]\nruntime_dir = "/tmp/a\\u0000b"\n',
        'ca_file = "a\\u0000"\n',
        '[models]\nextra_dirs = ["a", "\\u0000"]\n',
        '[[camera.replay]]\npath = "\\u0000"\n',
    ],
)
def test_no_path_holds_a_nul(text):
    """No file has such a name, and the system's own complaint names no key."""
    (told,) = problems(LEAST + text)
    assert "expected text without a NUL" in told


def test_a_value_is_shown_in_part_when_it_is_long():
    """A line for a person stays one."""
    (told,) = problems(LEAST + f'[device]\nlabel = "{"x" * 100_000}"\n')
    assert len(told) < 400


def test_examples_load(repository):
    """Every example file in deploy/ checks."""
    examples = sorted((repository / "deploy").glob("*.toml"))
    assert len(examples) >= 2
    for example in examples:
        load(example)


def test_the_example_shows_every_key_with_its_default(repository):
    """The commented example cannot fall behind the structures."""
    document = tomllib.loads((repository / "deploy" / "kiosk.example.toml").read_text())
    defaults = check({"server": {"url": "https://attendance.example.org"}}, "defaults")
    for name in Settings.__struct_fields__:
        section = getattr(defaults, name)
        shown = document[name]
        expected = {k: getattr(section, k) for k in section.__struct_fields__ if k != "replay"}
        assert {k: tuple(v) if isinstance(v, list) else v for k, v in shown.items()} == expected


def test_unreadable_files_are_named(tmp_path):
    """Missing files and files that are no TOML are one line each."""
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[server\n")
    with pytest.raises(ConfigError, match="not TOML"):
        load(broken)
    broken.write_text("a = " + "[" * 20_000 + "]" * 20_000)
    with pytest.raises(ConfigError, match="nested too deeply"):
        load(broken)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:80/x", True),
        ("http://localhost", True),
        ("http://[::1]:8", True),
        ("http://127.evil.example", False),
        ("http://localhost@evil.example", False),
        ("http://10.0.0.1", False),
        ("http://evil.example?@127.0.0.1", False),
        ("http://evil.example#@127.0.0.1", False),
        ("http://evil.example\\@127.0.0.1", False),
        ("http://127.999.1.1", False),
        ("http://[::1", False),
    ],
)
def test_loopback(url, expected):
    """Only this machine itself is loopback, whatever the name looks like."""
    assert is_loopback(url) is expected


def test_signed_receipts_follow_the_key():
    """With a key id receipts must be signed unless the file says otherwise."""
    with_key = check(tomllib.loads(LEAST + 'key_id = "k1"\n'), "t").server
    without = check(tomllib.loads(LEAST), "t").server
    off = check(tomllib.loads(LEAST + 'key_id = "k1"\nrequire_signed_receipts = false\n'), "t")
    assert signed_receipts_required(with_key)
    assert not signed_receipts_required(without)
    assert not signed_receipts_required(off.server)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://kiosk:hunter2@pay.example", "no user and password"),
        ("https://kiosk@pay.example/api", "no user and password"),
        ("http://kiosk:hunter2@10.0.0.1", "no user and password"),
        ("https://kiosk:hunter2@pay.example/a b", "expected a URL"),
        ("ftp://kiosk:hunter2@pay.example", "expected a URL"),
        ("https://kiosk:hun/hunter2@pay.example", "host and a port"),
        ("https://pay.example/api?x=1", "no query"),
        ("https://pay.example?x", "no query"),
        ("https://pay.example/api#f", "no fragment"),
        ("https://pay.example:0", "port of 1 to 65535"),
        ("https://pay.example:99999", "port of 1 to 65535"),
        ("https://pay.example:x", "port of 1 to 65535"),
        ("https://:443", "host"),
        ("https://[::1", "host"),
        ("https://pay.example\\\\x", "no user"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url, told):
    """Paths are added at its end, and what stands in it gets into the journal: no password."""
    text = "\n".join(problems(f'[server]\nurl = "{url}"\n'))
    assert "server.url" in text
    assert told in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "url", ["https://a.example", "https://a.example:8443/api/v1", "https://[::1]:1/"]
)
def test_a_plain_url_is_taken(url):
    """Host, port and path."""
    assert check({"server": {"url": url}}, "t").server.url == url


def documented(heading):
    """Key and default, None where none is written, of the table that follows these words."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page[page.index(heading) :].split("| key | default | meaning |\n", 1)[1]
    keys = {}
    for row in table.split("\n\n")[0].splitlines()[1:]:
        names, defaults = (re.findall(r"`([^`]*)`", cell) for cell in row.split("|")[1:3])
        keys |= zip(names, defaults or [None] * len(names), strict=True)
    return keys


@pytest.mark.parametrize(
    ("heading", "struct"),
    [("## The keys of `[camera]`", Camera), ("Each `[[camera.replay]]`", Replay)],
)
def test_the_camera_keys_are_documented(heading, struct):
    """docs/operations.md has every key there is, no other one, and its default."""
    written = documented(heading)
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    assert list(written) == list(fields)
    for key, text in written.items():
        if fields[key].default is msgspec.NODEFAULT:
            assert text is None
        else:
            default = fields[key].default
            assert tomllib.loads(f"x = {text}")["x"] == (
                list(default) if default == () else default
            )
