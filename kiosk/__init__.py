"""Face-attendance kiosk: camera frame to attendance receipt, with a durable queue in between."""

import os

# onnxruntime reads it when it is imported: it would write a device id and a usage database below
# the home folder, and report. Whatever of the kiosk imports it first has passed here.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__: str


def __getattr__(name: str) -> str:
    """The version, read from the package's metadata when somebody asks: that takes its time."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("face-kiosk")
