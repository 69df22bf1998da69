"""A Debian tree of packages that were unpacked and not configured, made one that boots.

What the maintainer scripts would do, as far as a kiosk's Pi needs it, is done here with the tools
of the host: not one aarch64 instruction has to be emulated.
"""

import re
import secrets
import shutil
import subprocess
from pathlib import Path

from system.network import HOST, PI
from system.packages import run

USER = "pi"
_SHADOW_GROUP = 42

_FILES = {
    "etc/hostname": "raspberrypi\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 raspberrypi\n",
    "etc/fstab": "",
    "etc/environment": "",
    "etc/timezone": "Etc/UTC\n",
    "etc/locale.conf": "LANG=C.UTF-8\n",
    "etc/shells": "/bin/sh\n/usr/bin/sh\n/bin/bash\n/usr/bin/bash\n",
    "etc/nsswitch.conf": (
        "passwd: files systemd\ngroup: files systemd\nshadow: files systemd\n"
        "gshadow: files systemd\nhosts: files dns\nprotocols: files\nservices: files\n"
    ),
    "etc/pam.d/common-account": "account required pam_unix.so\n",
    "etc/pam.d/common-auth": "auth required pam_unix.so\n",
    "etc/pam.d/common-password": "password required pam_unix.so\n",
    # Without pam_systemd: each login would start a service manager of its own, slow when emulated.
    "etc/pam.d/common-session": "session required pam_unix.so\n",
    "etc/pam.d/common-session-noninteractive": "session required pam_unix.so\n",
    "etc/sudoers.d/010_pi-nopasswd": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
    "etc/systemd/network/10-static.network": (
        f"[Match]\nName=en* eth*\n[Network]\nAddress={PI}/24\n"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    ),
    "etc/systemd/timesyncd.conf.d/10-ntp.conf": f"[Time]\nNTP={HOST}\n",
    "etc/systemd/system.conf.d/05-watchdog.conf": "[Manager]\nRuntimeWatchdogSec=20s\n",
    # What udev would load by itself for these devices; see the service below.
    "etc/modules-load.d/virtual-pi.conf": "virtio_net\nvirtio_rng\ni6300esb\n",
    # Every device of the kernel takes 10 s to go through when emulated; these are what is used.
    "etc/systemd/system/systemd-udev-trigger.service.d/fast.conf": (
        "[Service]\nExecStart=\nExecStart=-udevadm trigger --type=devices --action=add"
        " --subsystem-match=net --subsystem-match=block --subsystem-match=watchdog"
        " --subsystem-match=tty --subsystem-match=rtc\n"
    ),
    # Nothing in /etc or /var waits to be updated at the first boot.
    "etc/.updated": "",
    "var/.updated": "",
}

# Nobody looks at what these are for, and each costs seconds.
_MASKED = (
    *("systemd-firstboot.service", "systemd-hwdb-update.service", "ldconfig.service"),
    *("systemd-rfkill.socket", "systemd-pstore.service", "systemd-binfmt.service"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "proc-sys-fs-binfmt_misc.automount"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount"),
    *("sys-fs-fuse-connections.mount", "modprobe@configfs.service", "modprobe@drm.service"),
    *("modprobe@fuse.service", "modprobe@efi_pstore.service", "serial-getty@ttyAMA0.service"),
    *("getty@tty1.service", "apt-daily.timer", "apt-daily-upgrade.timer"),
    *("dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
)

# Debian makes these when it is installed, packages do not bring them.
_FOLDERS = (
    *("media", "mnt", "opt", "srv", "etc/opt", "var/local", "var/opt"),
    *(f"usr/local/{name}" for name in ("bin", "etc", "include", "lib", "sbin", "share", "src")),
    # Its being there is what makes the journal persistent.
    "var/log/journal",
)

_LINKS = {
    "var/run": "/run",
    "var/lock": "/run/lock",
    "etc/localtime": "../usr/share/zoneinfo/Etc/UTC",
    "usr/bin/awk": "mawk",
    "usr/bin/which": "which.debianutils",
    "usr/bin/pager": "more",
}


def configure(root: Path, public_key: str) -> None:
    """`public_key` may log in as root and as pi."""
    for name, text in _FILES.items():
        _write(root / name, text)
    for name, target in _LINKS.items():
        _link(root / name, target)
    _write(root / "etc/machine-id", f"{secrets.token_hex(16)}\n")
    for name in ("etc/sudoers", "etc/sudoers.d/010_pi-nopasswd"):
        (root / name).chmod(0o440)
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "root").chmod(0o700)
    _accounts(root)
    _ssh(root, public_key)
    _certificates(root)
    _units(root)
    for kernel in (root / "usr/lib/modules").iterdir():
        run("depmod", "-b", root, kernel.name)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _link(path: Path, target: str) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _accounts(root: Path) -> None:
    """Debian's own accounts, those that packages declare, and pi."""
    masters = root / "usr/share/base-passwd"
    passwd = (masters / "passwd.master").read_text(encoding="ascii")
    group = (masters / "group.master").read_text(encoding="ascii")
    passwd = re.sub(r"^([^:]*):[^:]*:", r"\1:x:", passwd, flags=re.MULTILINE)
    passwd += f"{USER}:x:1000:1000::/home/{USER}:/bin/bash\n"
    group = re.sub(r"^((?:sudo|video):.*)$", rf"\1{USER}", group, flags=re.MULTILINE)
    group += f"{USER}:x:1000:\n"
    _write(root / "etc/passwd", passwd)
    _write(root / "etc/group", group)
    # No password is right for anybody.
    _secret(root / "etc/shadow", passwd, "*:20000:0:99999:7:::")
    _secret(root / "etc/gshadow", group, "*::")
    _home(root / "home" / USER, 1000)
    declared = "".join(
        path.read_text(encoding="utf-8") for path in (root / "usr/lib/sysusers.d").glob("*.conf")
    )
    # The systemd of an older Debian skips lines that ask for a locked account.
    declared = re.sub(r"^u!", "u", declared, flags=re.MULTILINE)
    run("systemd-sysusers", f"--root={root}", "-", input=declared)


def _secret(path: Path, names: str, rest: str) -> None:
    lines = (f"{line.split(':')[0]}:{rest}\n" for line in names.splitlines())
    _write(path, "".join(lines))
    _own(path, 0, _SHADOW_GROUP, 0o640)


def _home(home: Path, user: int) -> None:
    home.mkdir(parents=True)
    _own(home, user, user, 0o755)
    for one in (home.parents[1] / "etc/skel").iterdir():
        _write(home / one.name, one.read_text(encoding="utf-8"))
        _own(home / one.name, user, user, 0o644)


def _own(path: Path, user: int, group: int, mode: int) -> None:
    run("chown", f"{user}:{group}", path)
    path.chmod(mode)


def _ssh(root: Path, public_key: str) -> None:
    _write(
        root / "etc/ssh/sshd_config",
        (root / "usr/share/openssh/sshd_config").read_text(encoding="utf-8"),
    )
    key = root / "etc/ssh/ssh_host_ed25519_key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "root@raspberrypi", "-f", key)
    for home, user in ((root / "root", 0), (root / "home" / USER, 1000)):
        keys = home / ".ssh/authorized_keys"
        _write(keys, public_key)
        _own(keys.parent, user, user, 0o700)
        _own(keys, user, user, 0o600)


def _certificates(root: Path) -> None:
    authorities = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    text = "".join(path.read_text(encoding="ascii") for path in authorities)
    _write(root / "etc/ssl/certs/ca-certificates.crt", text)


def _units(root: Path) -> None:
    # systemctl would hand a unit that also has a script to a program that the tree cannot run.
    for script in (root / "etc/init.d").iterdir():
        script.unlink()
    systemctl = ("systemctl", f"--root={root}", "--quiet")
    # Fails for single units that are of no use here, after it has done all the others.
    subprocess.run([*systemctl, "preset-all"], capture_output=True, check=False)
    run(*systemctl, "enable", "ssh.service", "systemd-networkd.service", "systemd-timesyncd")
    run(*systemctl, "disable", "systemd-networkd-wait-online.service", "ssh.socket")
    run(*systemctl, "mask", *_MASKED)
