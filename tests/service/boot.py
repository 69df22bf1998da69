"""Boots this machine's own system in a container, changes kept in memory; not a test itself.

`unshare --mount --net --cgroup python boot.py SPEC`: a JSON object with `root` (an empty folder),
`lower` (whose copy it is), `bare` (nothing of the kiosk in it; otherwise `site_packages` and
`python`, the base prefix), `files` (path in the container to text), `links`, `users` and `group`
(a cgroup to make). The container's root is an overlay: nothing on disk is touched, no network but
loopback is there. Replaced by systemd-nspawn at the end.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

VENV = "/opt/kiosk/current/venv"


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def let_go_of_disks():
    """This namespace's copies of what is mounted from images would keep those busy."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, where, *_ = line.split()
        if device.startswith("/dev/loop"):
            subprocess.run(["umount", "-l", where], check=False)


def overlay(base, lower):
    """`base`/root: everything of `lower`, with changes that end with the mount namespace."""
    mount("-t", "tmpfs", "tmpfs", base)
    upper, work, root = (base / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount("-t", "overlay", "overlay", "-o", options, root)
    return root


def install(root, spec):
    """What a deploy would put there, made of this environment's interpreter and packages."""
    base = Path(spec["python"])
    python = Path("/opt/python")
    (root / "opt/python").mkdir(parents=True)
    mount("--bind", base, root / "opt/python")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    venv = root / VENV[1:]
    packages = venv / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    mount("--bind", spec["site_packages"], packages)
    (venv / "bin").mkdir()
    (venv / "bin/python").symlink_to(python / "bin" / version)
    (venv / "pyvenv.cfg").write_text(f"home = {python}/bin\ninclude-system-site-packages = false\n")
    for name, module in (("kiosk", "kiosk.__main__"), ("kiosk-server", "kiosk.server.__main__")):
        script = venv / "bin" / name
        script.write_text(f"#!{VENV}/bin/python\nimport sys\nfrom {module} import main\n")
        with script.open("a") as file:
            file.write("sys.exit(main())\n")
        script.chmod(0o755)


def furnish(root, spec):
    """Files, links, and a user of its own for the service."""
    for name, text in spec["files"].items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, target in spec["links"].items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    for file, lines in spec["users"].items():
        with (root / "etc" / file).open("a") as stream:
            stream.write("".join(f"{line}\n" for line in lines))
    shutil.rmtree(root / "var/log/journal", ignore_errors=True)


def main():
    spec = json.loads(sys.argv[1])
    mount("--make-rprivate", "/")
    let_go_of_disks()
    subprocess.run(["umount", "-R", "-l", "/sys/fs/cgroup"], check=False)
    mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    group = Path("/sys/fs/cgroup", spec["group"])
    group.mkdir()
    (group / "cgroup.procs").write_text(str(os.getpid()))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    root = overlay(Path(spec["root"]), spec["lower"])
    if not spec["bare"]:
        install(root, spec)
    furnish(root, spec)
    options = ["--quiet", "--register=no", "--keep-unit", "--kill-signal=SIGRTMIN+3"]
    options += ["--machine=kiosk-test", "--console=pipe", "--boot"]
    command = ["systemd-nspawn", "-D", str(root), *options, "systemd.unit=kiosk-test.target"]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
