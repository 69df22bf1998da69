"""The virtual Pi's disk, made once for all tests, and what was deployed to it once."""

import os
from pathlib import Path

import pytest

from system import image as disk_image
from system.packages import UnavailableError
from system.product import Deployed, deployed

CACHE = Path(__file__).parents[2] / ".cache" / "system"


@pytest.fixture(scope="session")
def image() -> disk_image.Image:
    """The disk that all machines are on."""
    try:
        return disk_image.made(CACHE, cache=CACHE / "images")
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def once(image, tmp_path_factory) -> Deployed:
    """The first release, deployed once for all that run side by side."""
    shared = tmp_path_factory.getbasetemp()
    # Each of several workers has a folder of its own in theirs.
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    try:
        return deployed(image, shared / "deployed", CACHE / "chrony")
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def product(once, tmp_path_factory):
    """A Pi 5 that the first release runs on, for one file of tests."""
    with once.product(tmp_path_factory.mktemp("pi")) as made:
        yield made
