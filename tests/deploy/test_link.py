"""A session with a Pi whose ssh says this or that: the Pi's own word is told, not ssh's."""

import json
import os
import sys

import pytest
from sender import __main__ as entrance
from sender.build import file_at
from sender.hosts import Host
from sender.link import Link
from sender.refusal import DeployError

# In place of ssh: takes the program, then does as the test says.
_SSH = """#!{python}
import json, os, signal, sys
# Whoever waits for a reply that was not understood does not wait for ever.
signal.alarm(20)
sys.stdin.buffer.read(int(sys.argv[-1].partition("head -c ")[2].split()[0]))
print({before!r}, end="\\n" if "; echo; " in sys.argv[-1] else "")
def say(**reply):
    print(json.dumps(reply), flush=True)
{body}
"""
FAILED = 'say(failed={"what": "receive: No space left on device", "hint": "make room"})\n'
BEGIN = "sys.stdin.readline()\nsay(done={})\n"


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """Makes a link whose ssh is a program of the test's."""
    board = tmp_path / "board"
    board.mkdir()
    (board / "__main__.py").write_text("")

    def make(body, before=""):
        ssh = tmp_path / "bin/ssh"
        ssh.parent.mkdir()
        ssh.write_text(_SSH.format(python=sys.executable, body=body, before=before))
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
        return Link(Host("hall", "192.0.2.1"), board, who="anna", origin="desk")

    return make


NOISE = ["5", "null", '"done"', "[]", "{}", '{"other": 1}', "hello", "\xff", "no end"]


@pytest.mark.parametrize("noise", NOISE)
def test_what_is_no_reply_is_passed_over(linked, noise):
    """A login script may print whatever it likes, JSON as well."""
    say = f"sys.stdin.readline()\nprint({noise!r})\nsay(say='x')\nsay(done=7)\n"
    said = []
    with linked(BEGIN + say, before=noise) as link:
        assert link.ask("check", said.append) == 7
    assert said == ["x"]


def test_a_pi_that_stops_taking_a_file_is_heard(linked, tmp_path):
    """It says why and ends while bytes are on the way: that is told, not that the link was lost."""
    path = tmp_path / "parcel.zip"
    path.write_bytes(bytes(4 << 20))
    with linked(BEGIN + "sys.stdin.readline()\n" + FAILED) as link:
        with pytest.raises(DeployError) as refused:
            link.send(file_at(path), 0, lambda *_: None)
        assert str(refused.value) == "hall: receive: No space left on device; make room"


def test_a_pi_that_refuses_at_once_is_heard(linked):
    """An old Python says so before it has read a word."""
    with pytest.raises(DeployError, match="hall: receive: No space left"), linked(FAILED):
        pass


def test_a_link_that_is_lost_says_what_ssh_said_and_what_becomes_of_it(linked):
    """Where the Pi said nothing."""
    lost = "sys.stderr.write('Timeout, server not responding.')\nsys.exit(255)\n"
    with linked(BEGIN + lost) as link, pytest.raises(DeployError) as refused:
        link.ask("check")
    assert str(refused.value) == (
        "hall: the link was lost: Timeout, server not responding.;"
        " what runs there goes on by itself; try again"
    )


def test_a_pi_that_talks_and_talks_stops_nothing(linked):
    """More on the standard error than any pipe holds, while the reply is waited for."""
    talk = "sys.stderr.write('x' * (4 << 20))\nsys.stderr.flush()\nsay(done=7)\n"
    with linked("sys.stdin.readline()\n" + talk + "sys.stdin.readline()\n" + talk) as link:
        assert link.ask("check") == 7


def test_what_a_pi_says_commands_no_terminal(capsys, monkeypatch):
    """A kiosk that somebody has taken over: its words are read, not obeyed."""
    said = "hall: \x1b]0;x\x07 \x9b2J\r\x7f über\tall\n"
    entrance._plain(said)
    monkeypatch.setattr(sys, "argv", ["make", "status", "--pi", "hall"])

    def refuse(_):
        raise DeployError(said)

    monkeypatch.setattr(entrance, "_run", refuse)
    assert entrance.main() == 1
    out, err = capsys.readouterr()
    assert out == err == "hall: ?]0;x? ?2J?? über\tall\n\n"


def test_without_ssh_it_is_said(linked, monkeypatch, tmp_path):
    """The program that is missing, and the package that has it."""
    link = linked("")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeployError, match=r"ssh expected here.*install openssh-client"), link:
        pass


def test_what_is_sent_begins_with_who_sends_it(linked, tmp_path):
    """The Pi names whoever is at it to the next one."""
    note = tmp_path / "note"
    body = f"open({str(note)!r}, 'w').write(sys.stdin.readline())\nsay(done={{}})\n"
    with linked(body):
        pass
    assert json.loads(note.read_text()) == {"who": "anna", "from": "desk"}
