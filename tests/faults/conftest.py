"""The nursery of kiosks, a folder in memory, and the table of counts at the end."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults import disk
from faults.network import Network, network
from faults.nursery import Nursery
from faults.serving import server
from faults.tools import MissingToolError, have


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Forks kiosks."""
    with Nursery() as nursery:
        yield nursery


@pytest.fixture
def scratch() -> Iterator[Path]:
    """An empty folder, in memory where there is enough of it."""
    with tempfile.TemporaryDirectory(dir=disk.scratch(), prefix="faults-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """The server's program."""
    folder = tmp_path_factory.mktemp("server")
    with server(folder) as url:
        yield folder, url


@pytest.fixture
def net(served, scratch) -> Iterator[Network]:
    """The network before it."""
    with network(served, scratch) as opened:
        yield opened


@pytest.fixture
def tools(request) -> Callable[..., None]:
    """Ask for tools; skipped in words without them. Only the long run (as root) installs."""

    def need(*names: str) -> None:
        try:
            have(*names, install=request.node.get_closest_marker("faults") is not None)
        except MissingToolError as error:
            pytest.skip(str(error))

    return need


@pytest.fixture
def tell(record_property) -> Callable[..., None]:
    """Say what a fault's test counted: one line of the table at the end."""

    def line(fault: str, **counts: object) -> None:
        told = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())
        record_property("fault", f"{fault:<34} {told}")

    return line
