"""Random damage to one file of a kiosk at a time: see `faults.damage` for what a trial is."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from faults.account import read
from faults.damage import ACCOUNT, KEYS, Outcome, open_state
from faults.expectations import (
    NOT_UNDER_THE_SEAL,
    SENDS_ONLY_WHAT_AUTHENTICATES,
    STARTS_ON_DAMAGED_FILES,
    TELLS_EVERY_LOSS,
)
from faults.worker import FILE, drain
from outbox.conftest import START_MS

# A SQLite integer of six bytes, as a row holds the time of a punch; an event id, which is not meant,
# goes on with its version.
TIME = re.compile(re.escape(START_MS.to_bytes(6, "big")) + rb"(?![\x70-\x7f])")
WAYS = ("closed", "crashed")
LATER = pytest.mark.faults


def call(*arguments):
    """Start a process of `faults.damage`."""
    inside = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "faults.damage", *map(str, arguments)]
    return subprocess.Popen(command, env=inside, stdout=subprocess.PIPE, text=True)


def finished(process):
    """What it printed; it must not have died of a signal."""
    with process:
        lines = process.stdout.read().splitlines()
    assert process.returncode == 0, lines[-1:]
    return [Outcome(**json.loads(line)) for line in lines]


@pytest.fixture(scope="module")
def hurt(tmp_path_factory, request):
    """Trials: half of them on files that were closed, half on those of a killed kiosk.

    The two halves run side by side, and each number of trials once.
    """
    known = {}

    def run(trials, bug=""):
        if (trials, bug) not in known:
            folder = tmp_path_factory.mktemp("damage")
            running = []
            for way in WAYS:
                (folder / way).mkdir()
                finished(call(way, folder / way, *filter(None, [bug])))
                arguments = (folder / way, folder / f"{way}-work", 0, trials // 2)
                running.append(call(*arguments, *filter(None, [bug])))
            known[trials, bug] = [one for process in running for one in finished(process)]
        return known[trials, bug]

    return run


TRIALS = pytest.mark.parametrize("trials", [400, pytest.param(10_000, marks=LATER)])


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
    assert {FILE, f"{FILE}-wal", *KEYS} <= {one.file for one in outcomes}


@STARTS_ON_DAMAGED_FILES
@TRIALS
def test_a_kiosk_starts_on_damaged_files(hurt, trials):
    """Whatever is damaged but the keys: it starts, records a new punch, and sends what it has."""
    stuck = [one for one in hurt(trials) if one.file not in KEYS and one.end != "sent"]
    assert not stuck, (len(stuck), stuck[:3])


@TRIALS
def test_a_damaged_key_is_refused_by_its_name(hurt, trials):
    """Without the right key nothing opens: the start is refused and the file named, or it works."""
    for one in hurt(trials):
        if one.file in KEYS:
            assert one.end == "sent" or (one.end == "refused" and one.file in one.error), one


@TRIALS
def test_nothing_is_sent_that_was_not_recorded(hurt, trials):
    """No damage changes what is sent: an event goes out as it was recorded, or not at all."""
    for one in hurt(trials):
        assert set(one.forged) <= NOT_UNDER_THE_SEAL, one


@SENDS_ONLY_WHAT_AUTHENTICATES
def test_a_changed_time_is_not_sent(hurt, tmp_path):
    """The time of a punch that waits is under the seal as the rest of it is."""
    finished(call("closed", tmp_path))
    later = (START_MS + 3_600_000).to_bytes(6, "big")
    data, changed = TIME.subn(later, (tmp_path / FILE).read_bytes())
    assert changed
    (tmp_path / FILE).write_bytes(data)
    outbox = open_state(tmp_path)
    outbox.start()
    times = {json.loads(body)["TS1"] for body in drain(outbox)}
    outbox.close(60.0)
    assert times <= {json.loads(body)["TS1"] for body in read(tmp_path / ACCOUNT).received}


@TELLS_EVERY_LOSS
@TRIALS
def test_a_loss_is_never_silent(hurt, trials):
    """Where something that waited is neither sent nor set aside, the journal says so loudly."""
    silent = [one for one in hurt(trials) if one.lost and not one.told]
    assert not silent, (len(silent), silent[:3])


def test_the_trials_find_what_they_look_for(hurt, tell):
    """A vault that seals nothing lets damage out, and a server that goes by numbers loses events."""
    unsealed = [one for one in hurt(400, "open") if set(one.forged) - NOT_UNDER_THE_SEAL]
    by_number = sum(one.by_number for one in hurt(400))
    tell("damage, controls", forged_when_unsealed=len(unsealed), lost_by_number=by_number)
    assert unsealed
    assert by_number
