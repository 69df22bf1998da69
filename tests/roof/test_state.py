"""The state folder: the kiosk's own, and nobody else writes in it."""

import os
import stat

import numpy as np
import pytest

from kiosk.config import Paths, Server, Settings
from kiosk.decide.gallery import Gallery, Template
from kiosk.errors import KioskError, VaultError
from kiosk.health import examine
from kiosk.state import open_state
from kiosk.types import Embedding


@pytest.fixture
def settings(tmp_path):
    paths = Paths(state_dir=str(tmp_path / "state"), runtime_dir=str(tmp_path / "run"))
    return Settings(server=Server("http://127.0.0.1:9"), paths=paths)


def test_the_folder_is_made_private(settings, tmp_path):
    """0700, and every file in it 0600, whatever the umask lets through."""
    old = os.umask(0)
    try:
        open_state(settings).close()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "state").iterdir()}
    assert modes == {0o600}


@pytest.mark.parametrize("loose", [0o777, 0o770, 0o707, 0o1777])
def test_a_folder_that_others_can_write_in_is_refused(settings, tmp_path, loose):
    """They could have put a secret of theirs there: told with mode and remedy, nothing made."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(loose)
    with pytest.raises(KioskError, match=rf"state_dir.*got mode {loose:04o}; .*chmod go-w"):
        open_state(settings)
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_can_only_read_is_taken(settings, tmp_path):
    """What lies in it is sealed and 0600: a folder made by hand with the usual mode will do."""
    (tmp_path / "state").mkdir(0o755)
    open_state(settings).close()


@pytest.mark.parametrize("place", ["file", "file/below", "dangling"])
def test_what_is_no_folder_is_named(settings, tmp_path, place):
    """A file, a path below one, a link to nowhere: one error with the key."""
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    paths = Paths(state_dir=str(tmp_path / place), runtime_dir=str(tmp_path))
    with pytest.raises(KioskError, match=r"paths\.state_dir .*expected a folder"):
        open_state(Settings(server=settings.server, paths=paths))


def test_doctor_tells_of_loose_folders(tmp_path):
    """What the daemon would refuse, doctor names beforehand."""
    for name in ("state", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    path = tmp_path / "kiosk.toml"
    path.write_text(
        '[server]\nurl = "http://127.0.0.1:9"\n[paths]\n'
        f'state_dir = "{tmp_path}/state"\nruntime_dir = "{tmp_path}/run"\n'
    )
    found = {f.what: f for f in examine(path)}
    for what in ("state folder", "runtime folder"):
        assert found[what].verdict == "failed"
        assert "0777" in found[what].found


def test_a_damaged_gallery_is_put_back_from_its_copy(tmp_path, caplog):
    """One flipped bit must not keep a kiosk from its people, nor from its queue."""
    paths = Paths(state_dir=str(tmp_path / "state"), runtime_dir=str(tmp_path / "run"))
    state = open_state(Settings(server=Server("https://a.example"), paths=paths))
    embedding = Embedding.of(np.random.default_rng(1).standard_normal(192), "space")
    state.save_gallery(Gallery([Template("anna", embedding, "picture")]))
    sealed = tmp_path / "state" / "gallery.sealed"
    damaged = bytearray(sealed.read_bytes())
    damaged[40] ^= 1
    sealed.write_bytes(damaged)
    with pytest.raises(VaultError):
        state.load_gallery()
    assert list(state.gallery_or_nobody().people()) == ["anna"]
    assert list(state.load_gallery().people()) == ["anna"]
    for name in ("gallery.sealed", "gallery.copy"):
        (tmp_path / "state" / name).write_bytes(damaged)
    assert list(state.gallery_or_nobody().people()) == []
    with pytest.raises(VaultError):
        state.save_gallery(Gallery([]))
    assert [r.message for r in caplog.records] == ["gallery.healed", "gallery.unreadable"]
    state.close()
