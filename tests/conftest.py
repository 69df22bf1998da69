"""Fixtures that several folders share; no test reaches beyond this machine."""

import logging
import socket
from pathlib import Path

import pytest

from browser import chromium
from confidential import Confidential, install

REPOSITORY = Path(__file__).parent.parent
CONFIDENTIAL = Confidential()
install(CONFIDENTIAL)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of evaluation data beside the checkout."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("../shared is absent")
    return folder


@pytest.fixture(scope="session")
def people() -> Path:
    """The demonstration photographs."""
    return REPOSITORY / "kiosk" / "demo" / "people"


@pytest.fixture(scope="module")
def browser():
    """Chromium, for the tests of one file."""
    with chromium() as running:
        yield running


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """No test may connect to another machine."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))


@pytest.fixture
def confidential():
    """What no log may hold, as far as this process has made it."""
    return CONFIDENTIAL


@pytest.fixture(autouse=True)
def _nothing_confidential_is_logged():
    """Neither a secret, a key nor an embedding goes into a line of the journal, in any test."""
    CONFIDENTIAL.found.clear()
    yield
    assert not CONFIDENTIAL.found, f"a secret or an embedding was logged: {CONFIDENTIAL.found}"


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """A command that sets up the journal does so for its own test only."""
    loggers = [logging.getLogger(name) for name in (None, "kiosk", "urllib3")]
    handlers, levels = loggers[0].handlers[:], [logger.level for logger in loggers]
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def guarded(connect):
    """A socket's method that refuses every address beyond loopback."""

    def only_here(self, address):
        host = address[0] if isinstance(address, tuple) else "127.0.0.1"
        if host not in {"127.0.0.1", "::1", "localhost"} and not str(host).startswith("127."):
            raise AssertionError(f"a test tried to reach {address}; only loopback is allowed")
        return connect(self, address)

    return only_here


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the tables: the reports carry their lines, from whichever process ran them."""
    kinds = ("passed", "failed", "skipped")
    reports = [one for kind in kinds for one in terminalreporter.getreports(kind)]
    told = [line for one in reports for name, line in one.user_properties if name == "fault"]
    shown = sorted(_shown(one) for one in reports if one.nodeid.startswith("tests/system/"))
    for title, lines in (("faults", told), ("virtual Raspberry Pi", shown)):
        if lines:
            terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)


def _shown(report) -> str:
    """What a test on the virtual Pi came to, as a line: its file, its name, how long it took."""
    file, _, rest = report.nodeid.removeprefix("tests/system/test_").partition(".py::")
    _, _, name = rest.partition("test_")
    figures = [line for key, line in report.user_properties if key == "figure"]
    words = f"{name.replace('_', ' ')}{': ' if figures else ''}{', '.join(figures)}"
    return f"{file:15} {report.outcome:7} {report.duration:4.0f} s  {words}"
