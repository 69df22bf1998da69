"""The kiosk on a virtual Pi: what a deploy goes to, and what was deployed once for all tests."""

import fcntl
import json
import os
import shutil
import subprocess
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from deploy import site as sites
from deploy.site import Checkout, Site
from kiosk.capture.walkup import Wall
from service.machine import REPOSITORY
from system.board import Board
from system.machine import VirtualPi
from system.network import HOST, PI, Network

PEOPLE = "/srv/people"
# Who comes up again and again: a person, or nobody. To look at a face takes an emulated core
# seconds, and it has other work: people come when a test wants them.
VISITOR = f"{PEOPLE}/visitor.jpg"
# So many frames lie between two visits, which makes them two.
_NOBODY = 10
_NOBODY_COMES = f"""
[[camera.replay]]
path = "{PEOPLE}/nobody"
"""
HEALTH_S = 15
# Another file's tests on a machine before one's own, on a slow host.
_TURN_S = 7200
# An emulated core computes a fifteenth of a Pi's; what is measured at a start would take minutes.
_SLOWLY = """
[models]
prefer = "exact"
embedder = "mobilefacenet-int8-nhwc-u8"
threads = 1
[limits]
memory_mb = 0
"""


def until(what, condition, within_s):
    """Look until `condition` is truthy, seldom: an emulated core takes a second for a command."""
    return sites.until(what, condition, within_s, every_s=4.0)


class Product:
    """A virtual Pi, a server outside it, and whoever deploys."""

    def __init__(self, pi, network, folder, image, checkout):
        self.pi, self.network = pi, network
        self.board = Board(pi, network)
        self.site = Site(
            *(self.board, folder, checkout, image.key, network.inside()),
            address=PI,
            listen=HOST,
            exposed=True,
        )
        self._configure()
        self.site.serve()

    def _configure(self):
        """Frames of a size and at a pace that emulation holds."""
        text = self.site.config.read_text()
        # So small that a look at the whole is enough: no tiles of it are looked at.
        text = text.replace("width = 640\nheight = 480", "width = 432\nheight = 324")
        text = text.replace("replay_loops = 0", "replay_loops = 0\nframes_per_s = 1\n#")
        text = text.replace("[camera]", "[camera]\nframe_timeout_s = 30").replace("#\n", "")
        # Three frames of a face that is near enough, however busy the host is.
        text = text.replace("seconds = 2.0", "seconds = 10.0")
        text = text.replace(f"{PEOPLE}/obama3.jpg", VISITOR)
        # From one frame with a face to the next it may take as long as a visit's end elsewhere.
        text = text.replace("repeat_window_s = 0", "repeat_window_s = 0\nvisit_gap_s = 12")
        self.site.config.write_text(text + _NOBODY_COMES + _SLOWLY)

    def furnish(self):
        """What no deploy brings: the pictures that are replayed, and the server's authority."""
        self.board.run("mkdir", "-p", f"{PEOPLE}/nobody", "/etc/kiosk")
        picture = REPOSITORY / "kiosk/demo/people/obama3.jpg"
        self.board.put(f"{PEOPLE}/obama3.jpg", picture.read_bytes())
        wall = Wall(640, 480, np.random.default_rng(1)).picture.astype(np.uint8)
        self.board.put("/srv/nobody.png", _png(wall))
        link = f"ln -s /srv/nobody.png {PEOPLE}/nobody/$number.png"
        self.pi.ssh(f"for number in $(seq 100 {99 + _NOBODY}); do {link}; done")
        self.board.put("/etc/kiosk/server.pem", self.site.secrets.cert.read_bytes())
        self._comes("nobody")

    def _comes(self, name):
        self.board.run("ln", "-sfn", f"{PEOPLE}/{name}", VISITOR)

    @contextmanager
    def visitors(self):
        """Somebody walks up every half minute or so, and nobody any more afterwards."""
        self._comes("obama3.jpg")
        yield
        self._comes("nobody")

    def attendance(self):
        """What the server has recorded, the newest first."""
        return self.site.asked("/attendance?limit=1000")["attendance"]

    def recorded(self, beyond=0, within_s=240):
        """Let people come until the server has more than so many records, which are returned."""

        def more():
            rows = self.attendance()
            return rows if len(rows) > beyond else None

        with self.visitors():
            return until("a punch at the server", more, within_s)

    def without_gap(self):
        """Look that what the server has came once, and that no number is missing among it."""
        numbers = defaultdict(list)
        for row in self.attendance():
            queue, _, number = row["seq"].partition(":")
            numbers[queue].append(int(number))
        for queue, found in numbers.items():
            assert sorted(found) == list(range(1, max(found) + 1)), (queue, sorted(found))

    def waiting(self):
        """The events that wait on the Pi, by their ids."""
        said = self.site.kiosk("outbox", "list", "--json", "--limit", "1000")
        return [event["event_id"] for event in json.loads(said)["events"]]

    def running(self, other_than=0, within_s=300):
        """Wait until the service runs, as another process than that; its number."""

        def process():
            if self.board.property("kiosk", "SubState") != "running":
                return 0
            pid = self.board.pid("kiosk")
            return pid if pid != other_than else 0

        return until("a kiosk that runs", process, within_s)


def _png(picture):
    done, encoded = cv2.imencode(".png", picture)
    assert done
    return encoded.tobytes()


@contextmanager
def product(image, folder, *, programs, checkout=None, rtc=None, **machine):
    """A product on a machine that has booted; `machine` as VirtualPi takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        Network(folder / "network", programs) as network,
        VirtualPi(image, network, folder / "pi", **{"cpu": "cortex-a76", **machine}) as pi,
    ):
        pi.boot(rtc=rtc)
        pi.wait_ready()
        made = Product(pi, network, folder, image, checkout or Checkout(folder / "checkout"))
        try:
            yield made
        finally:
            made.site.end()


class Deployed:
    """A disk that the first release was deployed to, its server's files and the checkout."""

    def __init__(self, image, folder, programs):
        self.image, self.folder, self.programs = image, folder, programs
        self.said, self.state, self.security = (
            (folder / name).read_text() for name in ("said", "state", "security")
        )

    @contextmanager
    def product(self, folder, **machine):
        """A machine of its own over that disk, when there is room for one more."""
        with _turn(self.folder), self._product(folder, **machine) as made:
            made.running()
            yield made

    def _product(self, folder, **machine):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("attendance.db", "secrets", "checkout"):
            source = self.folder / name
            if source.is_dir():
                shutil.copytree(source, folder / name, symlinks=True)
            else:
                shutil.copy2(source, folder / name)
        again = Checkout.over(folder / "checkout")
        machine |= {"programs": self.programs, "checkout": again}
        return product(self.image, folder, **machine)


@contextmanager
def _turn(folder):
    """One machine for each core of the host; with more of them people walk past unseen."""
    with ExitStack() as files:
        turns = [
            files.enter_context((folder / f"turn-{number}").open("w"))
            for number in range(os.cpu_count() or 1)
        ]
        until("a core for a machine", lambda: any(map(_taken, turns)), _TURN_S)
        yield


def _taken(file):
    """Whether the lock is ours now; it is given back when the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def deployed(image, folder, programs):
    """Deploy once, whoever asks first; the others wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        disk = folder / "deployed.qcow2"
        if not disk.exists():
            _deploy_first(image, folder, programs, disk)
        return Deployed(replace(image, over=disk), folder, programs)


def word_by_word(site):
    """Do what the README's page on a Raspberry Pi says, as it says it; what that said."""
    readme = (REPOSITORY / "README.md").read_text()
    page = readme.split("## On a Raspberry Pi", 1)[1].split("\n## ", 1)[0]
    invite, *commands = page.split("```sh\n", 1)[1].split("```", 1)[0].splitlines()
    # The person's own files, in the checkout.
    shutil.copy2(site.config, site.checkout.folder / "kiosk.toml")
    picture = cv2.imread(str(REPOSITORY / "kiosk/demo/people/obama.jpg"))
    cv2.imwrite(str(site.checkout.folder / "anna1.jpg"), picture)
    cv2.imwrite(str(site.checkout.folder / "anna2.jpg"), cv2.flip(picture, 1))
    # The Pi's name, which a real network knows.
    options = site.folder / "ssh_config"
    named = f"Host raspberrypi.local\n HostName {site.address}\n"
    options.write_text(named + options.read_text())
    programs = f"{REPOSITORY}/.venv/bin:{site.environ()['PATH']}"
    environ = {**site.environ(), "PATH": programs, "HEALTH_S": str(HEALTH_S)}

    def do(command, folder):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    code = do(invite, site.folder).strip()
    assert len(commands) == 3
    return "".join(
        do(command.replace("K7QX-9M2P-4TRD-0001", code), site.checkout.folder)
        for command in commands
    )


def _deploy_first(image, folder: Path, programs, disk: Path):
    """From a fresh card whose clock is years behind to a kiosk that runs, and switch it off."""
    with product(image, folder, programs=programs, rtc="2023-01-01T00:00:00") as made:
        made.furnish()
        said = word_by_word(made.site)
        (folder / "said").write_text(said)
        (folder / "state").write_text(made.pi.wait_ready())
        security = made.board.run("systemd-analyze", "security", "--no-pager", "kiosk").stdout
        (folder / "security").write_text(security)
        made.pi.ssh("systemctl poweroff", check=False)
        made.pi.wait_off()
    command = ["qemu-img", "convert", "-q", "-O", "qcow2", folder / "pi/root.qcow2", disk]
    subprocess.run(list(map(str, command)), check=True)
