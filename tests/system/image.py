"""The virtual Pi's disk: Debian trixie for arm64, as Raspberry Pi OS is made from it."""

import fcntl
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from system import initrd, rootfs
from system.packages import UnavailableError, have, run

SUITE = "trixie"
KERNELS = {"4k": "linux-image-arm64", "16k": "linux-image-arm64-16k"}
"""By the size of a memory page: a Pi 4's kernel and a Pi 5's."""

_PACKAGES = (
    *("systemd", "systemd-sysv", "systemd-timesyncd", "dbus", "udev", "kmod", "busybox-static"),
    *("openssh-server", "rsync", "sudo", "passwd", "procps", "iproute2", "netbase"),
    *("python3", "python3-systemd", "libstdc++6", "ca-certificates", "tzdata", "v4l-utils"),
)
_DRIVERS = "usr/lib/modules/*/kernel/drivers"
_UNWANTED = (
    *("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*"),
    *(f"{_DRIVERS}/{name}/*" for name in ("infiniband", "staging", "iio", "scsi", "target")),
    *(f"{_DRIVERS}/net/{name}/*" for name in ("wireless", "ethernet")),
    *(f"{_DRIVERS}/gpu/drm/{name}/*" for name in ("amd", "nouveau", "radeon", "msm", "xe", "i915")),
    *("usr/lib/modules/*/kernel/sound/soc/*", "boot/System.map*"),
)
# Releases with their libraries go onto it; what is not written takes no room.
_SIZE = "4G"


@dataclass(frozen=True)
class Image:
    """A folder with the disk, which is not to be written to, and what starts it."""

    folder: Path
    over: Path | None = None
    """A disk that began as this image and had more put on it, None for the image itself."""

    @property
    def disk(self) -> Path:
        return self.over or self.folder / "root.qcow2"

    @property
    def key(self) -> Path:
        """Logs in as root and as pi."""
        return self.folder / "key"

    def kernel(self, pages: str) -> Path:
        """`pages`: a key of KERNELS."""
        return self.folder / f"vmlinuz-{pages}"

    def initrd(self, pages: str) -> Path:
        return self.folder / f"initrd-{pages}"


def made(folder: Path, cache: Path | None = None) -> Image:
    """The image, made below `folder`, or taken from `cache` when it was made there before.

    Raises packages.UnavailableError, in words, when tools, network or disk do not allow it.
    """
    have()
    if cache is None:
        return _build(folder.resolve() / "image")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        # Two test runs must not make the same folder at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = cache.resolve() / _recipe()
        if not (kept / "complete").is_file():
            for stale in cache.iterdir():
                if stale.is_dir():
                    shutil.rmtree(stale)
            _build(kept)
            (kept / "complete").touch()
    return Image(kept)


def _recipe() -> str:
    """Changes with everything that an image is made from, but for the archive's packages."""
    here = Path(__file__)
    sources = (here, here.with_name("rootfs.py"), here.with_name("initrd.py"))
    together = b"".join(path.read_bytes() for path in sources)
    return hashlib.sha256(together).hexdigest()[:16]


def _build(folder: Path) -> Image:
    folder.mkdir(parents=True)
    image = Image(folder)
    root = folder / "root"
    _unpack(root)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", image.key)
    rootfs.configure(root, image.key.with_suffix(".pub").read_text(encoding="ascii"))
    for pages in KERNELS:
        kernel = _kernel(root, pages)
        initrd.write(root, kernel, image.initrd(pages))
        shutil.move(root / "boot" / f"vmlinuz-{kernel}", image.kernel(pages))
    raw = folder / "root.img"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "rootfs", "-d", root, raw, _SIZE)
    run("qemu-img", "convert", "-O", "qcow2", raw, image.disk)
    raw.unlink()
    shutil.rmtree(root)
    return image


def _unpack(root: Path) -> None:
    run(
        "mmdebstrap",
        "--quiet",
        "--arch=arm64",
        "--variant=extract",
        # Without these there is no shell to log in with.
        "--include=?essential",
        f"--include={','.join((*_PACKAGES, *KERNELS.values()))}",
        # A snapshot of the archive, or a clock far off, is no reason to refuse.
        '--aptopt=Acquire::Check-Valid-Until "false"; Acquire::Check-Date "false";',
        *(f"--dpkgopt=path-exclude=/{pattern}" for pattern in _UNWANTED),
        SUITE,
        root,
        f"deb {_archive()} {SUITE} main",
    )


def _archive() -> str:
    """Where this host gets Debian from."""
    command = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian")
    found = run(*command)
    if not found:
        # A machine that never asked its archive does not know the origin of its lists.
        run("apt-get", "update", "-qq")
        found = run(*command)
    plain = [line for line in found.splitlines() if line and "security" not in line]
    if not plain:
        raise UnavailableError("a Debian archive expected in apt's sources, there is none")
    return plain[0]


def _kernel(root: Path, pages: str) -> str:
    """The version of the kernel with pages of this size."""
    names = [path.name for path in (root / "usr/lib/modules").iterdir()]
    (found,) = [name for name in names if name.endswith("-16k") == (pages == "16k")]
    return found
