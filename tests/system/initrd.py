"""The first file system of a kernel: a busybox that loads what the real one is on."""

import gzip
import lzma
import subprocess
import tempfile
from pathlib import Path

from system.packages import run

_MODULES = ("virtio_pci", "virtio_blk", "ext4")
_INIT = """#!/bin/sh
PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
while read module; do busybox insmod "/modules/$module"; done < /order
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do busybox sleep 0.1; tries=$((tries + 1)); done
busybox mount -t ext4 -o rw /dev/vda /root || echo "the root file system does not mount"
busybox umount /proc
busybox umount /sys
busybox mount -o move /dev /root/dev
exec busybox switch_root /root /sbin/init
"""


def write(root: Path, kernel: str, target: Path) -> None:
    """Make the initrd of the kernel whose modules are below `kernel` in the tree `root`."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        for folder in ("bin", "modules", "proc", "sys", "dev", "root"):
            (tree / folder).mkdir()
        (tree / "bin/busybox").write_bytes((root / "usr/bin/busybox").read_bytes())
        (tree / "bin/sh").symlink_to("busybox")
        order = [_copy(path, tree / "modules") for path in _needed(root, kernel)]
        (tree / "order").write_text("".join(f"{one}\n" for one in order), encoding="ascii")
        (tree / "init").write_text(_INIT, encoding="ascii")
        for program in ("bin/busybox", "init"):
            (tree / program).chmod(0o755)
        names = "\n".join(str(path.relative_to(tree)) for path in tree.rglob("*"))
        packed = subprocess.run(
            ["cpio", "--create", "--format=newc", "--quiet"],
            input=names.encode(),
            capture_output=True,
            check=True,
            cwd=tree,
        )
        target.write_bytes(gzip.compress(packed.stdout, compresslevel=1))


def _needed(root: Path, kernel: str) -> list[Path]:
    """The modules, each after those that it depends on."""
    found: list[Path] = []
    for module in _MODULES:
        said = run("modprobe", "-d", root, "-S", kernel, "--show-depends", module)
        paths = (Path(line.split()[1]) for line in said.splitlines() if line.startswith("insmod"))
        found += [path for path in paths if path not in found]
    return found


def _copy(path: Path, folder: Path) -> str:
    target = folder / path.name.removesuffix(".xz")
    content = path.read_bytes()
    target.write_bytes(lzma.decompress(content) if path.suffix == ".xz" else content)
    return target.name
