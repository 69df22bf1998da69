"""Deploys to a virtual Pi 5: what a release brings, the way back, and all that may go wrong.

One machine for all of them, which goes from test to test.
"""

from contextlib import nullcontext

import pytest

from system.network import PI
from system.product import HEALTH_S, until

pytestmark = pytest.mark.system


def test_a_fresh_card_becomes_a_kiosk(once):
    """By the README's own words: packages, secret, key at the server, READY, healthy, running."""
    for said in (
        "sending 18 of 18 files",
        "device secret made here and sealed for this machine",
        "knows the key 1 of",
        "python3-picamera2: absent (not needed)",
        "python3-lgpio: absent (not needed)",
        "is healthy and stays",
        "raspberrypi.local  1.0.0-",
    ):
        assert said in once.said
    assert "python3-systemd" not in once.said, "it is in the image, and is found there"
    assert once.state == "running"
    level = float(once.security.rsplit("exposure level for kiosk.service:", 1)[1].split()[0])
    assert level <= 1.3


def test_there_is_no_way_out(product):
    """The Pi reaches the test's own side and no other: all that was deployed came by ssh."""
    routes = product.pi.ssh("ip route").stdout.splitlines()
    assert len(routes) == 1
    assert PI in routes[0]


def test_a_walk_up_is_recorded_outside(product):
    """Replayed, recognised on the emulated core, sealed, sent over TLS, signed, at the server."""
    record = product.recorded()[0]
    assert record["employee"] == "anna"
    assert record["signed"]
    assert record["clock"] in {"synced", "corrected"}


def test_the_next_release(product):
    """Only what changed is sent; people, id and queue are the same; the old one is kept."""
    site = product.site
    device, before = site.status()["device"], site.link("current")
    site.checkout.commit("two")
    with site.begin("deploy", health_s=HEALTH_S) as sender:
        said = site.read_to(sender, "on a copy")
        with product.visitors():
            said += sender.stdout.read()
    assert sender.returncode == 0, said
    assert "sending 1 of" in said
    assert "the Pi is furnished already, nothing was changed" in said
    assert "the running release can go back to them" in said
    status = site.status()
    assert (status["device"], status["people"]) == (device, 1)
    assert site.link("previous") == before
    product.recorded(len(product.attendance()))


def test_a_rollback(product):
    """Back to the release before, by one command."""
    site = product.site
    old = site.link("previous")
    site.make("rollback", health_s=HEALTH_S)
    assert site.link("current") == old


# What a deploy says, in this order, before it switches.
STEPS = (
    "sending 1 of",
    "making the release's own",
    "the configuration, libraries",
    "hands out a copy",
    "the queue's tables",
)


def test_a_deploy_that_is_killed_at_any_step_leaves_what_runs(product):
    """The sender dies with its link; the Pi's release, process and link are as they were."""
    site = product.site
    before = site.running()
    site.checkout.commit("killed before the switch")
    for step in STEPS:
        site.killed_at(step)
        until("the session to have ended", lambda: not site.sessions(), 600)
        assert site.running() == before, step


def test_a_trial_goes_on_without_whoever_began_it(product):
    """The sender dies behind the switch: the verdict is the Pi's own, and a good one."""
    site = product.site
    known = len(site.history())
    site.killed_at("switched to")
    until("a verdict", lambda: len(site.history()) > known, 600)
    assert site.history()[-1]["outcome"] == "kept"
    product.running()


def test_a_trial_that_is_killed_goes_back(product):
    """Without a verdict nothing is trusted."""
    site = product.site
    before = site.link("current")
    site.checkout.commit("killed in its trial")
    with site.begin("deploy", health_s=120) as sender:
        site.read_to(sender, "switched to")
        with product.visitors():
            product.board.run("systemctl", "kill", "--signal=KILL", "kiosk-trial")
            rest = sender.stdout.read()
    assert "the trial was cut short" in rest
    assert site.link("current") == before
    product.running()
    site.checkout.undo()


# What is replaced by what, in which file; the healthy seconds that find it.
BROKEN = {
    "does not start": (
        "kiosk/commands/daemon.py",
        "    from kiosk.memory import keep_small\n",
        '    raise SystemExit("no such luck")\n',
        HEALTH_S,
    ),
    "crashes at once": (
        "kiosk/reception.py",
        "    def receive(self, frame: Frame) -> bool:\n",
        "    def receive(self, frame: Frame) -> bool:\n"
        "        raise RuntimeError('no such luck')\n",
        HEALTH_S,
    ),
    "crashes after 30 s": (
        "kiosk/standing.py",
        '        """The running daemon in one JSON document."""\n',
        '        """The running daemon in one JSON document."""\n'
        "        if self.clock.boottime_ns() - self.began_ns > 30e9: os._exit(9)\n",
        45,
    ),
    "hangs": (
        "kiosk/reception.py",
        "    def receive(self, frame: Frame) -> bool:\n",
        "    def receive(self, frame: Frame) -> bool:\n        threading.Event().wait()\n",
        60,
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_release_is_gone_back_from(product, how):
    """By itself, in one case while people come; the release before runs again."""
    site = product.site
    before = site.link("current")
    *change, health_s = BROKEN[how]
    if how == "hangs":
        site.checkout.change(change[0], "import logging\n", "import logging\nimport threading\n")
    site.checkout.change(*change)
    with site.begin("deploy", health_s=health_s) as sender:
        site.read_to(sender, "on trial now")
        with product.visitors() if how == "crashes after 30 s" else nullcontext():
            said = sender.stdout.read()
    assert sender.returncode != 0
    assert "went back" in said, said
    assert site.link("current") == before
    product.running()
    site.checkout.git("reset", "--quiet", "--hard", "HEAD~2" if how == "hangs" else "HEAD~1")


REFUSED = {
    "bad configuration": (None, None, None, "recognition.threshold"),
    "bad migration": (
        "kiosk/outbox/schema.py",
        '        "INSERT INTO reader VALUES (1, 5)",\n    ),\n',
        '        "INSERT INTO reader VALUES (1, 5)",\n    ),\n    ("CREATE NONSENSE",),\n',
        "NONSENSE",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_shows_beforehand_is_not_switched_to(product, what):
    """The process that runs is not touched."""
    site = product.site
    before = site.running()
    *change, told = REFUSED[what]
    variables = []
    if change[0]:
        site.checkout.change(*change)
    else:
        bad = site.folder / "bad.toml"
        text = site.config.read_text()
        bad.write_text(text.replace("[recognition]\n", "[recognition]\nthreshold = 7\n"))
        variables = [f"CONFIG={bad}"]
    status, said = site.make("deploy", *variables, check=False, health_s=HEALTH_S)
    assert status != 0
    assert told in said
    assert site.running() == before
    if change[0]:
        site.checkout.undo()


def test_after_all_of_these_people_are_recorded(product):
    """Of what was recorded through all that was deployed, nothing is missing and nothing double."""
    product.recorded(len(product.attendance()))
    product.without_gap()


def test_a_camera_is_unplugged_and_plugged_in_again(product):
    """The kernel's virtual camera through the real V4L2 source: it goes, it comes back."""
    site = product.site
    product.pi.ssh("modprobe vivid n_devs=1 node_types=0x1 && udevadm settle")
    text = site.config.read_text()
    begin, end = text.index("[camera]"), text.index("[models]")
    camera = '[camera]\nsource = "v4l2"\ndevice = "/dev/video0"\nwidth = 320\nheight = 180\n'
    camera += "frames_per_s = 1\nframe_timeout_s = 10\n"
    site.config.write_text(text[:begin] + camera + text[end:])
    _, said = site.make("deploy", f"CONFIG={site.config}", health_s=HEALTH_S)
    assert "is healthy and stays" in said
    assert site.status()["camera"] == "running"
    product.pi.ssh("echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind")
    until("word of it", lambda: product.board.events("camera.failed"), 120)
    assert product.board.property("kiosk", "SubState") == "running"
    product.pi.ssh("echo vivid.0 > /sys/bus/platform/drivers/vivid/bind && udevadm settle")
    until("the camera back", lambda: site.status()["camera"] == "running", 180)
    assert product.board.events("camera.recovered")
