"""Debian's Chromium for the tests that look at a page, started in one way."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

# No GPU, no sandbox for root, and nothing of its own over the network.
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A running browser without a window, its profile new; without one the test is skipped."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if program is None:
        pytest.skip("chromium is not installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as player:
        running = player.chromium.launch(executable_path=program, args=_FLAGS)
        yield running
        running.close()
