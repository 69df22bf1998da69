"""`kiosk check-config`: for a program, and what a file names that is not there."""

import json
import os
import pwd
from pathlib import Path

import pytest

from kiosk.config import load


def test_a_program_reads_the_problems(kiosk, config):
    """--json is one document on standard output in either case, with the status of the words."""
    path = config()
    path.write_text(path.read_text() + '[camera]\nsource = "replay"\nreplay = [{path = "/"}]\n')
    status, out, err = kiosk("check-config", path, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"file": str(path), "checks": True, "problems": []}
    path.write_text("[server]\nurl = 1\nx = 2\n")
    status, out, err = kiosk("check-config", path, "--json")
    assert (status, err) == (2, "")
    assert (json.loads(out)["checks"], len(json.loads(out)["problems"])) == (False, 2)
    status, out, _ = kiosk("check-config", "/none.toml", "--json")
    assert (status, json.loads(out)["checks"]) == (2, False)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('embedder = "nix"', "models.embedder = 'nix': embedder model 'nix' is in no manifest"),
        ('detector = "nix"', "models.detector = 'nix': detector model 'nix' is in no manifest"),
        ('also = "nix"', "models.also = 'nix': embedder model 'nix' is in no manifest"),
        ('extra_dirs = ["/no/models"]', "models.extra_dirs: expected a folder"),
        ('extra_dirs = ["/"]', "models.extra_dirs: a readable manifest expected"),
        (
            '[camera]\nsource = "v4l2"\ndevice = "/dev/no-camera"',
            "camera.device = '/dev/no-camera'",
        ),
        ('[camera]\nsource = "v4l2"\ndevice = "99"', "at /dev/video99, there is none"),
        (
            '[camera]\nsource = "replay"\nreplay = [{path = "/"}, {path = "/no/film"}]',
            "camera.replay[1].path = '/no/film': nothing is there",
        ),
    ],
)
def test_what_is_not_there_is_told(kiosk, config, more, told):
    """One line that names the key; the daemon itself loads the file all the same."""
    path = config(f"{more}\n")
    load(path)
    status, _, err = kiosk("check-config", path)
    (line,) = err.splitlines()
    assert (status, told in line) == (2, True), line


def figures_at(config, file):
    """A configuration that keeps its figures in this file."""
    path = config()
    path.write_text(f'{path.read_text()}[metrics]\nfile = "{file}"\n')
    return path


def test_a_folder_of_figures_that_is_none_is_told(kiosk, config, tmp_path):
    """Nothing there, a file in its place, a folder where the file should be; and one that is right,
    whether the file is there already or not."""
    (tmp_path / "file").touch()
    (tmp_path / "folder.prom").mkdir()
    for file, words in (
        ("/no/figures/kiosk.prom", "expected a folder at '/no/figures', there is none"),
        (tmp_path / "file" / "kiosk.prom", f"expected a folder at '{tmp_path}/file', it is a file"),
        (tmp_path / "folder.prom", "expected a file or nothing there, it is a folder"),
    ):
        status, _, err = kiosk("check-config", figures_at(config, file))
        (line,) = err.splitlines()
        assert (status, f"metrics.file = '{file}': {words}" in line) == (2, True), line
    for _ in range(2):
        assert kiosk("check-config", figures_at(config, tmp_path / "kiosk.prom"))[0] == 0
        (tmp_path / "kiosk.prom").touch()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to another user")
def test_a_folder_of_figures_is_held_against_the_kiosks_own_user(kiosk, config, tmp_path):
    """Root asks, the owner of the state folder runs: mode and owner decide, not who asks. Before
    there is a state folder nobody knows the user."""
    folder = tmp_path / "figures"
    folder.mkdir(mode=0o755)
    for each in folder.parents:
        if not each.stat().st_mode & 0o001:
            each.chmod(each.stat().st_mode | 0o011)
    path = figures_at(config, folder / "kiosk.prom")
    assert kiosk("check-config", path)[0] == 0
    nobody = pwd.getpwnam("nobody")
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", nobody.pw_uid, nobody.pw_gid)
    status, _, err = kiosk("check-config", path)
    assert status == 2
    assert "a folder that nobody, as whom the kiosk runs, may write in, got" in err
    assert f"'{folder}' with owner root and mode 0755" in err
    os.chown(folder, 0, nobody.pw_gid)
    assert kiosk("check-config", path)[0] == 2
    folder.chmod(0o775)
    assert kiosk("check-config", path)[0] == 0
    os.chown(folder, nobody.pw_uid, 0)
    folder.chmod(0o755)
    assert kiosk("check-config", path)[0] == 0
    folder.chmod(0o577)
    assert kiosk("check-config", path)[0] == 2
    folder.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    folder.rename(closed / "figures")
    assert kiosk("check-config", figures_at(config, closed / "figures" / "kiosk.prom"))[0] == 2


def test_models_for_the_kiosks_user_alone_are_no_problem(kiosk, config):
    """Whoever may not read what was added is told only when the name could be there."""
    path = config()
    own = path.parent / "state" / "models"
    own.mkdir(parents=True)
    (own / "manifest.toml").write_text("not a manifest")
    assert kiosk("check-config", path)[0] == 0
    _, _, err = kiosk("check-config", config('embedder = "mine"\n'))
    assert "models.embedder = 'mine': embedder model 'mine' is in no manifest" in err
    assert "left out: a readable manifest expected" in err


def test_a_file_that_cannot_be_read_says_why(kiosk, tmp_path, monkeypatch):
    """Missing, a folder, another user's: each has a hint of its own, and only one says to copy."""
    for path, words in (
        (tmp_path / "none.toml", "got: No such file or directory; name the one you have"),
        (tmp_path, "got: Is a directory; name the file in it"),
    ):
        for command in (("check-config",), ("status", "--config")):
            status, _, err = kiosk(*command, path)
            assert (status, len(err.splitlines())) == (2, 1)
            assert err.startswith(f"kiosk: {path}: expected a configuration in TOML, {words}")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    _, _, err = kiosk("status", "--config", tmp_path / "k.toml")
    assert "got: Permission denied; run as the kiosk's user" in err
    assert "copy" not in err


def test_what_this_user_may_not_see_is_no_problem(kiosk, config, monkeypatch):
    """A folder that is closed to whoever checks may well be open to the kiosk: nothing is known."""
    path = config()
    path.write_text(path.read_text().replace("[paths]", 'ca_file = "/closed/ca.pem"\n[paths]'))
    assert kiosk("check-config", path)[0] == 2
    real = Path.is_file

    def closed(path):
        if str(path).startswith("/closed/"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "is_file", closed)
    assert kiosk("check-config", path)[0] == 0


@pytest.mark.parametrize("text", ["", "[server]\n"])
def test_a_missing_server_names_its_url(kiosk, tmp_path, text):
    """What must be written is the URL, not a table."""
    path = tmp_path / "kiosk.toml"
    path.write_text(text)
    status, _, err = kiosk("check-config", path)
    assert (status, err) == (2, "kiosk: server.url: missing, and it has no default\n")


def test_a_url_without_a_scheme_is_told_in_words(kiosk, tmp_path):
    """No regular expression is shown to anybody."""
    path = tmp_path / "kiosk.toml"
    path.write_text('[server]\nurl = "attendance.example.org"\n')
    status, _, err = kiosk("check-config", path)
    assert status == 2
    assert "begins with https://" in err
    assert "^" not in err
