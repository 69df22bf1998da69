"""Deploys to a virtual Pi 5: what a release brings, and whatever may be wrong with one."""

import pytest

from deploy.site import until
from system.network import PI
from system.product import HEALTH_S

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def product(once, tmp_path_factory):
    """A Pi that the first release runs on."""
    with once.product(tmp_path_factory.mktemp("releases")) as made:
        yield made


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
    _, said = site.make("deploy", health_s=HEALTH_S)
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
    """By itself; the release before runs, records and sends, and nothing is lost or doubled."""
    site = product.site
    before = site.link("current")
    *change, health_s = BROKEN[how]
    if how == "hangs":
        site.checkout.change(change[0], "import logging\n", "import logging\nimport threading\n")
    site.checkout.change(*change)
    status, said = site.make("deploy", check=False, health_s=health_s)
    assert status != 0
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
    site.checkout.commit("to be refused")
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


def test_a_deploy_that_is_killed_leaves_what_runs(product):
    """The sender dies with its link; the Pi's release, process and link are as they were."""
    site = product.site
    before = site.running()
    site.checkout.commit("killed before the switch")
    site.killed_at("making the release's own")
    assert site.running() == before
    until("the session to have ended", lambda: not site.sessions(), 600)


def test_a_trial_that_is_killed_goes_back(product):
    """Without a verdict nothing is trusted; through all of these no event came twice."""
    site = product.site
    before = site.link("current")
    site.checkout.commit("killed in its trial")
    with site.begin("deploy", health_s=120) as sender:
        site.read_to(sender, "switched to")
        product.board.run("systemctl", "kill", "--signal=KILL", "kiosk-trial")
        rest = sender.stdout.read()
    assert "the trial was cut short" in rest
    assert site.link("current") == before
    product.running()
    rows = [row["event_id"] for row in product.attendance()]
    assert len(rows) == len(set(rows))
