"""The virtual Pi does what the tests on it take for granted."""

import os
import shlex
import threading
import time

import pytest

from system.machine import VirtualPi
from system.network import PI

pytestmark = pytest.mark.system


@pytest.fixture(
    scope="module",
    params=[("cortex-a76", "16k")],
    ids="-".join,
)
def pi(request, image, network, tmp_path_factory):
    """A Pi 5 with its own kernel's page size; on."""
    cpu, pages = request.param
    with VirtualPi(image, network, tmp_path_factory.mktemp("pi"), cpu=cpu, pages=pages) as machine:
        machine.boot()
        machine.wait_ready()
        yield machine


def test_everything_of_the_system_runs(pi, request):
    """No unit failed, and the pages are as large as they were asked for."""
    assert pi.wait_ready() == "running", pi.ssh("systemctl --failed").stdout
    said = pi.as_pi("python3 -c 'import os; print(os.sysconf(\"SC_PAGESIZE\"))'").stdout
    assert said.strip() == ("16384" if "16k" in request.node.name else "4096")
    assert pi.as_pi("sudo id -u").stdout.strip() == "0"
    assert "memory" in pi.ssh("cat /sys/fs/cgroup/cgroup.controllers").stdout.split()


def test_the_clock_comes_from_the_ntp_server(pi):
    """The NTP server of the test's side sets it."""
    pi.until("a set clock", "test -e /run/systemd/timesync/synchronized")
    assert "NTPSynchronized=yes" in pi.ssh("timedatectl show").stdout


def test_a_camera_can_be_plugged_in(pi):
    """The kernel's own virtual camera gives pictures."""
    pi.ssh("modprobe vivid n_devs=1 node_types=0x1 && udevadm settle")
    pi.as_pi("v4l2-ctl -d /dev/video0 --stream-mmap --stream-count=3 --stream-to=/tmp/picture")
    assert int(pi.ssh("stat -c %s /tmp/picture").stdout) > 0


def test_memory_has_a_limit(pi):
    """MemoryMax ends who takes more, and nobody else."""
    limited = "systemd-run --quiet --wait -p MemoryMax=50M -p MemorySwapMax=0 python3 -c"
    assert pi.ssh(f"{limited} 'bytearray(10 << 20)'", check=False).returncode == 0
    assert pi.ssh(f"{limited} 'bytearray(90 << 20)'", check=False).returncode != 0


def test_the_network_can_be_cut(pi, network):
    """Nothing gets through while it is cut; the same machine answers afterwards."""
    boot = pi.boot_id()
    network.link_down()
    with pytest.raises(AssertionError, match="unreachable"):
        network.run(*pi.ssh_command(), PI, "true")
    network.link_up()
    pi.until("an answer", "true")
    assert pi.boot_id() == boot


def test_the_cable_can_be_pulled(pi):
    """The Pi sees its own plug come out, and go in again."""
    pi.monitor("set_link network off")
    threading.Event().wait(3)
    pi.monitor("set_link network on")
    pi.until("news of the plug", "journalctl -b -u systemd-networkd | grep -q 'Lost carrier'")


def test_the_network_can_be_slow(pi, network, tmp_path):
    """A copy over a slow line takes its time."""
    (tmp_path / "large").write_bytes(os.urandom(2_000_000))
    shell = shlex.join(pi.ssh_command("pi"))
    network.limit("8mbit")
    begin = time.monotonic()
    network.run("rsync", "-e", shell, tmp_path / "large", f"{PI}:large")
    assert time.monotonic() - begin > 1.5
    network.limit(None)
    assert pi.ssh("stat -c '%s %U' /home/pi/large").stdout == "2000000 pi\n"


def test_there_is_no_way_out(pi):
    """Neither side reaches any other network."""
    routes = pi.ssh("ip route").stdout.splitlines()
    assert len(routes) == 1
    assert PI in routes[0]


def test_a_frozen_kernel_is_reset_by_the_watchdog(pi):
    """Nobody but the watchdog starts it again: the kernel was told to stay where it is."""
    assert pi.ssh("cat /proc/sys/kernel/panic").stdout.strip() == "0"
    boot = pi.boot_id()
    pi.crash()
    assert pi.wait_ready(not_boot=boot) == "running"
