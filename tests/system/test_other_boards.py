"""A Pi 4, and a Pi 5 with its own kernel's page size: what a release does there."""

import pytest

from system.product import HEALTH_S
from system.test_troubles import same_as_here

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", params=[("cortex-a72", "4k"), ("cortex-a76", "16k")], ids="-".join)
def product(request, once, tmp_path_factory):
    """The card of the first release, in another board."""
    cpu, pages = request.param
    with once.product(tmp_path_factory.mktemp("other"), cpu=cpu, pages=pages) as made:
        made.cpu, made.pages = cpu, pages
        yield made


def test_it_boots_and_runs_what_was_deployed(product):
    """Every unit, and the kiosk ready; on pages and a core of this kind."""
    assert product.pi.wait_ready() == "running"
    said = product.pi.as_pi("python3 -c 'import os; print(os.sysconf(\"SC_PAGESIZE\"))'").stdout
    assert said.strip() == ("16384" if product.pages == "16k" else "4096")
    dot = "asimddp" in product.pi.ssh("cat /proc/cpuinfo").stdout
    assert dot == (product.cpu == "cortex-a76")


def test_a_walk_up_is_recorded_outside(product):
    """Recognised on this core."""
    assert product.recorded(len(product.attendance()))[0]["employee"] == "anna"


@pytest.mark.parametrize(
    ("model", "least"),
    [("mobilefacenet-fp32", 0.99999), ("mobilefacenet-int8-nhwc-u8", 0.999)],
)
def test_embeddings_are_those_of_x86(product, model, least):
    """Golden faces on this core, and here."""
    same_as_here(product, model, least)


def test_a_deploy_and_a_rollback(product):
    """READY and healthy here too, and back again."""
    site = product.site
    old = site.link("current")
    site.checkout.commit("two")
    _, said = site.make("deploy", health_s=HEALTH_S)
    assert "is healthy and stays" in said
    _, said = site.make("rollback", health_s=HEALTH_S)
    assert f"{old} is healthy and stays" in said
    assert site.link("current") == old
