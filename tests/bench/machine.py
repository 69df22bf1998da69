"""What this machine is, and whether its 8-bit arithmetic says anything about the kiosk's."""

from kiosk.lab.machine import describe, title
from kiosk.vision.cpu import read_cpu


def name() -> str:
    """The processor's name and what decides about INT8."""
    return title(describe())


def int8_excuse() -> str:
    """Why INT8 times are only told here; empty where they are judged: with VNNI, or on ARM."""
    return "CPU without VNNI" if read_cpu().saturates else ""
