"""What happens to a kiosk on a wall, on a virtual Pi 5: power, network, clock, disk, camera."""

import json
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from faults import account
from faults.account import Verdict, judge
from faults.aftermath import reopened
from service.machine import REPOSITORY
from system.crash_images import contents, crash_images, formatted
from system.network import PI
from system.product import until

pytestmark = pytest.mark.system

CUTS = 150
CONTROL_CUTS = 30
_PYTHON = "/opt/kiosk/current/venv/bin/python"
_PAUSE = threading.Event()
# What was said there is read here within so many seconds.
_LATE_S = 3.0


@pytest.fixture(scope="module")
def product(once, tmp_path_factory):
    """A Pi that the first release runs on, with a second disk."""
    folder = tmp_path_factory.mktemp("troubles")
    with once.product(folder, second=formatted(folder / "data.img")) as made:
        made.disk = made.pi._second
        yield made


def exactly_once(product, events):
    """Wait until the server has each of these, and look that it has nothing twice."""

    def there():
        rows = [row["event_id"] for row in product.attendance()]
        return rows if set(events) <= set(rows) else None

    rows = until("every event at the server", there, 300)
    assert len(rows) == len(set(rows))


def seconds(later, earlier):
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def queued(product):
    """Let people punch until there is one; the ids of the events that then wait on the Pi."""
    with product.visitors():
        # Looked for where it costs little: a command of the kiosk's takes an emulated core long.
        since = len(product.board.events("visit.recorded"))
        until("a punch", lambda: len(product.board.events("visit.recorded")) > since, 300)
        return product.waiting()


def test_a_network_that_is_cut_delays_and_loses_nothing(product):
    """People go on punching; when it is back each event arrives, once."""
    known = {row["event_id"] for row in product.attendance()}
    with product.visitors():
        product.network.link_down()
        _PAUSE.wait(75)
        product.network.link_up()

    def late():
        """Punches that were long on the card before the server had them."""
        rows = [row for row in product.attendance() if row["event_id"] not in known]
        return [row["event_id"] for row in rows if seconds(row["received"], row["seen"]) > 10]

    exactly_once(product, until("a punch of that time at the server", late, 300))


def test_a_frozen_process_is_restarted_by_the_service_watchdog(product):
    """Stopped where it is, it answers no watchdog: systemd ends it and starts another."""
    before = product.running()
    product.board.run("kill", "-STOP", before)
    product.running(other_than=before)
    assert "Watchdog timeout" in product.pi.ssh("journalctl -b -u kiosk -o cat").stdout
    product.recorded(len(product.attendance()))


def test_a_frozen_kernel_is_reset_by_the_hardware_watchdog(product):
    """Armed by what the deploy brought; the machine boots, the kiosk runs, the queue is whole."""
    boot = product.pi.boot_id()
    assert product.board.property("-", "RuntimeWatchdogUSec") == "14s" or "14s" in (
        product.pi.ssh("systemctl show -p RuntimeWatchdogUSec --value").stdout
    )
    product.pi.crash()
    assert product.pi.wait_ready(not_boot=boot) == "running"
    product.running()
    product.recorded(len(product.attendance()))


def test_the_plug_is_pulled_with_events_queued(product):
    """kill -9 of the machine while the server is away: all that waited arrives, once."""
    product.site.server.terminate()
    product.site.server.wait(60)
    waited = queued(product)
    product.pi.kill()
    product.pi.boot()
    product.pi.wait_ready()
    product.running()
    product.site.serve()
    exactly_once(product, waited)


def test_a_clock_that_is_wrong_at_boot_is_set_right_in_what_was_recorded(product):
    """Booted in 2023 without a network: its punches come with the true time, and say so."""
    known = {row["event_id"] for row in product.attendance()}
    with product.visitors():
        # What timesyncd starts from when it knows no better.
        product.pi.ssh("rm -f /var/lib/systemd/timesync/clock && sync")
        product.pi.kill()
        product.pi.boot(rtc="2023-01-01T00:00:00")
        product.pi.monitor("set_link network off")
        _PAUSE.wait(120)
        product.pi.monitor("set_link network on")
        product.pi.wait_ready()

    def corrected():
        rows = product.attendance()
        return [r for r in rows if r["event_id"] not in known and r["clock"] == "corrected"]

    for row in until("a corrected punch", corrected, 300):
        assert row["received"][:10] == row["seen"][:10], row


def test_a_full_disk_is_said_and_gets_over(product):
    """Filled by another program: the kiosk runs, says so, and records when there is room again."""
    product.pi.ssh("fallocate -l $(($(stat -f -c '%a*%S' /)-1000000)) /filler; true")
    product.pi.ssh("dd if=/dev/zero of=/filler2 bs=64k 2>/dev/null; true")
    before = len(product.attendance())
    events = ("disk.filling", "outbox.ballast_dropped")
    until("word of a full disk", lambda: product.board.events(*events), 240)
    product.recorded(before + 1)
    product.pi.ssh("rm -f /filler /filler2")
    assert product.site.status()["state"] == "running"
    product.recorded(before + 2)


def test_a_kiosk_that_wants_too_much_memory_is_ended_and_started(product):
    """MemoryMax ends it and nothing else; without the limit it runs on."""
    before = product.running()
    limit = "systemctl set-property --runtime kiosk MemoryMax="
    product.pi.ssh(f"{limit}60M")
    until("an end by the limit", lambda: product.board.pid("kiosk") != before, 120)
    product.pi.ssh(f"{limit}700M; systemctl reset-failed kiosk; systemctl restart kiosk")
    product.running(other_than=before)


@pytest.mark.parametrize(
    ("model", "least"),
    [("mobilefacenet-fp32", 0.99999), ("mobilefacenet-int8-nhwc-u8", 0.999)],
)
def test_embeddings_are_those_of_x86(product, model, least):
    """Golden faces through the deployed kiosk on the emulated core, and here."""
    same_as_here(product, model, least)


def test_the_dot_product_is_taken(product, tmp_path):
    """What INT8 runs on on a Pi 5, seen in the code that the core is given."""
    assert "asimddp" in product.pi.ssh("cat /proc/cpuinfo").stdout
    # What is read from the disk anew is new code to the emulator.
    product.pi.ssh("systemctl stop kiosk && sync && echo 3 > /proc/sys/vm/drop_caches")
    with product.pi.disassembled(tmp_path / "code"):
        embedded(product, "mobilefacenet-int8-nhwc-s8", golden_faces()[:1])
    product.pi.ssh("systemctl start kiosk")
    assert any(is_sdot(word) for word in instructions(tmp_path / "code"))


def instructions(disassembly):
    """Each as the number that it is, from QEMU's lines "0xADDRESS:  NUMBER  what that means"."""
    with disassembly.open() as lines:
        for line in lines:
            if line.startswith("0x"):
                yield int(line.split()[1], 16)


def is_sdot(word):
    """Vectors, or by element: Arm's Architecture Reference Manual (DDI 0487), C7.2, SDOT."""
    return word & 0xBFE0FC00 == 0x0E809400 or word & 0xBFC0F400 == 0x0F80E000


def same_as_here(product, model, least):
    """Compare embeddings; INT8 only where this machine computes as ARM does (VNNI)."""
    faces = golden_faces()[:3]
    command = [REPOSITORY / ".venv/bin/kiosk", *embed(model), *faces]
    here = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    there = embedded(product, model, faces)
    for a, b in zip(there.splitlines(), here.splitlines(), strict=True):
        assert cosine(embedding(a), embedding(b)) >= least or not vnni_or_exact(model)


def golden_faces():
    return sorted((REPOSITORY / "models/golden").glob("*.png"))


def embed(model):
    return ("embed", "--aligned", "--json", "--model", model)


def embedded(product, model, faces):
    """Golden faces, as `kiosk embed` tells them on the Pi."""
    release = "$(dirname $(readlink -f /opt/kiosk/current/venv/bin/kiosk))/.."
    find = f"find {release}/lib -type d -path '*_models/golden'"
    folder = product.pi.ssh(find).stdout.strip()
    pictures = " ".join(f"{folder}/{face.name}" for face in faces)
    command = f"/opt/kiosk/current/venv/bin/kiosk {' '.join(embed(model))} {pictures}"
    return product.pi.ssh(command, timeout=600).stdout


def vnni_or_exact(model):
    flags = Path("/proc/cpuinfo").read_text()
    return "fp32" in model or "avx512_vnni" in flags or "avx_vnni" in flags


def embedding(line):
    (face,) = json.loads(line)["faces"]
    return face["embedding"]


def cosine(one, other):
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5


def loaded(product, bug, seconds=20):
    """Load a queue on the second disk; what it said, and what was known of it when.

    That is, for each moment, in seconds, how many bytes were said and how many the log had.
    """
    pi, log = product.pi, product.disk.log
    pi.ssh("mkdir -p /mnt/disk /root/tests /root/account && umount /mnt/disk 2>/dev/null; true")
    disk = "/dev/disk/by-id/virtio-data"
    pi.ssh(f"mount {disk} /mnt/disk && find /mnt/disk -mindepth 1 -delete")
    send(product)
    begun = log.stat().st_size
    script = (
        "rm -f /root/account/said && touch /root/account/said && cd /root/tests &&"
        f" (PYTHONPATH=. {_PYTHON} system/writer.py /mnt/disk /root/account/said {seconds}"
        f" '{bug}' >/root/account/log 2>&1 &) ; timeout {seconds} tail -c +1 -f /root/account/said"
    )
    known, said = [], b""
    command = product.network.inside(*pi.ssh_command(), PI, script)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as stream:
        while part := stream.stdout.read1():
            said += part
            known.append((time.monotonic(), len(said), log.stat().st_size))
    assert said, pi.ssh("cat /root/account/log").stdout
    pi.ssh("umount -l /mnt/disk; true")
    return said, known, begun


def send(product):
    """The tests' own machinery, as it is, to where the writer runs."""
    tests = REPOSITORY / "tests"
    names = ["faults", "outbox/punching.py", "system/writer.py"]
    archive = subprocess.run(
        ["tar", "-C", tests, "-cf", "-", *names], capture_output=True, check=True
    ).stdout
    command = product.network.inside(*product.pi.ssh_command(), PI, "tar -C /root/tests -xf -")
    subprocess.run(command, input=archive, check=True, timeout=120)


def over_cuts(product, folder, bug, count):
    """The verdict over so many power cuts in the middle of the load."""
    told, known, begun = loaded(product, bug)
    (folder / "said").write_bytes(told)
    total, judged = Verdict(), 0
    for index, path, offset in crash_images(product.disk, folder, count, seed=1):
        owed = max((size for _, size, log in known if log <= offset), default=0)
        if offset < begun or not owed:
            continue
        after, probes = reopened(contents(path, folder / f"files-{index}"))
        said, later = (account.read(folder / "said", n) for n in (owed, heard_by(known, offset)))
        total += judge(account.heard_late(said, later, after), after, probes)
        judged += 1
    return total, judged


def heard_by(known, offset):
    """How much of what had been said when the log had so many bytes has been read at last."""
    cut = next((moment for moment, _, log in known if log > offset), known[-1][0])
    return max(size for moment, size, _ in known if moment <= cut + _LATE_S)


def test_no_power_cut_loses_what_was_promised(product, tmp_path):
    """From the log of every write: a disk as each of so many cuts would have left it."""
    verdict, judged = over_cuts(product, tmp_path, "", CUTS + CUTS // 5)
    print(f"crash images {judged}: {verdict}")
    assert judged >= CUTS
    assert verdict.promised
    assert (verdict.lost, verdict.doubled, verdict.altered) == (0, 0, 0)


def test_the_same_cuts_find_a_queue_that_trusts_the_page_cache(product, tmp_path):
    """Without a sync at a commit the same judgement must find losses."""
    verdict, judged = over_cuts(product, tmp_path, "no-fsync", 4 * CONTROL_CUTS)
    print(f"crash images {judged}, without fsync: {verdict}")
    assert judged
    assert verdict.lost
