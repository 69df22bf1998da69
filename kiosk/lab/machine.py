"""What this machine is, and whether its 8-bit arithmetic is that of the boards we deploy to."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TypedDict

import onnx

_CPUINFO = Path("/proc/cpuinfo")
_X86 = {"x86_64", "amd64", "i386", "i686"}
_TOLD = (
    *("avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "sve"),
)
_VNNI = {"avx512_vnni", "avx_vnni"}
# An ARM kernel names no model, only the part; those of the Raspberry Pi 3, 4 and 5.
_ARM_PARTS = {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76"}
# These multiply 8-bit numbers in a kernel of their own, whatever the session's optimisation level.
_INTEGER_KERNELS = {"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger"}
_INTEGER_KERNELS |= {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearAdd", "QLinearMul"}


class Machine(TypedDict):
    """A machine as reports and records name it."""

    model: str
    architecture: str
    features: list[str]
    saturates: bool


def describe() -> Machine:
    """This machine: processor, architecture, the features that decide about INT8, `saturates`.

    `saturates`: 8-bit products are summed with 16-bit saturation (onnxruntime on x86 without
    VNNI), so that U8S8 and S8S8 figures are neither ARM's nor those of a machine with VNNI.
    """
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return from_cpuinfo(text, platform.machine())


def from_cpuinfo(text: str, architecture: str) -> Machine:
    """The same from the text of /proc/cpuinfo and the name that `uname -m` gives."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            # The first core speaks for all; a Pi names its board after the last one.
            fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    part = _ARM_PARTS.get(fields.get("CPU part", ""), "")
    named = fields.get("model name") or " ".join(filter(None, (fields.get("Model"), part)))
    return Machine(
        model=named or "unknown processor",
        architecture=architecture,
        features=[name for name in _TOLD if name in flags],
        saturates=architecture.lower() in _X86 and not flags & _VNNI,
    )


def title(machine: Machine) -> str:
    """One line that names a machine."""
    return f"{machine['model']} ({' '.join((machine['architecture'], *machine['features']))})"


def has_integer_kernels(model: onnx.ModelProto) -> bool:
    """Whether a graph multiplies 8-bit numbers outside of QDQ: QOperator format, or dynamic."""
    return any(node.op_type in _INTEGER_KERNELS for node in model.graph.node)


def remark(machine: Machine, *, reference: bool, integer_kernels: bool) -> str:
    """What is to be known about 8-bit figures measured here, "" when there is nothing.

    `reference`: they were run in the reference arithmetic; `integer_kernels`: the model holds
    operators which that does not reach.
    """
    if not machine["saturates"]:
        return ""
    if not reference:
        return (
            "x86 without VNNI sums 8-bit products with saturation: 8-bit figures here are not"
            " ARM's; --arithmetic reference computes as ARM does"
        )
    if integer_kernels:
        return (
            "this model multiplies in 8-bit operators, not in QDQ: the reference arithmetic does"
            " not reach them, and on x86 without VNNI the figures are not ARM's"
        )
    return ""
