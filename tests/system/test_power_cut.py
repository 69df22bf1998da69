"""The virtual Pi's plug can be pulled, its state kept, and its disk cut at any write."""

import subprocess

import pytest

from system.crash_images import contents, crash_images, formatted
from system.machine import VirtualPi
from system.network import PI

pytestmark = pytest.mark.system

_WRITER = """
import os
folder = os.open("/mnt", os.O_RDONLY)
for number in range(60):
    with open("/mnt/.new", "w") as new:
        new.write(f"{number:06}" * 500)
        new.flush()
        os.fsync(new.fileno())
    os.rename("/mnt/.new", "/mnt/careful")
    os.fsync(folder)
    with open("/mnt/careless", "w") as careless:
        careless.write(f"{number:06}" * 500)
    print(number, flush=True)
"""


def test_a_pulled_plug_and_a_saved_machine(image, network, tmp_path):
    """What was flushed is there after a cut; what came after savevm() never was."""
    with VirtualPi(image, network, tmp_path) as machine:
        machine.boot(rtc="2023-01-01T00:00:00")
        machine.wait_ready()
        machine.ssh("echo before > /root/file && sync")
        machine.savevm()
        machine.ssh("echo after > /root/file && sync")
        machine.kill()
        machine.boot()
        assert machine.wait_ready() == "running"
        assert machine.ssh("cat /root/file").stdout == "after\n"
        machine.loadvm()
        assert machine.ssh("cat /root/file").stdout == "before\n"
        machine.kill()
        machine.boot(saved=True)
        assert machine.ssh("cat /root/file").stdout == "before\n"


def test_crash_images_tell_a_careful_writer_from_a_careless_one(image, network, tmp_path):
    """What was acknowledged is on every later image, whole; what was not flushed is not."""
    disk = formatted(tmp_path / "data.img")
    safe = []
    with VirtualPi(image, network, tmp_path / "pi", second=disk) as machine:
        machine.boot()
        machine.wait_ready()
        machine.ssh("mount /dev/disk/by-id/virtio-data /mnt")
        writing = subprocess.Popen(
            network.inside(*machine.ssh_command(), PI, "python3 -u -"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with writing:
            writing.stdin.write(_WRITER)
            writing.stdin.close()
            for line in writing.stdout:
                safe.append((int(line), disk.log.stat().st_size))
        machine.kill()
    assert len(safe) == 60
    torn = 0
    for index, path, offset in crash_images(disk, tmp_path, 40, seed=1):
        files = contents(path, tmp_path / f"files-{index}")
        owed = max((number for number, size in safe if size <= offset), default=-1)
        if owed >= 0:
            careful = (files / "careful").read_text()
            assert careful == careful[:6] * 500
            assert int(careful[:6]) >= owed
            careless = files / "careless"
            torn += not careless.exists() or len(careless.read_bytes()) != 3000
    assert torn > 0
