"""Face-attendance kiosk: camera frame to attendance receipt, with a durable queue in between."""

__version__ = "0.1.0"
