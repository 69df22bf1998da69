"""The virtual Pi's disk, made once for all tests, and what was deployed to it once."""

import os
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from system import image as disk_image
from system.packages import UnavailableError
from system.product import Deployed, deployed

CACHE = Path(__file__).parents[2] / ".cache" / "system"


@contextmanager
def ahead():
    """What all others wait for goes ahead of what they do meanwhile; where that may not be, not."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, before - 10)
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.fixture(scope="session")
def image() -> disk_image.Image:
    """The disk that all machines are on."""
    try:
        with ahead():
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
        with ahead():
            return deployed(image, shared / "deployed", CACHE / "chrony")
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def product(once, tmp_path_factory):
    """A Pi 5 that the first release runs on, for one file of tests."""
    with once.product(tmp_path_factory.mktemp("pi")) as made:
        yield made
