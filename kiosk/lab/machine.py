"""What this machine is, and whether its 8-bit arithmetic is that of the boards we deploy to."""

from __future__ import annotations

import os
from typing import TypedDict

import onnx

from kiosk.vision.cpu import Cpu, read_cpu

_TOLD = (
    *("avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "sve"),
)
# These multiply 8-bit numbers in a kernel of their own, whatever the session's optimisation level.
_INTEGER_KERNELS = {"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger"}
_INTEGER_KERNELS |= {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearAdd", "QLinearMul"}


class Machine(TypedDict):
    """A machine as reports and records name it."""

    model: str
    architecture: str
    features: list[str]
    saturates: bool


def describe(cpu: Cpu | None = None) -> Machine:
    """This machine: processor, architecture, the features that decide about INT8, `saturates`.

    `saturates`: 8-bit products are summed with 16-bit saturation (onnxruntime on x86 without
    VNNI), so that U8S8 and S8S8 figures are neither ARM's nor those of a machine with VNNI.
    """
    cpu = cpu or read_cpu()
    return Machine(
        model=cpu.title,
        architecture=cpu.machine,
        features=[name for name in _TOLD if name in cpu.features],
        saturates=cpu.saturates,
    )


def title(machine: Machine) -> str:
    """One line that names a machine."""
    return f"{machine['model']} ({' '.join((machine['architecture'], *machine['features']))})"


def machine_line(machine: Machine) -> str:
    """The same with the cores that this process may use: what times depend on."""
    cores = len(os.sched_getaffinity(0))
    parts = [machine["model"], machine["architecture"], *machine["features"]]
    return ", ".join((*parts, f"{cores} core{'' if cores == 1 else 's'}"))


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
