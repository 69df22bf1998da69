"""Which processor this is, as far as it decides what an INT8 model computes and how fast."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")

# What onnxruntime's INT8 kernels ask for: dot products on ARM, VNNI on x86.
_ARM = {"asimd", "asimddp", "asimdhp", "i8mm", "sve", "sve2"}
_VNNI = {"avx512_vnni", "avx_vnni"}
_FEATURES = _ARM | _VNNI | {"avx", "avx2", "avx512f", "avx512bw", "amx_int8"}
_X86 = {"x86_64", "amd64", "i386", "i686"}
# x86 names a model; ARM names implementer and part of each core, and the board.
_NAMES = ("vendor_id", "model name", "CPU implementer", "CPU part", "CPU variant", "Model")
# An ARM kernel names no model, only the part; those of the Raspberry Pi 3, 4 and 5.
_ARM_PARTS = {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76"}


@dataclass(frozen=True, slots=True)
class Cpu:
    """Architecture, name, and those features that decide about INT8, sorted.

    `name` holds all that tells two processors apart, `title` what a person calls this one.
    """

    machine: str
    name: str
    features: tuple[str, ...]
    title: str = "unknown processor"

    @property
    def saturates(self) -> bool:
        """Whether U8S8 products are summed in 16 bits that saturate: x86 without VNNI."""
        return self.machine.lower() in _X86 and not _VNNI & set(self.features)

    @property
    def has_dot_product(self) -> bool:
        """Whether sums of 8-bit products are one instruction: ARM's dot product, x86's VNNI."""
        return bool({"asimddp", *_VNNI} & set(self.features))

    def document(self) -> dict[str, Any]:
        """The JSON form, which a kept choice of model is compared by."""
        return {"machine": self.machine, "name": self.name, "features": list(self.features)}


def read_cpu(cpuinfo: Path = CPUINFO) -> Cpu:
    """This machine's processor; without the file only its architecture is known."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        # A sandbox may hide it: what was measured is then kept for this architecture.
        text = ""
    return cpu_of(text, platform.machine())


def cpu_of(text: str, machine: str) -> Cpu:
    """The same from the text of /proc/cpuinfo and the name that `uname -m` gives."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            said.setdefault(key.strip(), []).append(value.strip())
    words = {word for key in ("flags", "Features") for v in said.get(key, ()) for word in v.split()}
    name = " ".join(v for key in _NAMES for v in sorted(set(said.get(key, ()))))
    return Cpu(machine, name or "unknown", tuple(sorted(words & _FEATURES)), _title(said))


def _title(said: Mapping[str, Sequence[str]]) -> str:
    # The first core speaks for all; a Pi names its board after the last one.
    first = {key: values[0] for key, values in said.items()}
    part = _ARM_PARTS.get(first.get("CPU part", ""), "")
    named = first.get("model name") or " ".join(filter(None, (first.get("Model"), part)))
    return named or "unknown processor"
