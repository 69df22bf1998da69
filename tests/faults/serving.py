"""The real attendance server for thousands of requests: what it logs goes to a file."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.chaos import HANG_S

DATABASE = "a.db"


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start it on a free port; yields its URL. Its records are in DATABASE of the folder."""
    command = [sys.executable, "-m", "kiosk.server", "--store", f"sqlite:///{folder}/{DATABASE}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on "), (folder / "log").read_text()
        yield line.removeprefix("listening on ").strip()
    finally:
        process.terminate()
        process.communicate(timeout=HANG_S)
