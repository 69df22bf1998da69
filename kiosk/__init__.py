"""Face-attendance kiosk: camera frame to attendance receipt, with a durable queue in between."""

import os
from importlib.metadata import version

# onnxruntime reads it when it is imported: it would write a device id and a usage database below
# the home folder, and report. Whatever of the kiosk imports it first has passed here.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = version("face-kiosk")
