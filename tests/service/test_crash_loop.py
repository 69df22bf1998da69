"""A kiosk that cannot live: it is restarted for ever, ever more slowly."""

EXTRA_FILES = {
    # It gets as far as its queue and dies there, each time.
    "/opt/extra/sitecustomize.py": (
        "import os, sys, threading, time\n"
        "def _die():\n"
        "    while 'kiosk.outbox.store' not in sys.modules:\n"
        "        time.sleep(0.01)\n"
        "    path = '/run/kiosk/control.sock'\n"
        "    while not os.path.exists(path) or os.stat(path).st_mtime < began:\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), 9)\n"
        "began = time.time()\n"
        "if 'RUNTIME_DIRECTORY' in os.environ:\n"
        "    threading.Thread(target=_die, daemon=True).start()\n"
    )
}


def test_each_death_makes_the_next_start_wait_longer(site):
    """On a systemd that knows no RestartSteps= the kiosk waits by itself: 2, 4, 8 s and on."""
    machine = site.machine
    machine.run("systemctl", "start", "--no-block", "kiosk.service")

    def starts():
        entries = machine.journal("-u", "kiosk", "KIOSK_EVENT=kiosk.starting")
        return entries if len(entries) >= 4 else []

    entries = machine.until("four starts", starts)[:4]
    assert [entry["KIOSK_HASTY_RUNS"] for entry in entries] == ["0", "1", "2", "3"]
    assert [entry["KIOSK_AFTER"] for entry in entries] == ["boot", *["killed"] * 3]
    # systemd itself waits for the same 2 s each time: the kiosk adds what is missing.
    pauses = [float(entry["KIOSK_PAUSE_S"]) for entry in entries]
    assert pauses[3] > pauses[2] > 0.0 == pauses[0]
    assert machine.property("kiosk", "Result") != "start-limit-hit"
