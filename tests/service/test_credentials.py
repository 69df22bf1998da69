"""The secret as systemd hands it over: sealed on disk, never a file in the state folder."""

import json


def test_a_sealed_credential_is_the_secret(site):
    """Encrypted with the machine's own key; the daemon opens its queue with it, twice."""
    machine = site.machine
    machine.run("systemd-creds", "setup")
    machine.run("mkdir", "-p", "/etc/credstore.encrypted")
    seal = "head -c 32 /dev/urandom | systemd-creds encrypt --name=kiosk.secret - "
    machine.run("sh", "-c", seal + "/etc/credstore.encrypted/kiosk.secret")
    for _ in range(2):
        machine.run("systemctl", "start", "kiosk.service")
        site.ready()
        device = site.status()["device"]
        machine.run("systemctl", "stop", "kiosk.service")
    files = machine.run("ls", "-A", "/var/lib/kiosk").stdout.split()
    assert "device.secret" not in files
    assert "outbox.db" in files
    spare = machine.run("cat", "/var/lib/kiosk/device.spare").stdout.partition("\n")[2]
    assert list(json.loads(spare)) == ["device.id"]
    machine.run("rm", "/etc/credstore.encrypted/kiosk.secret")
    machine.run("systemctl", "start", "--no-block", "kiosk.service")
    machine.until(
        "a refusal by name",
        lambda: [e for e in machine.journal("-u", "kiosk") if "device.secret expected" in str(e)],
    )
    assert device
