"""What the board says of itself: temperature, power and card, from the kernel's files.

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
# Of the card: wear as eMMC tells it (JEDEC JESD84-B51, tenths of its life; an SD card tells none),
# and what was written to it since the boot (Documentation/block/stat.rst, field 7, sectors).
_LIFE = "block/mmcblk0/device/life_time"
_STAT = "block/mmcblk0/stat"
_WRITTEN_FIELD, _SECTOR_BYTES = 6, 512


@dataclass(frozen=True, slots=True)
class Board:
    """One look at the board; None for what it does not tell."""

    temperature_c: float | None
    under_voltage: bool | None
    throttled: bool | None
    """The firmware holds the clock down now, for heat or for want of power."""
    under_voltage_since_boot: bool | None
    card_wear: float | None = None
    """Share of its life that the card says is used, 0.1 to 1.1; an SD card says nothing."""
    card_written_bytes: int | None = None
    """Written to the card since the boot, by everybody."""

    def document(self) -> dict[str, float | bool | None]:
        """The JSON form."""
        return {
            "temperature_c": self.temperature_c,
            "under_voltage": self.under_voltage,
            "throttled": self.throttled,
            "under_voltage_since_boot": self.under_voltage_since_boot,
            "card_wear": self.card_wear,
            "card_written_bytes": self.card_written_bytes,
        }


def read_board(sysfs: Path = SYSFS) -> Board:
    """Look once; a file that is not there or says something else is None."""
    milli = _number(sysfs / _TEMPERATURE, 10)
    bits = _number(sysfs / _THROTTLED, 16)
    temperature_c = None if milli is None else milli / 1000
    card = (_wear(sysfs / _LIFE), _written(sysfs / _STAT))
    if bits is None:
        return Board(temperature_c, None, None, None, *card)
    throttled = bool(bits & (_CAPPED | _THROTTLING | _SOFT_LIMIT))
    ever = bool(bits >> _EVER & _UNDER_VOLTAGE)
    return Board(temperature_c, bool(bits & _UNDER_VOLTAGE), throttled, ever, *card)


def _wear(path: Path) -> float | None:
    """The worse of its two kinds of cells."""
    try:
        tenths = max(int(word, 16) for word in path.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return None
    # 0 is for a card that does not tell.
    return tenths / 10 or None


def _written(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii").split()[_WRITTEN_FIELD]) * _SECTOR_BYTES
    except (OSError, ValueError, IndexError):
        return None


def _number(path: Path, base: int) -> int | None:
    try:
        return int(path.read_text(encoding="ascii").strip(), base)
    except (OSError, ValueError):
        return None
