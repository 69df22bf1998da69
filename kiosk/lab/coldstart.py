"""One model in a process of its own: how long the first answer takes, and how much memory it needs.

`python -m kiosk.lab.coldstart` reads a request as JSON from standard input and prints a reply as
JSON. It imports what the daemon's session needs and nothing of the workshop's libraries, so that
what is measured is the model and not onnx or matplotlib.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from kiosk.clock import SystemClock
from kiosk.errors import ModelError
from kiosk.vision.session import runtime_session

_STATUS = Path("/proc/self/status")


def daemon_session(
    data: bytes,
    threads: int,
    entries: Mapping[str, str] | None = None,
    profile_prefix: str | None = None,
) -> ort.InferenceSession:
    """A session with the daemon's own settings, and further session entries.

    ModelError when onnxruntime does not take the graph.
    """
    try:
        return runtime_session(data, threads, entries=entries, profile=profile_prefix)
    # onnxruntime's exceptions have no public base class of their own.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"onnxruntime {ort.__version__} cannot load the graph: {reason}"
        ) from error


def peak_bytes(status: Path = _STATUS) -> int:
    """The most memory this process ever had resident, in bytes.

    VmHWM of proc(5), not ru_maxrss of getrusage(2): that one keeps the parent's peak over fork
    and exec, so a large workshop would be counted as the model's.
    """
    for line in status.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ModelError(f"VmHWM expected in {status}, not found")


def main() -> int:
    """Load the named model, run it, tell milliseconds and bytes."""
    request = json.load(sys.stdin)
    data = Path(request["model"]).read_bytes()
    values = np.load(request["input"])
    clock = SystemClock()
    before = peak_bytes()
    began = clock.boottime_ns()
    session = daemon_session(data, request["threads"], request["entries"])
    loaded = clock.boottime_ns()
    feed = {session.get_inputs()[0].name: values}
    session.run(None, feed)
    answered = clock.boottime_ns()
    for _ in range(request["runs"]):
        session.run(None, feed)
    reply = {
        "session_ms": (loaded - began) / 1e6,
        "first_run_ms": (answered - loaded) / 1e6,
        "before_bytes": before,
        "peak_bytes": peak_bytes(),
    }
    json.dump(reply, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
