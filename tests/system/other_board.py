"""What a release does on another board than the Pi 5 with small pages; for each a file."""

import pytest

from system.product import HEALTH_S
from system.test_troubles import same_as_here


class OtherBoard:
    """A board that the card of the first release is put into."""

    cpu = pages = ""

    @pytest.fixture(scope="class")
    @classmethod
    def product(cls, once, tmp_path_factory):
        """It has booted, and runs what was deployed."""
        folder = tmp_path_factory.mktemp("other")
        with once.product(folder, cpu=cls.cpu, pages=cls.pages) as made:
            yield made

    def test_it_boots_and_runs_what_was_deployed(self, product):
        """Every unit, and the kiosk ready; on pages and a core of this kind."""
        assert product.pi.wait_ready() == "running"
        ask = "python3 -c 'import os; print(os.sysconf(\"SC_PAGESIZE\"))'"
        assert product.pi.as_pi(ask).stdout.strip() == str(int(self.pages[:-1]) * 1024)
        dot = "asimddp" in product.pi.ssh("cat /proc/cpuinfo").stdout
        assert dot == (self.cpu == "cortex-a76")

    def test_a_walk_up_is_recorded_outside(self, product):
        """Recognised on this core."""
        assert product.recorded(len(product.attendance()))[0]["employee"] == "anna"

    @pytest.mark.parametrize(
        ("model", "least"),
        [("mobilefacenet-fp32", 0.99999), ("mobilefacenet-int8-nhwc-u8", 0.999)],
    )
    def test_embeddings_are_those_of_x86(self, product, model, least):
        """Golden faces on this core, and here."""
        same_as_here(product, model, least)

    def test_a_deploy_and_a_rollback(self, product):
        """READY and healthy here too, and back again."""
        site = product.site
        old = site.link("current")
        site.checkout.commit("two")
        _, said = site.make("deploy", health_s=HEALTH_S)
        assert "is healthy and stays" in said
        _, said = site.make("rollback", health_s=HEALTH_S)
        assert f"{old} is healthy and stays" in said
        assert site.link("current") == old
