"""Which processor this is, as far as it decides what an INT8 model computes and how fast."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")

# What onnxruntime's INT8 kernels ask for: dot products on ARM, VNNI on x86.
_ARM = {"asimd", "asimddp", "asimdhp", "i8mm", "sve", "sve2"}
_VNNI = {"avx512_vnni", "avx_vnni"}
_FEATURES = _ARM | _VNNI | {"avx", "avx2", "avx512f", "avx512bw"}
# x86 names a model; ARM names implementer and part of each core, and the board.
_NAMES = ("vendor_id", "model name", "CPU implementer", "CPU part", "CPU variant", "Model")


@dataclass(frozen=True, slots=True)
class Cpu:
    """Architecture, name, and those features that decide about INT8, sorted."""

    machine: str
    name: str
    features: tuple[str, ...]

    @property
    def saturates(self) -> bool:
        """Whether U8S8 products are summed in 16 bits that saturate: x86 without VNNI."""
        return self.machine in {"x86_64", "i686"} and not _VNNI & set(self.features)

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self) | {"features": list(self.features)}


def read_cpu(cpuinfo: Path = CPUINFO) -> Cpu:
    """This machine's processor; without the file only its architecture is known."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        # A sandbox may hide it: what was measured is then kept for this architecture.
        text = ""
    said: dict[str, set[str]] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            said.setdefault(key.strip(), set()).add(value.strip())
    words = {word for key in ("flags", "Features") for v in said.get(key, ()) for word in v.split()}
    name = " ".join(v for key in _NAMES for v in sorted(said.get(key, ())))
    return Cpu(platform.machine(), name or "unknown", tuple(sorted(words & _FEATURES)))
