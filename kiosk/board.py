"""What the board says of itself: temperature and power, from the kernel's files.

Never seen on a board: the paths are those of the Raspberry Pi kernel's drivers
`thermal-bcm2835` and `raspberrypi-firmware` (`get_throttled`; the bits are those of
`vcgencmd get_throttled`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys")
_TEMPERATURE = "class/thermal/thermal_zone0/temp"
_THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"
_UNDER_VOLTAGE, _CAPPED, _THROTTLING, _SOFT_LIMIT = 0x1, 0x2, 0x4, 0x8
_EVER = 16


@dataclass(frozen=True, slots=True)
class Board:
    """One look at the board; None for what it does not tell."""

    temperature_c: float | None
    under_voltage: bool | None
    throttled: bool | None
    """The firmware holds the clock down now, for heat or for want of power."""
    under_voltage_since_boot: bool | None

    def document(self) -> dict[str, float | bool | None]:
        """The JSON form."""
        return {
            "temperature_c": self.temperature_c,
            "under_voltage": self.under_voltage,
            "throttled": self.throttled,
            "under_voltage_since_boot": self.under_voltage_since_boot,
        }


def read_board(sysfs: Path = SYSFS) -> Board:
    """Look once; a file that is not there or says something else is None."""
    milli = _number(sysfs / _TEMPERATURE, 10)
    bits = _number(sysfs / _THROTTLED, 16)
    temperature_c = None if milli is None else milli / 1000
    if bits is None:
        return Board(temperature_c, None, None, None)
    throttled = bool(bits & (_CAPPED | _THROTTLING | _SOFT_LIMIT))
    ever = bool(bits >> _EVER & _UNDER_VOLTAGE)
    return Board(temperature_c, bool(bits & _UNDER_VOLTAGE), throttled, ever)


def _number(path: Path, base: int) -> int | None:
    try:
        return int(path.read_text(encoding="ascii").strip(), base)
    except (OSError, ValueError):
        return None
