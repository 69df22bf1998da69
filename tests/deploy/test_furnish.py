"""What a Pi is given once, and what is taken off it again."""

import errno
import os
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from board import host
from board.layout import Layout, point
from board.refusal import RefusedError


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    for folder in (layout.state, layout.credential.parent, layout.units, layout.settings.parent):
        folder.mkdir(parents=True)
    return layout


def test_a_secret_is_on_the_disk_before_anything_is_sealed_with_it(layout, monkeypatch):
    """Written as a whole and waited for: half of one would open nothing, for ever."""
    written = []
    monkeypatch.setattr(host, "must", lambda *command, **_: f"sealed by {command[0]}")
    monkeypatch.setattr(host, "write", lambda *arguments: written.append(arguments))
    assert list(host._secret(layout)) == ["device secret made here and sealed for this machine"]
    assert written == [(layout.credential, b"sealed by systemd-creds", 0o600)]


@pytest.fixture
def kiosk(layout, monkeypatch):
    """A kiosk that runs there; `waits` is what it says of its queue, in turn."""
    release = layout.release("1.0.0")
    for path in (layout.kiosk(release), release / "deploy/kiosk-check.timer"):
        path.parent.mkdir(parents=True)
        path.touch()
    point(layout.current, release)
    units = ("kiosk.service", "kiosk-check.timer", "kiosk-browser.service")
    for path in (layout.state / "outbox.db", *(layout.units / name for name in units)):
        path.touch()
    layout.credential.touch()
    (layout.units / "kiosk.service.d").mkdir()
    monkeypatch.setattr(host, "_known_user", lambda: False)

    class Kiosk:
        def __init__(self):
            self.waits, self.found, self.commands = ["0 waiting, 0 set aside"], b"", []

        def run(self, *command, **_):
            words = " ".join(map(str, command))
            self.commands.append(words)
            said = b""
            if "outbox status" in words:
                said = self.waits[min(len(self.asked()), len(self.waits)) - 1].encode()
            elif command[0] == "find":
                said = self.found
            return CompletedProcess(command, 0, said, b"")

        def asked(self):
            return [one for one in self.commands if "outbox status" in one]

    kiosk = Kiosk()
    monkeypatch.setattr(host, "run", kiosk.run)
    return kiosk


def test_an_uninstall_takes_what_a_release_brought_and_no_others(layout, kiosk):
    """Somebody's browser in front of the page is called kiosk-something as well."""
    assert host.uninstall(layout, lambda _: None, lose_events=False) == {"left": []}
    assert [path.name for path in layout.units.iterdir()] == ["kiosk-browser.service"]
    assert not [one for one in kiosk.commands if "browser" in one]
    for path in (layout.state, layout.credential, layout.settings.parent, layout.home):
        assert not path.exists()


def test_a_punch_that_comes_before_the_end_is_not_lost(layout, kiosk):
    """Asked again once nobody can punch any more: then the kiosk goes on."""
    kiosk.waits = ["0 waiting, 0 set aside", "1 waiting, 0 set aside"]
    with pytest.raises(RefusedError, match="got: 1 waiting"):
        host.uninstall(layout, lambda _: None, lose_events=False)
    assert kiosk.commands[-1] == "systemctl --no-block start kiosk.service"
    assert (layout.state / "outbox.db").exists()
    assert layout.credential.exists()


def test_a_queue_that_no_kiosk_can_tell_of_is_not_taken(layout, kiosk):
    """Its releases are spoilt or gone, its events are not."""
    layout.current.unlink()
    with pytest.raises(RefusedError, match="a queue, and no"):
        host.uninstall(layout, lambda _: None, lose_events=False)
    assert (layout.state / "outbox.db").exists()
    assert host.uninstall(layout, lambda _: None, lose_events=True) == {"left": []}
    assert not layout.state.exists()


@pytest.mark.parametrize("left", [[], ["lost"]])
def test_a_partition_of_its_own_is_emptied_and_the_rest_goes(layout, kiosk, monkeypatch, left):
    """Nobody can remove a folder that something is mounted at; what stays in it is told."""
    remove = shutil.rmtree

    def removing(path, **named):
        if path != layout.state:
            remove(path, **named)
            return
        for file in path.iterdir():
            if file.name not in left:
                file.unlink()
        if not named.get("ignore_errors"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    for name in left:
        (layout.state / name).touch()
    monkeypatch.setattr(host.shutil, "rmtree", removing)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == layout.state)
    told = host.uninstall(layout, lambda _: None, lose_events=False)
    assert told == {"left": [str(layout.state)] if left else []}
    assert not layout.credential.exists()
    assert not layout.home.exists()


def test_what_is_looked_for_has_every_copy_of_the_secret(layout, kiosk):
    """By name wherever it lies, whatever the folder is called."""
    kiosk.found = b"/home/pi/old card/device.spare\0"
    left = host.uninstall(layout, lambda _: None, lose_events=False)["left"]
    assert left == ["/home/pi/old card/device.spare"]
    (found,) = [one for one in kiosk.commands if one.startswith("find")]
    for name in ("device.secret*", "device.spare*", "kiosk.board-key*", "outbox.db*"):
        assert f"-name {name}" in found
