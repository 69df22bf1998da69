"""The daemon as a user meets it: start, status, enrolment, bad ground, and the end."""

import json
import logging
import re
import shutil
import signal
import threading
import urllib.request

import pytest

from kiosk.app import Kiosk
from kiosk.clock import SystemClock
from kiosk.config import load
from kiosk.lookout import Lookout
from kiosk.state import open_state


def test_an_enrolment_is_in_force_while_the_daemon_runs(daemon, people):
    """Who is enrolled over the socket is matched by the running daemon at once."""
    daemon.start()
    assert daemon.json("status")["people"] == 0
    done = daemon.cli("enrol", "obama", str(people / "obama.jpg"))
    assert done.returncode == 0, done.stderr
    assert daemon.json("status")["people"] == 1
    assert daemon.json("gallery", "list")["people"] == {"obama": 1}
    assert daemon.json("gallery", "verify") == {"faces": 1, "people": 1}
    assert daemon.cli("gallery", "remove", "obama").returncode == 0
    assert daemon.json("status")["people"] == 0
    assert daemon.stop() == 0


def test_commands_work_without_a_daemon(daemon, people):
    """The same commands open the state themselves, under its lock."""
    done = daemon.cli("enrol", "obama", str(people / "obama.jpg"))
    assert done.returncode == 0, done.stderr
    assert daemon.json("gallery", "show", "obama")["person"] == "obama"
    assert daemon.json("outbox", "status")["pending"] == 0
    missing = daemon.cli("gallery", "show", "nobody")
    assert missing.returncode == 2
    assert "'nobody'" in missing.stderr
    assert daemon.cli("status").returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["liveness.not_measured", "kiosk.ready"])
def test_a_signal_ends_it_cleanly_once_it_runs(daemon, number, moment):
    """Status 0, no trace, nothing left hanging, and the state can be opened again."""
    daemon.start(wait_for=moment)
    status = daemon.stop(number)
    said = "".join(daemon.said)
    assert "Traceback" not in said
    assert status == 0
    assert "kiosk.stopped" in said
    assert "thread.stuck" not in said
    open_state(load(daemon.path)).close()


def test_a_punch_survives_a_restart_and_reaches_the_server_once(daemon, server, people):
    """Recorded while the server is away; after a restart it is sent, and nobody is doubled."""
    daemon.write("http://127.0.0.1:9", replay=[people / "obama.jpg"])
    assert daemon.cli("enrol", "obama", str(people / "obama.jpg")).returncode == 0
    daemon.start()
    daemon.read_until("visit.recorded")
    assert daemon.json("outbox", "status")["pending"] == 1
    assert daemon.stop() == 0
    daemon.write(server, replay=[people / "obama.jpg"])
    daemon.start()
    daemon.await_said("outbox.settled")
    daemon.read_until("visit.already_recorded")
    assert daemon.stop() == 0
    with urllib.request.urlopen(f"{server}/attendance", timeout=10) as reply:
        records = json.load(reply)["attendance"]
    assert [record["employee"] for record in records] == ["obama"]


def test_a_kill_loses_and_doubles_nothing(daemon, server, people):
    """SIGKILL right after COMMIT: the event is there at the restart, and is sent once."""
    daemon.write("http://127.0.0.1:9", replay=[people / "obama.jpg"])
    assert daemon.cli("enrol", "obama", str(people / "obama.jpg")).returncode == 0
    daemon.start()
    line = daemon.read_until("visit.recorded")
    daemon.process.send_signal(signal.SIGKILL)
    daemon.process.communicate(timeout=60)
    event_id = line.split("event_id=")[1].split()[0]
    daemon.write(server)
    daemon.start()
    daemon.await_said("outbox.settled")
    assert daemon.stop() == 0
    with urllib.request.urlopen(f"{server}/attendance", timeout=10) as reply:
        records = json.load(reply)["attendance"]
    assert [record["event_id"] for record in records] == [event_id]


def test_unknown_people_can_be_sent_without_a_name(daemon, server, people):
    """unknown = "send" leaves the naming to the server and sends no E1."""
    daemon.write(server, extra='[recognition]\nunknown = "send"\n', replay=[people / "biden.jpg"])
    daemon.start()
    daemon.await_said("outbox.settled")
    assert daemon.stop() == 0
    with urllib.request.urlopen(f"{server}/attendance", timeout=10) as reply:
        records = json.load(reply)["attendance"]
    assert [record["employee"] for record in records] == [None]


def test_a_second_daemon_is_refused_by_name(daemon, kiosk):
    """One process owns the state; the second says so and ends, in the line of its end too."""
    daemon.start()
    second = kiosk("run", "--config", str(daemon.path))
    assert second.returncode == 1
    assert "held by another process" in second.stderr
    (end,) = [line for line in second.stderr.splitlines() if "kiosk.stopped" in line]
    assert "held by another process" in end
    assert daemon.stop() == 0


def damaged_model(folder, repository, space):
    """A model of one's own with one flipped byte, in a space of its own or in the shipped one."""
    folder.mkdir()
    data = bytearray((repository / "models" / "mobilefacenet-prelu-fp32.onnx").read_bytes())
    data[1000] ^= 1
    (folder / "own.onnx").write_bytes(data)
    text = (repository / "models" / "manifest.toml").read_text()
    entry = text[text.index('[[model]]\nid = "mobilefacenet-prelu-fp32"') :]
    entry = entry[: entry.index("[[model]]", 5)].replace(
        "mobilefacenet-prelu-fp32.onnx", "own.onnx"
    )
    entry = entry.replace('"mobilefacenet-prelu-fp32"', '"own-fp32"')
    # No golden faces lie beside it.
    entry = re.sub(r"golden = .*\n", "", entry)
    (folder / "manifest.toml").write_text(entry.replace("mobilefacenet-192-4pt", space))
    return f'[models]\nembedder = "own-fp32"\nextra_dirs = ["{folder}"]\n'


def test_a_damaged_model_is_refused_by_name(daemon, repository, tmp_path):
    """One flipped byte in the only model of its space: the file and both hashes are named."""
    models = damaged_model(tmp_path / "models", repository, "own")
    daemon.write("http://127.0.0.1:9", extra=models)
    done = daemon.cli("run")
    assert done.returncode == 1
    assert "own.onnx has SHA-256" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_model_does_not_stop_a_kiosk_that_has_another(daemon, repository, tmp_path):
    """Another file of the same space serves; the damaged one is named as an error."""
    models = damaged_model(tmp_path / "models", repository, "mobilefacenet-192-4pt")
    daemon.write("http://127.0.0.1:9", extra=models)
    daemon.start()
    (refused,) = [line for line in daemon.said if "model.refused" in line]
    assert "own.onnx has SHA-256" in refused
    # Which of the shipped ones is fastest is for the processor to say.
    assert daemon.json("status")["model"].startswith("mobilefacenet-")
    assert daemon.stop() == 0


def test_a_state_folder_that_cannot_be_written(daemon, tmp_path):
    """A path below a file is told with its key and its reason."""
    (tmp_path / "file").write_text("")
    text = daemon.path.read_text().replace(f"{daemon.folder}/state", f"{tmp_path}/file/state")
    daemon.path.write_text(text)
    done = daemon.cli("run")
    assert done.returncode == 1
    assert "paths.state_dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gallery_of_another_model_is_told_at_start(daemon, people):
    """People enrolled with another model are not matched, and the journal says so."""
    from dataclasses import replace

    from kiosk.decide.gallery import Gallery, Template

    assert daemon.cli("enrol", "obama", str(people / "obama.jpg")).returncode == 0
    state = open_state(load(daemon.path))
    old = state.load_gallery().templates[0]
    moved = Template("obama", replace(old.embedding, space="other-model"), "x")
    state.save_gallery(Gallery([moved]))
    state.close()
    daemon.start(wait_for="gallery.other_model")
    assert daemon.stop() == 0


def test_a_gallery_of_another_device_is_refused(daemon, people, tmp_path):
    """A sealed gallery does not open under another device's key; it is left where it is."""
    assert daemon.cli("enrol", "obama", str(people / "obama.jpg")).returncode == 0
    state = daemon.folder / "state"
    shutil.move(state / "device.secret", tmp_path / "kept")
    done = daemon.cli("gallery", "list")
    assert done.returncode == 1
    assert "gallery.sealed" in done.stderr
    assert (state / "gallery.sealed").exists()


def test_a_missing_camera_is_told_and_the_daemon_stays(daemon):
    """Without a camera the kiosk still answers, and says what is missing."""
    daemon.write("http://127.0.0.1:9", replay=["/nowhere/film.mp4"])
    daemon.start(wait_for="camera.failed")
    status = daemon.json("status")
    assert status["camera"].startswith("failed: /nowhere/film.mp4")
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("state", "word", "level"),
    [
        ("failed: no cable", "failed", logging.WARNING),
        ("running", "running", logging.INFO),
    ],
)
def test_ready_says_how_the_camera_is(daemon, monkeypatch, caplog, state, word, level):
    """After camera.failed the line that says ready is a warning and says so too."""

    class Known(Lookout):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            self.state = state

        def run(self, stop):
            stop.wait(60)

    monkeypatch.setattr("kiosk.app.Lookout", Known)
    stop = threading.Event()
    stop.set()
    with caplog.at_level(logging.INFO, "kiosk"):
        assert Kiosk(load(daemon.path), clock=SystemClock()).run(stop) == 0
    (ready,) = [record for record in caplog.records if record.message == "kiosk.ready"]
    assert (ready.levelno, ready.fields["camera_state"]) == (level, word)


def test_the_end_of_a_replay_is_told(daemon):
    """`kiosk status` says in words that nobody is seen any more; a program reads one word."""
    daemon.path.write_text(daemon.path.read_text().replace("replay_loops = 0", "replay_loops = 1"))
    daemon.start(wait_for="camera.ended")
    assert daemon.json("status")["camera"] == "ended"
    assert "camera    ended: the replay is over, nobody is seen" in daemon.cli("status").stdout
    assert daemon.stop() == 0


def test_the_start_says_that_a_photograph_is_not_detected(daemon):
    """Honesty about liveness, in the journal and in doctor."""
    daemon.start()
    assert "liveness.not_measured" in "".join(daemon.said)
    done = daemon.cli("doctor")
    assert "a photograph of a person is not told from the person" in done.stdout
    assert done.returncode == 0, done.stdout
    assert daemon.stop() == 0
