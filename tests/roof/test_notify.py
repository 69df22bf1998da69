"""What the service manager hears, on a socket of the test's own."""

import logging
import os
import socket

import pytest

from kiosk.notify import Notifier

HANG_S = 20


@pytest.fixture
def manager(tmp_path):
    """A service manager's socket, and a function that reads what came."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        path = str(tmp_path / "notify")
        listening.bind(path)
        listening.settimeout(HANG_S)
        yield path, lambda: listening.recv(4096).decode()


def test_the_words_are_systemds(manager):
    """Ready, alive, status (once for each change, on one line), longer start, stopping."""
    path, heard = manager
    notifier = Notifier({"NOTIFY_SOCKET": path})
    notifier.takes(1.5)
    notifier.ready()
    notifier.status("running;\nqueue 3")
    notifier.status("running;\nqueue 3")
    notifier.alive()
    notifier.stopping()
    assert [heard() for _ in range(5)] == [
        "EXTEND_TIMEOUT_USEC=1500000",
        "READY=1",
        "STATUS=running; queue 3",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=stopping",
    ]


def test_an_abstract_socket_is_understood():
    """systemd may hand in a name in the abstract space, written with @."""
    name = f"kiosk-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(HANG_S)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert listening.recv(100) == b"READY=1"


def test_without_a_manager_nothing_is_sent():
    """On a terminal there is nobody to tell, and no watchdog."""
    notifier = Notifier({})
    notifier.ready()
    assert notifier.watchdog_s is None


def test_a_manager_that_is_gone_is_told_once(tmp_path, caplog):
    """The kiosk goes on; the journal says once that nobody listens."""
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with caplog.at_level(logging.WARNING):
        notifier.alive()
        notifier.alive()
    assert [record.message for record in caplog.records] == ["kiosk.not_notified"]


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_may_be_another_process_s(environ, seconds):
    """WATCHDOG_PID names whom it is meant for (sd_watchdog_enabled(3))."""
    assert Notifier(environ).watchdog_s == seconds
