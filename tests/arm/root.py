"""An aarch64 system that user-mode emulation can run: Python, numpy and onnxruntime, as on a Pi.

Made once below .cache/arm from Debian's packages and the wheels of PyPI, without running a single
aarch64 instruction (20 s). Two names lead to it, one for each board: each has the /proc/cpuinfo
and the /sys/devices/system/cpu of its Pi, because onnxruntime reads them when it is imported and
ends with a segmentation fault on those of an x86 host.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

REPOSITORY = Path(__file__).parents[2]
CACHE = REPOSITORY / ".cache" / "arm"
SUITE = "trixie"
"""What Raspberry Pi OS is made from."""
TOOLS = {"qemu-aarch64-static": "qemu-user-static", "mmdebstrap": "mmdebstrap"}
WHEELS = "opt/wheels"
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
_CORES = 4


class UnavailableError(Exception):
    """The emulated machine cannot be made here; the message says what is missing."""


@dataclass(frozen=True)
class Board:
    """What a Pi's kernel says of its processor."""

    part: str
    revision: int
    khz: int
    features: str


BOARDS = {
    "cortex-a72": Board("0xd08", 3, 1_800_000, "fp asimd evtstrm crc32 cpuid"),
    "cortex-a76": Board(
        "0xd0b",
        1,
        2_400_000,
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc"
        " dcpop asimddp",
    ),
}
"""Pi 4 without and Pi 5 with the dot product (asimddp), by QEMU's name for the processor."""


def ready() -> Path:
    """The folder with the system and the boards' views of it, made when it is not there.

    Raises UnavailableError, in words, when tools, network or disk do not allow it.
    """
    _have_tools()
    CACHE.mkdir(parents=True, exist_ok=True)
    with _alone():
        stamp = CACHE / "complete"
        made_of = f"{SUITE}, onnxruntime {onnxruntime.__version__}\n"
        if not stamp.is_file() or stamp.read_text(encoding="ascii") != made_of:
            shutil.rmtree(CACHE / "root", ignore_errors=True)
            _unpack_debian(CACHE / "root")
            _unpack_wheels(CACHE / "root")
            for cpu, board in BOARDS.items():
                _view(CACHE / cpu, board)
            stamp.write_text(made_of, encoding="ascii")
    return CACHE


@contextmanager
def _alone() -> Iterator[None]:
    """Two test runs must not make the same folder at once."""
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _have_tools() -> None:
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if not missing:
        return
    if os.geteuid() != 0:
        raise UnavailableError(f"missing, and only root can install: {' '.join(missing)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-qq"])
    _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], env=quiet)


def _run(command: list[str | Path], **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UnavailableError(f"{command[0]} failed: {last}")
    return done.stdout


def _archive() -> str:
    """Where this host gets Debian from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]
    found = _run(command)
    if not found and os.geteuid() == 0:
        # A machine that never asked its archive does not know the origin of its lists.
        _run(["apt-get", "update", "-qq"])
        found = _run(command)
    plain = [line for line in found.splitlines() if line and "security" not in line]
    if not plain:
        raise UnavailableError("a Debian archive expected in apt's sources, there is none")
    return plain[0]


def _unpack_debian(root: Path) -> None:
    """Packages are unpacked, not configured: no maintainer script has to be emulated."""
    unwanted = ("doc", "man", "locale", "info")
    _run(
        [
            "mmdebstrap",
            "--quiet",
            "--arch=arm64",
            "--variant=extract",
            "--include=python3,libstdc++6",
            # A snapshot of the archive, or a clock far off, is no reason to refuse.
            '--aptopt=Acquire::Check-Valid-Until "false"; Acquire::Check-Date "false";',
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in unwanted),
            SUITE,
            str(root),
            f"deb {_archive()} {SUITE} main",
        ]
    )


def python_of(root: Path) -> Path:
    """The interpreter itself, not a link to it."""
    found = [p for p in (root / "usr/bin").glob("python3.*") if re.fullmatch(r"[\d.]+", p.name[6:])]
    if not found:
        raise UnavailableError(f"python3 expected in {root}, not there")
    return found[0]


def _unpack_wheels(root: Path) -> None:
    """The very version that runs here, as a Pi would get it from PyPI."""
    version = python_of(root).name.removeprefix("python")
    platforms = [item for name in _PLATFORMS for item in ("--platform", f"{name}_aarch64")]
    _run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"),
            *("--only-binary=:all:", "--implementation", "cp", "--python-version", version),
            *platforms,
            *("--target", str(root / WHEELS)),
            *(f"onnxruntime=={onnxruntime.__version__}", "numpy"),
        ]
    )


def _view(view: Path, board: Board) -> None:
    """The system as that board shows it: links, and a /proc and /sys of its own."""
    shutil.rmtree(view, ignore_errors=True)
    cpus = view / "sys/devices/system/cpu"
    cpus.mkdir(parents=True)
    for name, target in {
        "usr": "../root/usr",
        "opt": "../root/opt",
        "etc": "../root/etc",
        "lib": "usr/lib",
        "bin": "usr/bin",
    }.items():
        (view / name).symlink_to(target)
    for name in ("possible", "present", "online"):
        (cpus / name).write_text(f"0-{_CORES - 1}\n", encoding="ascii")
    (cpus / "kernel_max").write_text(f"{_CORES - 1}\n", encoding="ascii")
    for number in range(_CORES):
        core = cpus / f"cpu{number}"
        for name, value in {
            "topology/physical_package_id": 0,
            "topology/core_id": number,
            "topology/core_siblings_list": f"0-{_CORES - 1}",
            "cpufreq/cpuinfo_max_freq": board.khz,
        }.items():
            (core / name).parent.mkdir(parents=True, exist_ok=True)
            (core / name).write_text(f"{value}\n", encoding="ascii")
    (view / "proc").mkdir()
    text = "\n".join(_processor(number, board) for number in range(_CORES))
    (view / "proc/cpuinfo").write_text(text, encoding="ascii")


def _processor(number: int, board: Board) -> str:
    return (
        f"processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: {board.features}\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        f"CPU part\t: {board.part}\nCPU revision\t: {board.revision}\n"
    )


if __name__ == "__main__":
    print(ready())
