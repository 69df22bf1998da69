"""Whatever may be wrong with a release that is deployed to a virtual Pi 5."""

import pytest

from system.product import HEALTH_S

pytestmark = pytest.mark.system

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
    """By itself, while people come; the release before runs again."""
    site = product.site
    before = site.link("current")
    *change, health_s = BROKEN[how]
    if how == "hangs":
        site.checkout.change(change[0], "import logging\n", "import logging\nimport threading\n")
    site.checkout.change(*change)
    with site.begin("deploy", health_s=health_s) as sender:
        site.read_to(sender, "on trial now")
        with product.visitors():
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
    """The first release has the camera and the queue; of what was recorded nothing is missing."""
    product.recorded(len(product.attendance()))
    product.without_gap()
