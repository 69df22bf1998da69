"""The older of the two systems, with its own Python, systemd and lock: to a kiosk, on and back."""

import pytest

from deploy.conftest import system_of
from deploy.site import until

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("deployed")]


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """Python 3.11 and systemd 252."""
    with system_of("bookworm", tmp_path_factory) as root:
        yield root


def test_a_fresh_bookworm_becomes_a_kiosk(site):
    """With the packages of its own lock; secret, key and service as on the newer one."""
    assert "(bookworm)" in site.said
    assert "Python 3.11" in site.said
    assert "device secret made here and sealed for this machine" in site.said
    assert "knows the key 1 of" in site.said
    assert "is healthy and stays" in site.said
    assert site.machine.run("systemctl", "--version").stdout.startswith("systemd 252 ")
    assert site.machine.property("kiosk", "SubState") == "running"


@pytest.mark.parametrize("unit", ["kiosk", "kiosk-check", "kiosk-settle", "kiosk-reboot"])
def test_each_unit_is_as_safe_there(site, unit):
    """By its own systemd's judgement."""
    assert site.exposure(unit) <= 1.3


def test_people_and_punches_survive_the_next_release_and_the_way_back(site):
    """Enrolled, recorded, upgraded, gone back."""
    picture = site.checkout.folder / "kiosk/demo/people/obama.jpg"
    site.make("enrol", "PERSON=anna", f"IMAGES={picture}")
    until("a punch at the server", lambda: site.asked("/attendance")["attendance"], 90)
    first = site.link("current")
    site.checkout.commit("two")
    _, said = site.make("deploy")
    assert "sending 1 of" in said
    assert "the running release can go back to them" in said
    assert (site.link("previous"), site.status()["people"]) == (first, 1)
    site.make("rollback")
    assert site.link("current") == first


def test_nothing_is_left_after_uninstall(site):
    """Templates, keys and user are gone; the server has what was recorded."""
    _, said = site.make("uninstall", "LOSE_EVENTS=1")
    assert "still there" not in said
    for path in ("/var/lib/kiosk", "/opt/kiosk", "/etc/credstore.encrypted/kiosk.secret"):
        assert site.machine.run("test", "-e", path, check=False).returncode != 0
    assert site.asked("/attendance")["attendance"]
