"""The virtual Pi's disk, made once for all tests, and a network for each file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from system import image as disk_image
from system.network import Network
from system.packages import UnavailableError

CACHE = Path(__file__).parents[2] / ".cache" / "system"


@pytest.fixture(scope="session")
def image() -> disk_image.Image:
    """The disk that all machines are on."""
    try:
        return disk_image.made(CACHE, cache=CACHE / "images")
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def network(image, tmp_path_factory) -> Iterator[Network]:
    """A network for one machine at a time."""
    try:
        opened = Network(tmp_path_factory.mktemp("network"), CACHE / "chrony")
    except UnavailableError as error:
        pytest.skip(str(error))
    with opened:
        yield opened
