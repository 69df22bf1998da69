"""Random damage to one file of a kiosk at a time: see `faults.damage` for what a trial is."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from faults.damage import KEYS, Outcome, Truth, live_on
from faults.worker import FILE
from kiosk.spare import SPARE_FILE
from outbox.punching import START_MS

# A SQLite integer of six bytes, as a row holds the time of a punch; an event id begins with the
# same, but goes on with its version.
TIME = re.escape(START_MS.to_bytes(6, "big")) + rb"(?![\x70-\x7f])"
WAYS = ("closed", "crashed")
LATER = pytest.mark.faults


def call(*arguments):
    """Start a process of `faults.damage`."""
    inside = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-m", "faults.damage", *map(str, arguments)]
    return subprocess.Popen(command, env=inside, stdout=subprocess.PIPE, text=True)


def finished(process):
    """What it printed; it must not have died of a signal."""
    with process:
        lines = process.stdout.read().splitlines()
    assert process.returncode == 0, lines[-1:]
    return [Outcome(**json.loads(line)) for line in lines]


@pytest.fixture(scope="module")
def hurt(tmp_path_factory):
    """Trials: half of them on files that were closed, half on those of a killed kiosk.

    The two halves run side by side, and each number of trials once.
    """
    known = {}

    def run(trials):
        if trials not in known:
            folder = tmp_path_factory.mktemp("damage")
            running = []
            for way in WAYS:
                (folder / way).mkdir()
                finished(call(way, folder / way))
                running.append(call(folder / way, folder / f"{way}-work", 0, trials // 2))
            known[trials] = [one for process in running for one in finished(process)]
        return known[trials]

    return run


TRIALS = pytest.mark.parametrize("trials", [240, pytest.param(10_000, marks=LATER)])


@TRIALS
def test_damage_is_counted(hurt, tell, trials):
    """Every trial has an outcome; damage was done to each of a kiosk's files."""
    outcomes = hurt(trials)
    told = {
        "trials": len(outcomes),
        **Counter(one.end for one in outcomes),
        "lost": sum(one.lost for one in outcomes),
        "lost_in_silence": sum(bool(one.lost and not one.told) for one in outcomes),
        "forged": sum(bool(one.forged) for one in outcomes),
    }
    tell("damage", **told)
    assert len(outcomes) == trials
    assert {FILE, f"{FILE}-wal", *KEYS, SPARE_FILE} <= {one.file for one in outcomes}


@TRIALS
def test_a_kiosk_starts_on_damaged_files(hurt, trials):
    """Whatever is damaged, a key too: it starts, records a new punch, and sends what it has."""
    stuck = [one for one in hurt(trials) if one.end != "sent"]
    assert not stuck, (len(stuck), stuck[:3])


def test_a_damaged_key_without_a_copy_is_refused_by_its_name(tmp_path):
    """Without the right key nothing opens: the start is refused and the file named, or it works."""
    source = tmp_path / "kiosk"
    source.mkdir()
    finished(call("closed", source))
    (source / SPARE_FILE).unlink()
    ends = [one for one in finished(call(source, tmp_path / "work", 0, 240)) if one.file in KEYS]
    assert any(one.end == "refused" for one in ends)
    for one in ends:
        assert one.end == "sent" or (one.end == "refused" and one.file in one.error), one


@TRIALS
def test_nothing_is_sent_that_was_not_recorded(hurt, trials):
    """No damage changes what is sent: an event goes out as it was recorded, or not at all."""
    for one in hurt(trials):
        assert not one.forged, one


def forged(folder, bug, pattern, replacement):
    """What differs in what is sent, after a replacement in the database of a kiosk."""
    (folder / "kiosk").mkdir()
    finished(call("closed", folder / "kiosk", *filter(None, [bug])))
    truth = Truth(folder / "kiosk", folder / "work", bug)
    file = folder / "kiosk" / FILE
    data, changed = re.subn(pattern, replacement, file.read_bytes())
    assert changed
    file.write_bytes(data)
    outcome = Outcome(0, FILE, "replaced")
    live_on(folder / "kiosk", outcome, truth, bug)
    return outcome.forged


def test_a_changed_time_is_not_sent(tmp_path):
    """The time of a punch that waits is under the seal as the rest of it is."""
    later = (START_MS + 3_600_000).to_bytes(6, "big")
    assert not forged(tmp_path, "", TIME, later)


def test_without_a_seal_damage_gets_out(tmp_path):
    """The harness sees it when a vault seals nothing: a name that was changed on disk is sent."""
    assert "E1" in forged(tmp_path, "open", rb"E-0-", b"E-9-")


@TRIALS
def test_a_loss_is_never_silent(hurt, trials):
    """Where something that waited is neither sent nor set aside, the journal says so loudly."""
    silent = [one for one in hurt(trials) if one.lost and not one.told]
    assert not silent, (len(silent), silent[:3])


def test_the_trials_find_a_server_that_goes_by_numbers(hurt, tell):
    """After a damaged log numbers begin anew: a server that knows events by them loses some."""
    by_number = sum(one.by_number for one in hurt(240))
    tell("damage, control: by number", trials=240, lost=by_number)
    assert by_number
