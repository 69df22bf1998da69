"""The kiosk as a service under a systemd of its own, with the reference server beside it."""

import json
from pathlib import Path

import pytest

from service.machine import REPOSITORY, booted, reason_to_skip

DEPLOY = REPOSITORY / "deploy"
PEOPLE = "/opt/kiosk/current/venv/lib/python3.11/site-packages/kiosk/demo/people"
PORT = 8320
HANG_S = 120

CONFIG = f"""
[server]
url = "http://127.0.0.1:{PORT}"
backoff_base_s = 0.1
backoff_cap_s = 1.0
[journal]
names = true
[feedback]
page_port = 0
[camera]
source = "replay"
width = 640
height = 480
replay_loops = 0
[[camera.replay]]
path = "{PEOPLE}/obama3.jpg"
focus_x = 0.54
focus_y = 0.18
zoom = 2.3
seconds = 2.0
"""

# What only this place needs: an interpreter that lies elsewhere, and a worker that can be frozen.
HERE = """[Service]
Environment=LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/extra
"""
FREEZER = '''"""Lets a test freeze the thread that recognises: it hangs while a file is there."""
import os, sys, threading, time

def _watch():
    while "kiosk.vision.pipeline" not in sys.modules:
        time.sleep(0.02)
    time.sleep(0.5)
    kind = sys.modules["kiosk.vision.pipeline"].FacePipeline
    sightings = kind.sightings
    def frozen(self, frame):
        while os.path.exists(os.environ["RUNTIME_DIRECTORY"] + "/freeze"):
            time.sleep(0.1)
        return sightings(self, frame)
    kind.sightings = frozen

if "RUNTIME_DIRECTORY" in os.environ:
    threading.Thread(target=_watch, daemon=True).start()
'''


def service_files(name="kiosk", config=CONFIG, drop_in=""):
    """The unit as it is shipped, and what its host adds."""
    unit = (DEPLOY / "kiosk.service").read_text()
    if name != "kiosk":
        for key in ("StateDirectory", "RuntimeDirectory"):
            unit = unit.replace(f"{key}=kiosk", f"{key}={name}")
        unit = unit.replace("/etc/kiosk/", f"/etc/{name}/")
        config += f'[paths]\nstate_dir = "/var/lib/{name}"\nruntime_dir = "/run/{name}"\n'
    config += f'[metrics]\nfile = "/run/{name}/kiosk.prom"\n'
    return {
        f"/etc/systemd/system/{name}.service": unit,
        f"/etc/systemd/system/{name}.service.d/here.conf": HERE + drop_in,
        f"/etc/{name}/kiosk.toml": config,
        "/opt/extra/sitecustomize.py": FREEZER,
        "/etc/systemd/system/kiosk-check.service": (DEPLOY / "kiosk-check.service").read_text(),
        "/etc/systemd/system/kiosk-check.service.d/here.conf": HERE,
        "/etc/systemd/system/kiosk-check.timer": (DEPLOY / "kiosk-check.timer").read_text(),
        "/usr/lib/systemd/catalog/kiosk.catalog": (DEPLOY / "kiosk.catalog").read_text(),
    }


class Site:
    """A machine with a kiosk and a server."""

    def __init__(self, machine):
        self.machine = machine
        self.processes = []

    def serve(self):
        """The reference server, until the machine ends."""
        store = "sqlite:////var/tmp/attendance.db"
        listen = f"127.0.0.1:{PORT}"
        script = "/opt/kiosk/current/venv/bin/kiosk-server"
        self.machine.start(script, "--store", store, "--listen", listen)

    def status(self, name="kiosk"):
        done = self.machine.kiosk("status", "--json", "--config", f"/etc/{name}/kiosk.toml")
        return json.loads(done.stdout)

    def ready(self, name="kiosk", other_than=0):
        """The main process of a service that is ready, another one than that."""

        def running():
            state = self.machine.property(name, "SubState")
            pid = self.machine.pid(name)
            return pid if state == "running" and pid != other_than else 0

        return self.machine.until(f"{name} ready", running)


@pytest.fixture(scope="module")
def site(tmp_path_factory, request):
    """A site; a module may say in EXTRA_FILES what it has beside, in NAMES which services."""
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    files = {}
    for name, drop_in in getattr(request.module, "SERVICES", {"kiosk": ""}).items():
        files |= service_files(name, drop_in=drop_in)
    files |= getattr(request.module, "EXTRA_FILES", {})
    with booted(tmp_path_factory.mktemp("site"), files) as machine:
        yield Site(machine)


assert Path(DEPLOY).is_dir()
