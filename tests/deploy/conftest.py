"""A Pi as fresh from its card, a sender's checkout, and a server, for deploys over real ssh."""

import fcntl
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from deploy.site import USER, Checkout, Site
from service.machine import REPOSITORY, booted, reason_to_skip

_TOOLS = ("mmdebstrap", "ssh", "ssh-keygen", "git", "make")
_INCLUDE = "systemd,systemd-sysv,dbus,openssh-server,python3,procps,iproute2,sudo,systemd-timesyncd"
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
# A machine of its own needs no more than this; the test says what is started.
_SSH = """[Unit]
Wants=ssh.service dbus.service systemd-user-sessions.service
"""


def debian(folder, codename):
    """A root file system of Debian, made with the host's own package source."""
    shown = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    (source, *_) = [uri for uri in shown if "security" not in uri] or [None]
    if source is None:
        pytest.skip("apt has no list of packages here: apt-get update")
    options = [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
    command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={_INCLUDE}", *options]
    command += [codename, str(folder), f"deb {source} {codename} main"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@contextmanager
def locked(path):
    """One process at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def system_of(codename, factory):
    """Debian for this machine's own processor, as a Raspberry Pi OS is for its."""
    _skip_where_it_cannot_be()
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Every process of a run takes the same one, which the first makes and the last removes.
        folder = folder.parent
    root, users = folder / codename, folder / f"{codename}-users"
    users.mkdir(exist_ok=True)
    own = users / str(os.getpid())
    with locked(folder / f"{codename}.lock"):
        own.touch()
        if not root.exists():
            debian(folder / f"{codename}.half", codename).rename(root)
    yield root
    with locked(folder / f"{codename}.lock"):
        own.unlink()
        if not list(users.iterdir()):
            shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def trixie(tmp_path_factory):
    """The newest system that a release is made for."""
    with system_of("trixie", tmp_path_factory) as root:
        yield root


@pytest.fixture(scope="module")
def system(trixie):
    """What the Pi of a file of tests runs."""
    return trixie


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("sender") / "kiosk")


@pytest.fixture(scope="module")
def site(tmp_path_factory, system, checkout):
    """A fresh Pi, which nothing was deployed to yet."""
    folder = tmp_path_factory.mktemp("site")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with booted(folder, files(key), bare=True, lower=system, users=users()) as machine:
        machine.run("sh", "-c", PREPARE)
        inside = ["nsenter", "--target", machine.leader, "--net"]
        site = Site(machine, folder, checkout, key, inside, address="127.0.0.1", listen="127.0.0.1")
        pictures = REPOSITORY / "kiosk/demo/people/obama3.jpg"
        machine.run("sh", "-c", "mkdir -p /srv/people")
        machine.put("/srv/people/obama3.jpg", pictures.read_bytes())
        yield site
        site.end()


@pytest.fixture(scope="module")
def deployed(site):
    """The first release on it, with a server to talk to."""
    site.serve()
    _, site.said = site.make("deploy", f"CONFIG={site.config}", f"CODE={site.code()}")
    return site


PREPARE = (
    f"chown -R 1000:1000 /home/{USER} && chmod 700 /home/{USER}/.ssh &&"
    f" chmod 600 /home/{USER}/.ssh/authorized_keys && chmod 440 /etc/sudoers.d/{USER}"
    " && until test -S /run/systemd/private; do sleep 0.1; done"
)


def users():
    return {
        "passwd": [f"{USER}:x:1000:1000::/home/{USER}:/bin/bash"],
        "group": [f"{USER}:x:1000:"],
        "shadow": [f"{USER}:*:20000:0:99999:7:::"],
    }


def files(key):
    public = key.with_suffix(".pub").read_text()
    return {
        f"/home/{USER}/.ssh/authorized_keys": public,
        "/root/.ssh/authorized_keys": public,
        f"/etc/sudoers.d/{USER}": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
        "/etc/systemd/system/kiosk-test.target.d/ssh.conf": _SSH,
    }


def _skip_where_it_cannot_be():
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    missing = [name for name in _TOOLS if not shutil.which(name)]
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")
