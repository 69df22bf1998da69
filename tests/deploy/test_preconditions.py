"""What can be said of a deploy before it begins: its words, its files, and the machine it meets."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from board import checks, entrance
from board.layout import Layout
from sender import link, push
from sender.hosts import Host, host_named
from sender.refusal import DeployError

REPOSITORY = Path(__file__).parent.parent.parent
NOW = 2e9
BOARD = REPOSITORY / "deploy/board"


def told_by(name="pi.example", folder=Path("/nowhere"), **said):
    """How a host that is not taken is refused."""
    with pytest.raises(DeployError) as refused:
        host_named(name, folder, said)
    assert refused.value.hint
    return str(refused.value)


HOSTILE = [
    "-oProxyCommand=touch x",
    "a b",
    "a\nb",
    "a\n",
    "'; touch x; '",
    '"$(touch x)"',
    "$HOME",
    "`touch x`",
    "../x",
    "a/b",
    "a;b",
    "-",
    "pi@host",
    "host:22",
    "x" * 300,
    "хост",
    "\udcff",
]


@pytest.mark.parametrize("word", HOSTILE)
def test_a_host_and_a_user_are_plain_names(word, tmp_path):
    """Neither an option of ssh nor anything that a shell would read."""
    assert told_by(word).startswith("PI: expected a host's name or address, got ")
    (tmp_path / "pi.example.toml").write_text(f"address = {json.dumps(word)}", "utf-8", "replace")
    assert "expected" in told_by(folder=tmp_path)
    assert told_by(user=word).startswith("PI_USER: expected a user's name, got ")


@pytest.mark.parametrize("word", ["pi.local", "192.0.2.1", "fe80::1%eth0", "kiosk-1_a"])
def test_a_name_and_an_address_are_taken(word, tmp_path):
    """As people have them."""
    assert host_named(word, tmp_path, {}) == Host(word, word)


@pytest.mark.parametrize("word", ["0", "65536", "-1", "22.5", "x", "2 2", "-oX=y", "22;x", "1e9"])
def test_a_port_is_a_port(word):
    """Its range is said."""
    assert told_by(port=word).startswith("PI_PORT: expected 1..65535, got ")


@pytest.mark.parametrize("word", ["0", "0.9", "3601", "-1", "nan", "inf", "x", "60 s", "$(x)"])
def test_healthy_seconds_are_seconds(word):
    """Its range is said."""
    assert told_by(health_s=word).startswith("HEALTH_S: expected 1..3600 seconds, got ")


def test_what_is_said_goes_before_the_file(tmp_path):
    """The file's word holds where nothing is said."""
    text = 'address = "192.0.2.7"\nport = 2222\nhealth_s = 5\nconfig = "k.toml"\n'
    (tmp_path / "hall.toml").write_text(text)
    host = host_named("hall", tmp_path, {"port": "22", "user": ""})
    assert (host.address, host.port, host.health_s, host.user) == ("192.0.2.7", 22, 5, "pi")
    assert host.config == str(tmp_path / "k.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"port = ", "expected TOML, got: "),
        (b"\xff\xfe", "expected TOML, got: "),
        (
            b"prot = 22",
            "expected one of address, config, health_s, port, timezone, user, got 'prot'",
        ),
        (b'name = "x"', "got 'name'"),
        (b'port = "22"', "port: expected a whole number, got '22'"),
        (b"port = 22.5", "port: expected a whole number, got 22.5"),
        (b"port = false", "port: expected a whole number, got False"),
        (b"health_s = true", "health_s: expected a number, got True"),
        (b"user = 5", "user: expected text, got 5"),
        (b"user = [1]", "user: expected text, got [1]"),
        (b"port = 0", "PI_PORT: expected 1..65535, got 0"),
        (b"health_s = nan", "HEALTH_S: expected 1..3600 seconds, got nan"),
        (b'timezone = "--help"', "timezone: expected one like Europe/Vienna, got '--help'"),
        (b'timezone = "../../etc/passwd"', "timezone: expected one like"),
    ],
)
def test_a_hosts_file_that_is_wrong_is_named_with_what_is(tmp_path, text, told):
    """Which file, which key, what was expected; the example says the rest."""
    (tmp_path / "hall.toml").write_bytes(text)
    said = told_by("hall", tmp_path)
    assert told in said
    assert "deploy/hosts/example.toml" in said
    assert str(tmp_path / "hall.toml") in said or told[0] in "PHt"


def test_the_example_of_a_hosts_file_is_one():
    """Copied and renamed, it is taken."""
    host = host_named("example", REPOSITORY / "deploy/hosts", {})
    assert (host.address, host.timezone) == ("192.0.2.17", "Europe/Vienna")


MAKE = {
    "PI": [
        "-oProxyCommand=touch $M",
        "x; touch $M",
        "'; touch $M; '",
        '"; touch $M; "',
        "x\ntouch $M",
    ],
    "PI_USER": ["$$(touch $M)", "-oProxyCommand=touch $M"],
    "PI_PORT": ['"`touch $M`"'],
    "HEALTH_S": ["$(shell touch $M)"],
    "CONFIG": ['"; touch $M; "', "'$$(touch $M)'"],
    "CODE": ['"; touch $M; "', "$(shell touch $M)"],
}


@pytest.mark.parametrize(("name", "word"), [(name, word) for name in MAKE for word in MAKE[name]])
def test_what_is_said_to_make_is_no_command(name, word, tmp_path):
    """Whatever it holds, neither make nor a shell nor ssh does what it says."""
    mark = tmp_path / "mark"
    said = word.replace("$M", str(mark))
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho no ssh in this test >&2\nexit 255\n")
    ssh.chmod(0o755)
    words = ["PI=192.0.2.1", f"{name}={said}", "DIRTY=1", f"PYTHON={sys.executable}"]
    done = subprocess.run(
        ["make", "--silent", "--old-file=check-tools", "deploy", *words],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert not mark.exists()
    told = done.stdout + done.stderr
    assert "expected" in told or name == "CODE", told
    assert "Traceback" not in told


class Untouchable(push.Sender):
    """A sender whose Pi must not be asked anything."""

    def link(self, host):
        raise AssertionError("the Pi was asked")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "expected a file, got: No such file or directory"),
        ("folder", "expected a file, got: Is a directory"),
        (b"[server", "the configuration: expected TOML, got: "),
        (b"\xff\xfe", "the configuration: expected TOML, got: "),
    ],
)
def test_a_configuration_that_will_not_do_is_said_at_once(tmp_path, content, told):
    """Before the Pi is asked, let alone something built."""
    path = tmp_path / "kiosk.toml"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    sender = Untouchable(REPOSITORY, None, "anna", "desk")
    with pytest.raises(DeployError) as refused:
        push.deploy(sender, Host("pi", "pi", config=str(path)), lambda _: None)
    assert told in refused.value.what
    assert "copy deploy/kiosk.example.toml" in refused.value.hint


def facts(**others):
    """Of a Pi that nothing is wrong with."""
    known = {
        "board": "Raspberry Pi 5",
        "system": "Debian",
        "machine": "aarch64",
        "python": "3.13",
        "free_mb": 9000,
        "timezone": "UTC",
        "power": "good",
        "missing": [],
        "warnings": [],
        "utc": NOW,
    }
    return {**known, **others}


@pytest.mark.parametrize(
    ("offset_s", "told"),
    [
        (7200, "its clock is 2.0 h ahead of this machine's"),
        (-1800, "its clock is 0.5 h behind this machine's"),
        (-1e9, "its clock is 277777.8 h behind this machine's"),
        (200, None),
        (-200, None),
    ],
)
def test_a_clock_that_is_wrong_is_a_warning_with_its_hours(monkeypatch, offset_s, told):
    """Certificates hang on it; it keeps nobody from deploying."""
    said = []
    monkeypatch.setattr(push, "time", SimpleNamespace(time=lambda: NOW))
    push._tell(facts(utc=NOW + offset_s), Host("pi", "pi"), said.append)
    assert [line for line in said if "clock" in line] == ([f"warning: {told}"] if told else [])


def test_everything_that_is_missing_is_said_at_once():
    """Whoever mends it need not come back for the next."""
    missing = [{"what": f"{word} expected", "hint": f"mend {word}"} for word in ("one", "two")]
    with pytest.raises(DeployError) as refused:
        push._tell(facts(missing=missing), Host("pi", "pi"), lambda _: None)
    assert str(refused.value) == (
        "pi: one expected (mend one); two expected (mend two); nothing was changed"
    )


@pytest.fixture
def debian(monkeypatch, tmp_path):
    """A machine that nothing is wrong with, as far as it is asked; tests spoil one thing."""
    release = {"PRETTY_NAME": "Debian GNU/Linux 13 (trixie)", "VERSION_CODENAME": "trixie"}
    monkeypatch.setattr(checks, "_RUNNING", tmp_path)
    monkeypatch.setattr(checks, "_systemd", lambda: 257)
    monkeypatch.setattr(checks, "there", lambda name: name in checks._TOOLS)
    monkeypatch.setattr(checks, "_property", lambda name: {"NTPSynchronized": "yes"}.get(name, ""))
    monkeypatch.setattr(checks, "_cameras", lambda: ["/dev/video0"])
    monkeypatch.setattr(checks, "imports", lambda name: False)
    monkeypatch.setattr(checks.os, "geteuid", lambda: 0)
    monkeypatch.setattr(checks.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(checks.platform, "freedesktop_os_release", lambda: release)
    return Layout(tmp_path), release


def no_release():
    raise OSError("no file of that name")


SPOILT = {
    "32 bits": (
        lambda m, r, t: m.setattr(checks.platform, "machine", lambda: "armv7l"),
        "a 64-bit system expected, got armv7l",
    ),
    "32 bits under a 64-bit kernel": (
        lambda m, r, t: m.setattr(checks.sys, "maxsize", (1 << 31) - 1),
        "a 64-bit system expected, got aarch64 with 32 bits",
    ),
    "an old Debian": (
        lambda m, r, t: r.update(PRETTY_NAME="bullseye", VERSION_CODENAME="bullseye"),
        "Raspberry Pi OS bookworm or trixie expected, got bullseye",
    ),
    "no Debian": (
        lambda m, r, t: m.setattr(checks.platform, "freedesktop_os_release", no_release),
        "Raspberry Pi OS bookworm or trixie expected, got an unknown one",
    ),
    "no systemd": (
        lambda m, r, t: m.setattr(checks, "_RUNNING", t / "nowhere"),
        "systemd expected as the first process, it is not",
    ),
    "an old systemd": (
        lambda m, r, t: m.setattr(checks, "_systemd", lambda: 247),
        "systemd 252 or newer expected, got 247",
    ),
    "no root": (
        lambda m, r, t: m.setattr(checks.os, "geteuid", lambda: 1000),
        "root expected, got another user",
    ),
    "no tools": (
        lambda m, r, t: m.setattr(
            checks, "there", lambda name: name != "runuser" and name in checks._TOOLS
        ),
        "runuser expected, it is not there",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_machine_that_will_not_do_is_named_by_what_is_missing(
    debian, monkeypatch, tmp_path, what
):
    """One thing is wrong: that one is said, with what to do, and no other."""
    layout, release = debian
    spoil, told = SPOILT[what]
    assert checks.examine(layout).missing == []
    spoil(monkeypatch, release, tmp_path)
    (missing,) = checks.examine(layout).missing
    assert missing["what"].startswith(told)
    assert missing["hint"]


def test_a_machine_without_a_camera_or_with_a_weak_supply_is_warned_of(debian, monkeypatch):
    """Named, and no reason not to deploy."""
    layout, _ = debian
    assert checks.examine(layout).warnings == []
    monkeypatch.setattr(checks, "_cameras", list)
    monkeypatch.setattr(checks, "_power", lambda: "too weak")
    found = checks.examine(layout)
    assert found.missing == []
    assert found.warnings == [
        "the power supply is too weak (under-voltage): use the official one",
        "no camera was found",
    ]


def test_an_examination_changes_nothing(tmp_path):
    """Of whatever machine this is: it is looked at, and all of it can be told as JSON."""
    found = checks.examine(Layout(tmp_path))
    assert json.loads(json.dumps(found.document()))["python"]
    assert list(tmp_path.iterdir()) == []
    if not Path("/run/systemd/system").is_dir():
        assert any("first process" in one["what"] for one in found.missing)


def test_a_configuration_is_told_as_its_very_bytes(debian):
    """With the ends of its lines: the sender compares it with the one that was named."""
    layout, _ = debian
    layout.settings.parent.mkdir(parents=True)
    layout.settings.write_bytes(b"[server]\r\nurl = 'x'\r\n")
    assert checks.examine(layout).settings == "[server]\r\nurl = 'x'\r\n"


def test_a_person_of_the_kiosks_name_is_not_taken_for_it(debian, monkeypatch):
    """Whoever logs in has rights that no service should have, and an uninstall removes the user."""
    layout, _ = debian
    for uid, shell, told in ((990, "/usr/sbin/nologin", 0), (1000, "/bin/bash", 1)):
        user = SimpleNamespace(pw_uid=uid, pw_shell=shell)
        monkeypatch.setattr(checks.pwd, "getpwnam", lambda _, user=user: user)
        assert len(checks.examine(layout).missing) == told


@pytest.mark.parametrize("word", ["serve", "trial", "settle"])
def test_what_is_made_there_is_not_made_as_somebody_likes_it(tmp_path, monkeypatch, word):
    """A strict umask would keep the kiosk out, and modules of a home would be found before any."""
    seen = []

    def look(*_):
        seen.extend((os.umask(0o077), str(Path.cwd())))
        return 0

    monkeypatch.chdir(tmp_path)
    for module, name in (("session", "serve"), ("trial", "run_trial"), ("trial", "settle")):
        monkeypatch.setattr(getattr(entrance, module), name, look)
    before = os.umask(0o077)
    try:
        assert entrance.main([word]) == 0
    finally:
        os.umask(before)
    assert seen == [0o022, "/"]


RUNNING = {"release": "1.0.0-abc", "active": "active", "settings": "[server]\n"}


@pytest.mark.parametrize(
    ("differs", "zone", "code"),
    [
        ({}, "", ""),
        ({"active": "failed"}, "", ""),
        ({"active": "activating"}, "", ""),
        ({"release": "0.9.0-def"}, "", ""),
        ({"settings": "[camera]\n"}, "", ""),
        ({}, "Europe/Vienna", ""),
        ({}, "", "K7QX"),
    ],
)
def test_nothing_is_to_do_only_where_nothing_would_change(
    monkeypatch, tmp_path, differs, zone, code
):
    """A code is handed in, a zone set, and a service that does not run is not called well."""
    config = tmp_path / "kiosk.toml"
    config.write_text("[server]\n")
    asked = []

    class Link:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def ask(self, name, *_, **__):
            asked.append(name)
            if name == "check":
                place = {"codename": "trixie", "has_settings": True}
                return facts(**{**RUNNING, **place, **differs})
            raise DeployError("far enough")

    monkeypatch.setattr(push.Sender, "link", lambda *_: Link())
    monkeypatch.setattr(push, "release_for", lambda *_: SimpleNamespace(name="1.0.0-abc"))
    monkeypatch.setattr(push, "time", SimpleNamespace(time=lambda: NOW))
    sender = push.Sender(REPOSITORY, None, "anna", "desk", code)
    host = Host("pi", "pi", config=str(config), timezone=zone)
    if differs or zone or code:
        with pytest.raises(DeployError, match="far enough"):
            push.deploy(sender, host, lambda _: None)
        assert asked == ["check", "sweep"]
    else:
        assert push.deploy(sender, host, lambda _: None)
        assert asked == ["check"]


def test_an_old_python_is_refused_by_the_first_lines(tmp_path):
    """In the words of the conversation; nothing is imported that it could not read."""
    program = tmp_path / "board.pyz"
    program.write_bytes(link.zipped(BOARD))
    pretended = (
        "import runpy, sys; sys.version_info = (3, 9, 2, 'final', 0);"
        f"runpy.run_path({str(program)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", pretended], capture_output=True, check=False)
    assert done.returncode == 1
    failed = json.loads(done.stdout)["failed"]
    assert failed["what"] == "Python 3.11 or newer expected on the Pi, got 3.9"
    assert failed["hint"] == "install Raspberry Pi OS bookworm or trixie, 64-bit"
    ast.parse((BOARD / "__main__.py").read_text(), feature_version=(3, 4))
