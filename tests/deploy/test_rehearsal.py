"""The queue's tables before the switch: on a copy that root does not touch."""

import json
import shutil
from subprocess import CompletedProcess

import pytest
from board import rehearsal
from board.layout import Layout, point
from board.refusal import RefusedError

OLD, NEW = "1.0.0-old", "2.0.0-new"
AS_KIOSK = ("runuser", "-u", "kiosk", "--", "env", "HOME=/var/lib/kiosk")


class Board:
    """A Pi whose commands are answered here; what is done as the kiosk's user is done."""

    def __init__(self, layout):
        self.layout = layout
        self.runs, self.handed, self.refusing = True, "", []
        self.done, self.copied = [], None

    def run(self, *command, **_):
        words = [str(word) for word in command]
        self.done.append(" ".join(words))
        status = 0
        if "is-active" in words:
            status = 0 if self.runs else 3
        elif "backup" in words:
            return CompletedProcess(words, 0, json.dumps({"file": self.handed}).encode(), b"")
        elif tuple(words[:6]) == AS_KIOSK:
            status = self._as_kiosk(words[6:])
        return CompletedProcess(words, status, b"", b"no such luck")

    def _as_kiosk(self, words):
        match words:
            case ["rm", "-rf", place]:
                shutil.rmtree(place, ignore_errors=True)
            case ["mkdir", *_, place]:
                (self.layout.root / place).mkdir()
            case ["cp", *files, place]:
                for file in files:
                    shutil.copy(file, place)
                self.copied = sorted(path.name for path in (self.layout.root / place).iterdir())
            case [kiosk, "outbox", "rehearse", _]:
                brought = any(f"/{NEW}/" in one for one in self.done[:-1])
                who = NEW if f"/{NEW}/" in kiosk else OLD
                return int((who, brought) in self.refusing)
        return 0


@pytest.fixture
def board(tmp_path, monkeypatch):
    layout = Layout(tmp_path)
    for name in (OLD, NEW):
        kiosk = layout.kiosk(layout.release(name))
        kiosk.parent.mkdir(parents=True)
        kiosk.touch()
    point(layout.current, layout.release(OLD))
    layout.state.mkdir(parents=True)
    (layout.state / "outbox.db").write_text("queue")
    (layout.state / "outbox.db-wal").write_text("log")
    board = Board(layout)
    monkeypatch.setattr(rehearsal, "run", board.run)

    def must(*command, **_):
        if board.run(*command).returncode:
            raise RefusedError(str(command[-1]))

    monkeypatch.setattr(rehearsal, "must", must)
    return board


def rehearsed(board):
    told = []
    with rehearsal._copy_of_queue(board.layout, told.append) as copy:
        rehearsal._try_migration(
            board.layout, board.layout.kiosk(board.layout.release(NEW)), copy, told.append
        )
    return "\n".join(told)


def test_what_a_running_kiosk_calls_its_copy_is_not_removed_by_root(board, tmp_path):
    """Its word may be any path: only its own user removes it, which may remove no other's."""
    board.handed = str(tmp_path / "precious")
    (tmp_path / "precious").touch()
    rehearsed(board)
    assert (tmp_path / "precious").exists()
    assert " ".join([*AS_KIOSK, "rm", "-f", board.handed]) in board.done


def test_a_queue_that_nobody_runs_is_copied_by_its_own_user(board):
    """Root would follow the links that lie in the kiosk's folder; nothing is left of the copy."""
    board.runs = False
    (board.layout.state / "rehearsal").mkdir()
    (board.layout.state / "rehearsal/outbox.db-of-a-power-cut").touch()
    rehearsed(board)
    assert board.copied == ["outbox.db", "outbox.db-wal"]
    assert not (board.layout.state / "rehearsal").exists()
    assert [one for one in board.done if " cp " in one and not one.startswith("runuser")] == []


def test_a_running_release_that_cannot_open_its_queue_does_not_forbid_the_next(board):
    """It is what the next one mends; that a rollback would not help is said."""
    board.runs = False
    board.refusing = [(OLD, False), (OLD, True)]
    assert "a rollback to it would not help" in rehearsed(board)


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("refusing", [(NEW, False), (OLD, True)])
def test_a_queue_that_does_not_come_back_is_refused(board, runs, refusing):
    """By the new release, or by the one before once the new one has had it."""
    board.runs = runs
    board.refusing = [refusing]
    with pytest.raises(RefusedError):
        rehearsed(board)
