"""What this machine is, and whether its 8-bit arithmetic says anything about the kiosk's."""

import platform
from pathlib import Path

TOLD = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "asimddp")


def _cpuinfo() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def flags() -> set[str]:
    """The processor's features, as the kernel calls them."""
    info = _cpuinfo()
    return set((info.get("flags") or info.get("Features") or "").split())


def name() -> str:
    """The processor's name and what decides about INT8."""
    info = _cpuinfo()
    model = info.get("model name") or f"part {info.get('CPU part', 'unknown')}"
    here = flags()
    told = " ".join(flag for flag in TOLD if flag in here)
    return f"{model}, {platform.machine()} ({told})"


def int8_excuse() -> str:
    """Why INT8 times are only told here; empty where they are judged: with VNNI, or on ARM."""
    here = flags()
    if platform.machine() == "aarch64" or here & {"avx512_vnni", "avx_vnni"}:
        return ""
    return "CPU without VNNI"
