"""Files on their way to the Pi: cut off, spoilt, hostile, or too large for what is free."""

import errno
import hashlib
import io
import json
import os
import stat
import threading
import time
import zipfile
from types import SimpleNamespace

import pytest
from board import parcels, releases, session, trial
from board.channel import Channel, LinkGoneError
from board.layout import READY, SPARE_BYTES, Layout
from board.refusal import RefusedError

CONTENT = bytes(range(256)) * 1500
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = {"name": "parcel.zip", "sha256": SHA256, "size": len(CONTENT)}
HANG_S = 30


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


@pytest.fixture
def link():
    """A pipe as ssh makes one: the channel at its end, and what writes into it or cuts it."""
    coming, going = os.pipe()
    stream = os.fdopen(going, "wb", buffering=0)
    yield SimpleNamespace(channel=Channel(coming), stream=stream)
    # Whoever still writes sees nobody read any more.
    os.close(coming)
    for thread in threading.enumerate():
        if thread.name == "sender":
            thread.join(HANG_S)
    stream.close()


def written(stream, data, *, cut):
    """Write it all from beside, as a sender does: a pipe holds less than a file."""

    def write():
        try:
            view = memoryview(data)
            while view:
                view = view[stream.write(view) :]
        except BrokenPipeError:
            pass
        if cut:
            stream.close()

    thread = threading.Thread(target=write, name="sender", daemon=True)
    thread.start()
    return thread


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def offset_of(layout):
    return parcels.have(layout, [FILE])[SHA256]


@pytest.mark.parametrize("came", [0, 1, 70_000, len(CONTENT) - 1])
def test_a_copy_that_is_cut_off_goes_on_where_it_was(layout, came):
    """What came is kept and counted; the rest behind it makes the right file."""
    for part in (CONTENT[:came], CONTENT[came:]):
        coming, going = os.pipe()
        offset = offset_of(layout)
        with os.fdopen(going, "wb", buffering=0) as stream, os.fdopen(coming, "rb"):
            thread = written(stream, part, cut=True)
            if offset + len(part) < len(CONTENT):
                with pytest.raises(LinkGoneError, match="gone"):
                    parcels.receive(layout, Channel(coming), **FILE, offset=offset)
                assert offset_of(layout) == came
            else:
                assert offset == came
                parcels.receive(layout, Channel(coming), **FILE, offset=offset)
            thread.join(HANG_S)
    assert parcels.place(layout, FILE["name"], SHA256).read_bytes() == CONTENT
    assert offset_of(layout) == len(CONTENT)


def test_a_file_that_lacks_only_its_name_is_given_it(layout):
    """Cut off behind the last byte: nobody sends a byte of it again, so it is made whole here."""
    layout.incoming.mkdir(parents=True)
    part = layout.incoming / f"{SHA256}.part"
    part.write_bytes(CONTENT)
    assert offset_of(layout) == len(CONTENT)
    assert parcels.place(layout, FILE["name"], SHA256).read_bytes() == CONTENT
    assert not part.exists()


@pytest.mark.parametrize("left", [CONTENT[:-1] + b"x", CONTENT + b"more"])
def test_a_file_of_other_bytes_is_sent_anew(layout, left):
    """As long as it should be, and not it: nothing of it counts."""
    layout.incoming.mkdir(parents=True)
    (layout.incoming / f"{SHA256}.part").write_bytes(left)
    assert offset_of(layout) == 0
    assert not files_in(layout.home)


def test_spoilt_bytes_are_refused_and_nothing_is_left(layout, link):
    """A file that is not what was announced gets no name, and no later copy goes on from it."""
    written(link.stream, CONTENT[:-1] + b"\0", cut=True)
    with pytest.raises(RefusedError, match="expected the bytes that were announced") as refused:
        parcels.receive(layout, link.channel, **FILE, offset=0)
    assert "try again" in refused.value.hint
    assert not files_in(layout.root)
    assert offset_of(layout) == 0


HOSTILE_NAMES = ("../x", "/etc/passwd", "a/b", "a\nb", "a\n", "", ".", "..", "-rf", "é", 5)


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "a" * 201])
def test_a_name_is_a_plain_name(layout, link, name):
    """Neither a way out of the folder nor anything that a later program could take otherwise."""
    for asked in (
        lambda: parcels.have(layout, [{**FILE, "name": name}]),
        lambda: parcels.receive(layout, link.channel, **{**FILE, "name": name}, offset=0),
    ):
        with pytest.raises(RefusedError, match="expected a plain file name"):
            asked()
    assert not files_in(layout.root)


@pytest.mark.parametrize("sha256", ["", "../" * 21 + "x", SHA256.upper(), SHA256 + "\n", None])
def test_a_hash_is_a_hash(layout, link, sha256):
    """It becomes a file's name: nothing but its digits do."""
    with pytest.raises(RefusedError, match="expected a plain file name and its hash"):
        parcels.receive(layout, link.channel, **{**FILE, "sha256": sha256}, offset=0)
    assert not files_in(layout.root)


@pytest.mark.parametrize(
    ("size", "offset"),
    [
        (-1, 0),
        (len(CONTENT), -1),
        (len(CONTENT), len(CONTENT) + 1),
        (len(CONTENT), 101),
        ("9", 0),
        (9.5, 0),
        (9, "0"),
        (True, 0),
        (None, 0),
        (1 << 60, 0),
    ],
)
def test_a_size_and_an_offset_fit_the_file(layout, link, size, offset):
    """Refused before a byte is taken: what is here already stays as it is."""
    layout.incoming.mkdir(parents=True)
    part = layout.incoming / f"{SHA256}.part"
    part.write_bytes(CONTENT[:100])
    with pytest.raises(RefusedError, match="expected a size and an offset within it"):
        parcels.receive(layout, link.channel, **{**FILE, "size": size}, offset=offset)
    assert part.read_bytes() == CONTENT[:100]


def test_an_empty_file_is_a_file(layout, link):
    """No byte of it is waited for."""
    nothing = hashlib.sha256(b"").hexdigest()
    parcels.receive(layout, link.channel, name="empty", sha256=nothing, size=0, offset=0)
    assert parcels.place(layout, "empty", nothing).read_bytes() == b""


def test_too_little_room_is_refused_with_both_figures(layout, monkeypatch):
    """Before anything is sent: what it needs, with what it unpacks to, and what is free."""
    free = SPARE_BYTES + 10
    monkeypatch.setattr(parcels.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(RefusedError, match=r"expected 3200 MB free .* got 200 MB") as refused:
        parcels.have(layout, [{**FILE, "size": 750 << 20}])
    assert "nothing was sent" in refused.value.hint
    monkeypatch.setattr(parcels.shutil, "disk_usage", lambda _: SimpleNamespace(free=free << 10))
    assert offset_of(layout) == 0


@pytest.fixture
def served(layout, link, monkeypatch):
    """A session over pipes, in a thread; what it answers, a list once it has ended."""
    monkeypatch.setattr(trial, "run", lambda *_, **__: SimpleNamespace(stdout=b"inactive\n"))
    monkeypatch.setattr(session, "SILENCE_S", 0.3)
    monkeypatch.setattr(parcels, "_SILENCE_S", 0.3)
    layout.lock.parent.mkdir(parents=True)

    def serve(said, *, cut):
        out = io.StringIO()
        written(link.stream, said, cut=cut)
        began = time.monotonic()
        status = session.serve(link.channel, out, layout, layout.root / "board.pyz")
        lasted = time.monotonic() - began
        return status, [json.loads(line) for line in out.getvalue().splitlines()], lasted

    return serve


OPENING = json.dumps({"who": "anna", "from": "desk"}).encode() + b"\n"
RECEIVE = json.dumps({"do": "receive", **FILE, "offset": 0}).encode() + b"\n"


@pytest.mark.parametrize(
    "said", [b"", b'{"who"', OPENING, OPENING + RECEIVE, OPENING + RECEIVE + CONTENT[:99]]
)
def test_silence_ends_a_session_wherever_it_comes(served, layout, said):
    """A link that is gone without a word holds no lock: the next deploy may begin."""
    status, _, lasted = served(said, cut=False)
    assert status == 0
    assert 0.25 < lasted < 5
    with session._held(layout, {}):
        pass


def test_a_file_that_fails_ends_its_session(served, monkeypatch):
    """The rest of its bytes is no request; what is told is the reason, and what to do."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parcels.os, "fsync", full)
    status, replies, _ = served(OPENING + RECEIVE + CONTENT + b"\n{}\n", cut=True)
    assert status == 1
    assert replies[-1]["failed"]["what"].startswith("receive: No space left on device")
    assert "make room" in replies[-1]["failed"]["hint"]
    assert len(replies) == 2


@pytest.mark.parametrize("said", [b"\xff\xfe\n", b"[1]\n", b"null\n", b"do it\n"])
def test_what_is_no_request_is_refused_in_words(served, said):
    """No trace of Python's, and the session ends."""
    status, replies, _ = served(OPENING + said, cut=True)
    assert status == 1
    assert replies[-1]["failed"]["what"].startswith("expected a JSON object, got ")


def test_a_line_without_an_end_ends_the_session(link):
    """It is not held in memory for ever."""
    written(link.stream, b"x" * (3 << 20), cut=False)
    with pytest.raises(LinkGoneError, match="expected a line of at most"):
        link.channel.line(HANG_S)


def test_an_archive_unpacks_nothing_outside_its_folder(layout, tmp_path, monkeypatch):
    """Names that lead away lead nowhere, and a link in it is a file like another."""
    layout = Layout(tmp_path / "pi")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in ("../../../escaped", f"{tmp_path}/escaped", "deploy/../../../escaped"):
            archive.writestr(name, "x")
        leading = zipfile.ZipInfo("away")
        leading.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(leading, str(tmp_path))
        archive.writestr("away/escaped", "x")
    sha256 = hashlib.sha256(data.getvalue()).hexdigest()
    parcel = {"name": "parcel.zip", "sha256": sha256}
    place = parcels.place(layout, **parcel)
    place.parent.mkdir(parents=True)
    place.write_bytes(data.getvalue())
    told = {"libraries": "l", "wheels": [], "facts": {}, "release": "1.0.0-x"}
    with pytest.raises((RefusedError, OSError)):
        releases.unpack(layout, lambda _: None, parcel=parcel, **told)
    outside = [path for path in tmp_path.rglob("*") if layout.releases not in path.parents]
    assert {path.name for path in outside if path.is_file()} == {"parcel.zip"}
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


def test_a_release_has_its_name_after_its_bytes(layout, monkeypatch):
    """Power may be lost at any time: what is called whole is on the disk, shared or not."""
    names = layout.release("1.0.0-x") / READY, layout.libraries / "shared"
    seen = []
    monkeypatch.setattr(releases, "must", lambda *_, **__: "")
    monkeypatch.setattr(releases, "_environment", lambda *_: None)
    monkeypatch.setattr(releases, "_pip", lambda _: "pip")
    monkeypatch.setattr(releases.os, "sync", lambda: seen.append([n.exists() for n in names]))
    place = parcels.place(layout, "parcel.zip", SHA256)
    place.parent.mkdir(parents=True)
    zipfile.ZipFile(place, "w").close()
    told = {"libraries": "shared", "wheels": [], "facts": {}, "release": "1.0.0-x"}
    releases.unpack(layout, lambda _: None, parcel=FILE, **told)
    assert seen == [[False, False], [False, True]]
    assert all(name.exists() for name in names)
