"""What is told of a machine, from the /proc/cpuinfo of several."""

import os

import pytest

from kiosk.lab.machine import describe, machine_line, remark, title
from kiosk.vision.cpu import cpu_of

HASWELL = (
    "processor : 0\nmodel name\t: Intel Haswell\nflags\t\t: fpu sse2 avx2\n\nmodel name : other\n"
)
XEON = "model name : Intel Xeon\nflags : avx2 avx512f avx512bw avx512_vnni\n"
ALDER = "model name : Alder Lake\nflags : avx2 avx_vnni\n"
PI5 = (
    "processor\t: 0\nFeatures\t: fp asimd evtstrm asimdhp asimddp\nCPU part\t: 0xd0b\n\n"
    "Revision : d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
)
PI4 = "Features : fp asimd evtstrm crc32\nCPU part : 0xd08\n"


@pytest.mark.parametrize(
    ("text", "architecture", "model", "features", "saturates"),
    [
        (HASWELL, "x86_64", "Intel Haswell", ["avx2"], True),
        (XEON, "x86_64", "Intel Xeon", ["avx2", "avx512f", "avx512bw", "avx512_vnni"], False),
        (ALDER, "x86_64", "Alder Lake", ["avx2", "avx_vnni"], False),
        (PI4, "aarch64", "Cortex-A72", ["asimd"], False),
        ("", "aarch64", "unknown processor", [], False),
        ("", "x86_64", "unknown processor", [], True),
    ],
)
def test_machines(text, architecture, model, features, saturates):
    """x86 saturates unless it has VNNI; ARM never does; an unknown processor is called that."""
    found = describe(cpu_of(text, architecture))
    assert found == {
        "model": model,
        "architecture": architecture,
        "features": features,
        "saturates": saturates,
    }


def test_a_pi_is_named_by_board_and_core():
    """The board's name stands after the last core, the core's only as a number."""
    found = describe(cpu_of(PI5, "aarch64"))
    assert found["model"] == "Raspberry Pi 5 Model B Rev 1.0 Cortex-A76"
    assert title(found).endswith("Cortex-A76 (aarch64 asimd asimddp)")


def test_this_machine_can_be_told():
    """Whatever runs this has a model and an architecture."""
    found = describe()
    assert found["model"]
    assert found["architecture"]


def test_the_machine_in_one_line():
    """Processor, architecture, the features that decide about INT8, cores; unknown is said."""
    cores = f"{len(os.sched_getaffinity(0))} core"
    told = machine_line(describe(cpu_of(XEON, "x86_64")))
    assert told.startswith("Intel Xeon, x86_64, avx2, avx512f")
    assert f"avx512_vnni, {cores}" in told
    assert machine_line(describe(cpu_of("", "aarch64"))).startswith("unknown processor, aarch64, ")


def test_the_remark_is_made_where_it_applies():
    """Only on a machine that saturates, and under the reference only for 8-bit operators."""
    old, new = describe(cpu_of(HASWELL, "x86_64")), describe(cpu_of(XEON, "x86_64"))
    assert "--arithmetic reference" in remark(old, reference=False, integer_kernels=False)
    assert remark(old, reference=True, integer_kernels=False) == ""
    assert "do not reach" in remark(old, reference=True, integer_kernels=True).replace("does", "do")
    assert remark(new, reference=False, integer_kernels=True) == ""
