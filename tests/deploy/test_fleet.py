"""One command at a Pi: what is asked, how long it is waited for, and what is left there."""

import os
import shutil
from pathlib import Path

import pytest
from sender import fleet
from sender.hosts import Host
from sender.link import Link
from sender.push import Sender
from sender.refusal import DeployError

HOST = Host("hall", "192.0.2.1", user="root")
# In place of ssh: runs the script here, on so much of what is sent.
_SSH = """#!/bin/sh
for script; do :; done
head -c {most} | sh -c "$script"
"""
_KIOSK = """#!/bin/sh
shift
echo "$1" >>{folder}/enrolled
shift
for word; do case "$word" in {folder}/shm/*) cp "$word" {folder}/;; esac; done
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A Pi that is this machine; the most bytes that reach it are the test's choice."""
    kiosk = tmp_path / "kiosk"
    kiosk.write_text(_KIOSK.format(folder=tmp_path))
    kiosk.chmod(0o755)
    monkeypatch.setattr(fleet, "_KIOSK", str(kiosk))
    memory = tmp_path / "shm"
    memory.mkdir()
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    real = shutil.which("mktemp")
    mktemp = bin_folder / "mktemp"
    mktemp.write_text(f"#!/bin/sh\nexec {real} -d -p {memory}\n")
    mktemp.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")

    def make(body):
        ssh = bin_folder / "ssh"
        ssh.write_text(body)
        ssh.chmod(0o755)
        return memory

    return make


@pytest.fixture
def sender(monkeypatch):
    sender = Sender(Path("/nowhere"), None, "anna", "desk")
    monkeypatch.setattr(Sender, "link", lambda _, host: Link(host, Path(), who="", origin=""))
    return sender


@pytest.fixture
def pictures(tmp_path):
    """Two, with bytes that a shell would not pass on as they are."""
    found = [tmp_path / "one it's.JPG", tmp_path / "two.png"]
    found[0].write_bytes(bytes(range(256)) * 700)
    found[1].write_bytes(b"\n" * 100_000)
    return found


def test_pictures_come_as_they_are_and_go_again(there, sender, pictures, tmp_path):
    """One after the other through one link; nothing of them is left."""
    memory = there(_SSH.format(most=1 << 30))
    assert fleet.enrol(sender, HOST, "o'neill $(id)", pictures, lambda _: None) == 0
    assert (tmp_path / "enrolled").read_text() == "o'neill $(id)\n"
    assert (tmp_path / "0.jpg").read_bytes() == pictures[0].read_bytes()
    assert (tmp_path / "1.png").read_bytes() == pictures[1].read_bytes()
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize("most", [0, 1000, 256 * 700, 256 * 700 + 99_999])
def test_of_a_link_that_is_lost_no_picture_is_left(there, sender, pictures, tmp_path, most):
    """Wherever it was: the Pi takes them away by itself, and enrols nobody of half a picture."""
    memory = there(_SSH.format(most=most))
    with pytest.raises(DeployError):
        fleet.enrol(sender, HOST, "anna", pictures, lambda _: None)
    assert not (tmp_path / "enrolled").exists()
    assert list(memory.iterdir()) == []


def test_a_pi_that_hangs_is_a_row_of_the_table(there, sender, monkeypatch):
    """The others are asked all the same."""
    there("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(fleet, "_LIMIT_S", 0.2)
    for table in (fleet.status, fleet.doctor):
        told = []
        assert table(sender, [HOST, HOST], told.append) == 1
        assert len([row for row in told if "expected an answer within 0.2 s" in row]) == 2
