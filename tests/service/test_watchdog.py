"""A worker that hangs: with the unit's watchdog the kiosk is back, without it it hangs for ever."""

import json

# The unit's own 30 s would only make the test longer. Beside it the same service without one.
SERVICES = {
    "kiosk": "WatchdogSec=6\n",
    "unwatched": "WatchdogSec=0\n",
}


def test_a_frozen_worker_is_restarted_by_the_watchdog(site):
    """Frozen inside a frame: only the watched one gets a new process; both journals tell."""
    machine = site.machine
    before = {}
    for name in SERVICES:
        machine.run("systemctl", "start", name)
        before[name] = site.ready(name)
        machine.until(f"{name} sees", lambda n=name: site.status(n)["counts"].get("frames", 0) > 20)
    for name in SERVICES:
        machine.run("touch", f"/run/{name}/freeze")
    hung = machine.until(
        "both journals tell of it",
        lambda: (
            machine.events().count("thread.hangs")
            and [e for e in machine.journal("-u", "unwatched") if _is(e, "thread.hangs")]
        ),
    )
    assert hung[0]["PRIORITY"] == "2"
    assert hung[0]["KIOSK_THREAD"] == "vision"
    assert "frozen" in hung[0]["KIOSK_WHERE"]
    machine.until("the end by the watchdog", lambda: machine.pid("kiosk") != before["kiosk"])
    machine.run("rm", "/run/kiosk/freeze")
    site.ready(other_than=before["kiosk"])
    assert site.status()["restarts"] == {"cause": "watchdog", "since_boot": _once("watchdog")}
    assert machine.pid("unwatched") == before["unwatched"]
    assert machine.property("unwatched", "NRestarts") == "0"
    assert "hangs: vision" in machine.property("unwatched", "StatusText")


def _is(entry, event):
    return entry.get("KIOSK_EVENT") == event


def _once(cause):
    return json.loads(json.dumps({"boot": 1, cause: 1}))
