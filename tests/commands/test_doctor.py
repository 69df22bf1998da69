"""`kiosk doctor`: what it says of the server, the daemon's deliveries and the camera."""

import json
import socket
import socketserver
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from kiosk.clock import SystemClock
from kiosk.control import ControlServer
from kiosk.errors import ControlError


@pytest.fixture
def findings(kiosk, config):
    """A function that runs doctor with a URL and more text: its findings by what they are about."""

    def run(url="http://127.0.0.1:9", more="", server=""):
        path = config(more)
        path.write_text(path.read_text().replace('"http://127.0.0.1:9"', f'"{url}"\n{server}'))
        _, out, _ = kiosk("doctor", "--config", path, "--json")
        return {found["what"]: found for found in json.loads(out)}

    return run


@pytest.fixture
def listening():
    """A function that answers every connection with some bytes; its port."""
    servers = []

    def start(reply):
        class Answer(socketserver.BaseRequestHandler):
            def handle(self):
                self.request.recv(4096)
                self.request.sendall(reply)

        server = socketserver.TCPServer(("127.0.0.1", 0), Answer)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        servers.append((server, thread))
        return server.server_address[1]

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def head(status):
    return f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("reply", "verdict", "words"),
    [
        (head(200), "ok", "answers (status 200)"),
        (head(404), "ok", "answers (status 404)"),
        (head(401), "ok", "answers (status 401)"),
        (head(302), "warning", "status 302"),
        (head(503), "warning", "status 503"),
        (b"220 mail\r\n", "warning", "expected an HTTP reply"),
        (b"", "warning", "expected an HTTP reply"),
    ],
)
def test_the_server_is_asked(findings, listening, reply, verdict, words):
    """Whoever answers by HTTP is reached, a plain server's 404 too; other answers are told."""
    found = findings(f"http://127.0.0.1:{listening(reply)}")["server"]
    assert found["verdict"] == verdict
    assert words in found["found"]
    assert bool(found["advice"]) is (verdict != "ok")


def test_a_closed_port_is_a_warning(findings):
    """The kiosk keeps what it records: nobody there is told, and is no failure of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found = findings(f"http://127.0.0.1:{probe.getsockname()[1]}")["server"]
    assert found["verdict"] == "warning"
    assert "refused" in found["found"]


def test_a_name_that_nobody_knows_is_told(findings, monkeypatch):
    """DNS is named when it is DNS that fails."""

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = findings("https://nowhere.example")["server"]
    assert found["verdict"] == "warning"
    assert "nowhere.example to be known" in found["found"]
    assert "DNS" in found["advice"]


def test_tls_that_cannot_be_trusted_has_failed(findings, listening):
    """No waiting mends it: a port without TLS, an authority that is not there."""
    url = f"https://127.0.0.1:{listening(head(200))}"
    found = findings(url)["server"]
    assert (found["verdict"], "TLS" in found["found"]) == ("failed", True)
    found = findings(url, server='ca_file = "/no/ca"')["server"]
    assert (found["verdict"], "server.ca_file" in found["found"]) == ("failed", True)


KEYS = ("ca_file", "client_cert_file", "client_key_file")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://127.0.0.1:9"])
def test_pem_files_are_looked_for(findings, tmp_path, url):
    """Each that the configuration names, by its key, also while the server is plain http."""
    names = [tmp_path / "none.pem", tmp_path, tmp_path / "der.crt"]
    names[2].write_bytes(b"\x30\x82")
    lines = "\n".join(f'{key} = "{path}"' for key, path in zip(KEYS, names, strict=True))
    told = findings(url, server=lines)
    for key, path, words in zip(KEYS, names, ("there is none", "folder", "BEGIN"), strict=True):
        found = told[f"server.{key}"]
        assert (found["verdict"], bool(found["advice"])) == ("failed", True)
        assert found["found"].startswith(f"{path}: expected a PEM file")
        assert words in found["found"]
    names[0].write_text("-----BEGIN CERTIFICATE-----\n")
    assert findings(url, server=lines)["server.ca_file"]["verdict"] == "ok"
    assert not [what for what in findings(url) if what.startswith("server.")]


def test_a_file_that_this_user_may_not_read_is_told(findings, tmp_path, monkeypatch):
    """A key of another user's, and a state of another user's: both are findings, no fault."""
    state = tmp_path / "state"
    key = tmp_path / "ca.pem"

    def closed(real):
        def look(path, **kwargs):
            if path == key or path.parent == state:
                raise PermissionError(13, "Permission denied")
            return real(path, **kwargs)

        return look

    for method in ("read_bytes", "exists"):
        monkeypatch.setattr(Path, method, closed(getattr(Path, method)))
    told = findings(server=f'ca_file = "{key}"')
    assert "may not read it" in told["server.ca_file"]["found"]
    assert told["gallery"]["verdict"] == "failed"
    assert "kiosk's user" in told["gallery"]["advice"]


def test_a_daemon_of_another_user_is_no_daemon_that_is_off(findings, monkeypatch):
    """Doctor, run by somebody whom the socket is not for, does not say that nothing runs."""

    def refused(*_):
        raise ControlError("not for you", hint="sudo")

    monkeypatch.setattr("kiosk.health.daemon_listens", refused)
    found = findings()["daemon"]
    assert (found["verdict"], found["found"]) == ("failed", "not for you")


@pytest.fixture
def answering(tmp_path):
    """A daemon that answers `status`, while the context lasts."""

    @contextmanager
    def run(*, online=None, aside=0, camera="running"):
        status = {
            "online": online,
            "outbox": {"pending": 3, "quarantined": aside, "settled": 0, "oldest_ms": None},
            "cannot_record": "",
            "disk": {"used": 0.5, "free_bytes": 10**9, "reserve": 1.0, "ballast": True},
            "camera": camera,
        }
        answers, clock = {"status": lambda _: status}, SystemClock()
        server = ControlServer(str(tmp_path / "run"), answers, clock=clock, beat=lambda *_: None)
        server.open()
        stop = threading.Event()
        thread = threading.Thread(target=server.run, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            server.close()
            thread.join()

    return run


@pytest.mark.parametrize(
    ("camera", "verdict", "words"),
    [
        ("running", "ok", "frames come"),
        ("failed: /dev/video0: no frame", "failed", "/dev/video0: no frame"),
        ("ended", "warning", "the replay is over"),
    ],
)
def test_a_daemon_without_a_picture_is_told(findings, answering, camera, verdict, words):
    """A camera that is there may bring nothing: doctor says what the daemon sees of it."""
    with answering(camera=camera):
        found = findings()["picture"]
    assert found["verdict"] == verdict
    assert words in found["found"]
    assert bool(found["advice"]) is (verdict != "ok")


@pytest.mark.parametrize(
    ("online", "aside", "verdict"),
    [(None, 0, "ok"), (True, 0, "ok"), (True, 2, "warning"), (False, 0, "warning")],
)
def test_a_daemon_that_cannot_deliver_is_told(findings, answering, online, aside, verdict):
    """A server that answers doctor may still refuse the daemon: the daemon is asked too."""
    with answering(online=online, aside=aside):
        found = findings()
    assert found["daemon"]["verdict"] == "ok"
    assert found["delivery"]["verdict"] == verdict
    assert "3 waiting" in found["delivery"]["found"]


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        ('source = "v4l2"\ndevice = "/dev/no-camera"', "/dev/no-camera: a V4L2 camera expected"),
        ('source = "v4l2"\ndevice = "/etc/hostname"', "it is not a device"),
        ('source = "replay"\nreplay = [{path = "/no/video.mp4"}]', "/no/video.mp4"),
        ("", "picamera2"),
    ],
)
def test_a_camera_that_is_not_there_has_failed(findings, monkeypatch, camera, words):
    """Each source is looked for without being opened, and the advice says what to do."""
    monkeypatch.setattr("kiosk.health.find_spec", lambda _: None)
    found = findings(more=f"[camera]\n{camera}\n")["camera"]
    assert found["verdict"] == "failed"
    assert words in found["found"]
    assert found["advice"]


@pytest.mark.parametrize(
    "camera",
    ['source = "v4l2"\ndevice = "/dev/null"', 'source = "replay"\nreplay = [{path = "/"}]', ""],
)
def test_a_camera_that_is_there_is_not_opened(findings, monkeypatch, camera):
    """A daemon may hold it: it is enough that it is there."""
    monkeypatch.setattr("kiosk.health.find_spec", lambda name: name)
    monkeypatch.setattr("cv2.VideoCapture", None)
    assert findings(more=f"[camera]\n{camera}\n")["camera"]["verdict"] == "ok"


def test_figures_that_nobody_can_keep_are_told(findings, tmp_path):
    """The folder of metrics.file, as check-config sees it; nothing where no file is asked for."""
    assert "figures" not in findings()
    table = f'[metrics]\nfile = "{tmp_path}/kiosk.prom"\n'
    assert findings(more=table)["figures"]["verdict"] == "ok"
    found = findings(more=table.replace("kiosk.prom", "none/kiosk.prom"))["figures"]
    assert found["verdict"] == "failed"
    assert f"expected a folder at '{tmp_path}/none', there is none" in found["found"]


def test_a_configuration_that_is_refused_hides_nothing_else(findings, tmp_path):
    """The daemon goes on with the last one that checked; how that does is told all the same."""
    found = findings(more="[recognition]\nthreshold = 7\n")
    assert found["configuration"]["verdict"] == "failed"
    assert "daemon" not in found
    state = tmp_path / "state"
    state.mkdir(exist_ok=True)
    good = next(tmp_path.rglob("*.toml")).read_text().replace("threshold = 7", "threshold = 0.5")
    (state / "config.good.toml").write_text(good)
    found = findings(more="[recognition]\nthreshold = 7\n")
    assert found["configuration"]["verdict"] == "failed"
    assert found["last configuration"]["verdict"] == "ok"
    assert {"daemon", "camera", "server"} <= set(found)
