"""Forward, back and clearing away on the Pi, each cut short at every step of it."""

import itertools
import json
import os
from subprocess import CompletedProcess

import pytest
from board import hygiene, record, releases, switch, trial
from board.layout import READY, Layout, point
from board.refusal import RefusedError

UNITS = ("kiosk.service", "kiosk-check.service", "kiosk-check.timer", "kiosk-settle.service")
PLAN = {"former": "1.0.0-old", "former_previous": "0.9.0-older", "release": "2.0.0-new"}
STEPS = ("open", "replace", "unlink", "symlink", "link", "fsync")


class PowerCut(BaseException):
    """Nothing that follows is done, no handler runs."""


class Tripwire:
    """Counts file operations and commands, and cuts the power before the n-th."""

    def __init__(self):
        self.left = None
        self.commands = []

    def step(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise PowerCut

    def run(self, *command, **_):
        self.step()
        self.commands.append(" ".join(map(str, command)))
        return CompletedProcess(command, 0, b"running\n", b"")

    def must(self, *command, **named):
        return self.run(*command, **named).stdout.decode()

    def cut_at(self, number, work, *arguments, **named):
        """Whether the power was cut in it before it was done."""
        self.left = number
        try:
            work(*arguments, **named)
        except PowerCut:
            return True
        finally:
            self.left = None
        return False


@pytest.fixture
def wire(monkeypatch):
    wire = Tripwire()
    for module in (switch, trial):
        monkeypatch.setattr(module, "run", wire.run)
        monkeypatch.setattr(module, "must", wire.must)
    for name in STEPS:
        real = getattr(os, name)

        def stepping(*arguments, real=real, **named):
            wire.step()
            return None if real.__name__ == "fsync" else real(*arguments, **named)

        monkeypatch.setattr(os, name, stepping)
    return wire


def release(layout, name, *units, libraries="shared"):
    """A release that is whole: its units say whose they are."""
    folder = layout.release(name)
    (folder / "deploy").mkdir(parents=True)
    for unit in units:
        (folder / "deploy" / unit).write_text(f"{unit} of {name}")
    wheels = [{"sha256": name.ljust(64, "0")}]
    (folder / READY).write_text(json.dumps({"libraries": libraries, "wheels": wheels}))
    for place in (layout.libraries / libraries, layout.wheels / wheels[0]["sha256"][:16]):
        place.mkdir(parents=True, exist_ok=True)


@pytest.fixture
def pi(tmp_path):
    """Makes one where the old release runs, the older is the one before, and the new is ready."""
    numbers = itertools.count()

    def make(*, proposed=True):
        layout = Layout(tmp_path / str(next(numbers)))
        for folder in (layout.units, layout.settings.parent, layout.state):
            folder.mkdir(parents=True)
        release(layout, PLAN["former_previous"], *UNITS, libraries="older")
        release(layout, PLAN["former"], *UNITS, "kiosk-former.service")
        release(layout, PLAN["release"], *UNITS, "kiosk-new.timer", libraries="newer")
        point(layout.current, layout.release(PLAN["former"]).relative_to(layout.home))
        point(layout.previous, layout.release(PLAN["former_previous"]).relative_to(layout.home))
        nothing = layout.root / "nothing"
        switch.install_units(layout, layout.release(PLAN["former"]), nothing)
        (layout.units / "kiosk-of-somebody.service").write_text("not ours")
        layout.settings.write_text("old")
        plan = {**PLAN, "settings": "proposed" if proposed else ""}
        if proposed:
            switch.proposed(layout).write_text("new")
        layout.begun.write_text(json.dumps(plan))
        return layout, plan

    return make


def stands(layout):
    """Links, units and configuration."""
    units = {
        path.name: path.read_text() for path in layout.units.iterdir() if path.suffix != ".new"
    }
    links = [
        str(link.readlink()) for link in (layout.current, layout.previous) if link.is_symlink()
    ]
    before = layout.settings.with_name("kiosk.toml.before").exists()
    return links, units, layout.settings.read_text(), before


def settled(layout, wire, expected):
    """Gone back to what is expected; a second time changes nothing and runs nothing."""
    assert trial.settle(layout) == 0
    assert stands(layout) == expected
    assert not layout.trial.exists()
    wire.commands.clear()
    assert trial.settle(layout) == 0
    assert (stands(layout), wire.commands) == (expected, [])


@pytest.mark.parametrize("proposed", [True, False])
def test_a_switch_that_is_cut_short_anywhere_is_gone_back_from(pi, wire, proposed):
    """Link, units and configuration of the former release, exactly, from every step of it."""
    for number in itertools.count():
        layout, plan = pi(proposed=proposed)
        expected = stands(layout)
        cut = wire.cut_at(number, switch.forward, layout, plan)
        settled(layout, wire, expected)
        if not cut:
            break
    assert number > (20 if proposed else 14)


@pytest.mark.parametrize("proposed", [True, False])
def test_going_back_that_is_cut_short_anywhere_is_done_the_next_time(pi, wire, proposed):
    """The note is what goes last; the release is noted as gone back from."""
    for number in itertools.count():
        layout, plan = pi(proposed=proposed)
        expected = stands(layout)
        switch.forward(layout, plan)
        assert stands(layout) != expected
        cut = wire.cut_at(number, trial.settle, layout)
        settled(layout, wire, expected)
        if not cut:
            break
    assert number > 14
    assert record.newest(layout, 1)[0]["outcome"] == "went back"
    assert "kiosk-trial" not in "".join(wire.commands)


def test_a_verdict_that_is_cut_short_holds_or_does_not(pi, wire):
    """Before its word everything is the former release's, what a rollback goes to as well."""
    for number in itertools.count():
        layout, plan = pi()
        expected = stands(layout)
        switch.forward(layout, plan)
        _, units, settings, _ = stands(layout)
        cut = wire.cut_at(number, switch.keep, layout, plan)
        if layout.trial.exists():
            settled(layout, wire, expected)
            continue
        hygiene.sweep(layout, lambda _: None)
        kept = [f"releases/{PLAN['release']}", f"releases/{PLAN['former']}"]
        assert stands(layout) == (kept, units, settings, False)
        if not cut:
            break
    assert number > 5


def test_the_configuration_of_an_earlier_trial_is_not_taken_for_the_one_before(pi, wire):
    """Left there by a verdict that was cut short: neither a later switch nor going back uses it."""
    for proposed, number in itertools.product((True, False), range(25)):
        layout, plan = pi(proposed=proposed)
        expected = stands(layout)
        layout.settings.with_name("kiosk.toml.before").write_text("of long ago")
        wire.cut_at(number, switch.forward, layout, plan)
        assert trial.settle(layout) == 0
        assert stands(layout)[:3] == expected[:3]


SPOILT = [
    b"",
    b'{"release": "2.0.0-n',
    b"\xff\0",
    b"null",
    b"[]",
    b"{}",
    b'{"release": 1, "former": 2}',
]


@pytest.mark.parametrize("note", [*SPOILT, b'{"release": "x", "former": "../../etc"}'])
def test_a_note_that_is_spoilt_is_read_where_it_was_taken_from(pi, wire, note):
    """A failing card: the plan that the trial was begun with says the same."""
    layout, plan = pi()
    expected = stands(layout)
    switch.forward(layout, plan)
    layout.trial.write_bytes(note)
    settled(layout, wire, expected)


def test_without_any_note_what_runs_goes_on(pi, wire):
    """Nothing is known to go back to: the note goes, so that the next deploy may begin."""
    layout, plan = pi()
    switch.forward(layout, plan)
    for path in (layout.trial, layout.begun):
        path.write_bytes(b"\0" * 100)
    now = stands(layout)[:3]
    settled(layout, wire, (*now, False))
    assert record.newest(layout, 1)[0]["outcome"] == "unhealthy"
    assert record.newest(layout, 1)[0]["release"] == PLAN["release"]


@pytest.mark.parametrize("spoilt", ["gone", "not whole"])
def test_nothing_is_gone_back_to_that_is_not_there(pi, wire, spoilt):
    """A link to a release that is not whole would start nothing at all."""
    layout, plan = pi(proposed=False)
    switch.forward(layout, plan)
    former = layout.release(PLAN["former"])
    former.rename(former.with_name("elsewhere")) if spoilt == "gone" else (former / READY).unlink()
    now = stands(layout)
    settled(layout, wire, now)
    assert "is not there" in record.newest(layout, 1)[0]["why"]


def test_a_configuration_is_compared_with_the_one_in_force_now(pi, wire, monkeypatch):
    """Under the lock: what the sender saw before it built may be another one's by then."""
    layout, _ = pi(proposed=False)
    monkeypatch.setattr(switch.shutil, "chown", lambda *_: None)
    assert not switch.propose(layout, b"old")
    assert not switch.proposed(layout).exists()
    assert switch.propose(layout, b"new")
    assert switch.proposed(layout).read_bytes() == b"new"
    layout.settings.unlink()
    assert switch.propose(layout, b"new")


@pytest.fixture
def tried(wire, monkeypatch):
    """How often a release was watched; `how` ends the watching."""
    watched = []

    def trying(layout, how):
        layout.begun.replace(layout.plan)
        monkeypatch.setattr(trial.Watch, "remember", lambda _: None)

        def healthy(_, health_s):
            watched.append(health_s)
            return how()

        monkeypatch.setattr(trial.Watch, "healthy", healthy)
        return watched

    return trying


def raising(error):
    def fails(*_, **__):
        raise error

    return fails


@pytest.mark.parametrize("settled_between", [True, False])
def test_a_trial_that_failed_is_not_tried_again(pi, wire, tried, settled_between):
    """systemd starts its unit once more: the release that was gone back from stays so."""
    layout, plan = pi()
    expected = stands(layout)
    watched = tried(layout, raising(PowerCut))
    layout.plan.write_text(json.dumps(plan | {"health_s": 1}))
    with pytest.raises(PowerCut):
        trial.run_trial(layout)
    if settled_between:
        trial.settle(layout)
    assert trial.run_trial(layout) == 0
    assert trial.run_trial(layout) == 0
    assert (stands(layout), len(watched)) == (expected, 1)
    assert [line["outcome"] for line in record.newest(layout, 9)] == ["went back"]


def test_a_release_that_was_kept_stays_whatever_fails_behind_the_verdict(pi, wire, tried):
    """A card that is full by then: what is started once more neither tries nor goes back."""
    layout, plan = pi()
    tried(layout, lambda: "")
    layout.plan.write_text(json.dumps(plan | {"health_s": 1}))
    layout.history.mkdir()
    with pytest.raises(OSError, match="history"):
        trial.run_trial(layout)
    now = stands(layout)
    assert now[0] == [f"releases/{PLAN['release']}", f"releases/{PLAN['former']}"]
    assert trial.run_trial(layout) == 0
    assert stands(layout) == now


def test_a_daily_check_that_cannot_be_started_spoils_no_verdict(pi, wire, monkeypatch):
    """Somebody has masked it: the release is kept and said to be."""
    layout, plan = pi()
    switch.forward(layout, plan)
    monkeypatch.setattr(switch, "must", raising(RefusedError("masked")))
    switch.keep(layout, plan)
    assert not layout.trial.exists()


@pytest.mark.parametrize("name", ["3.0.0-nowhere", "", "../releases"])
def test_no_trial_begins_of_a_release_that_is_not_there(pi, wire, name):
    """Refused before anything is switched."""
    layout, _ = pi()
    expected = stands(layout)
    with pytest.raises(RefusedError, match="expected a release that is whole"):
        trial.begin(layout, {**PLAN, "release": name}, lambda _: None)
    assert (stands(layout), wire.commands) == (expected, [])


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def littered(layout):
    """What deploys that were cut short leave."""
    (layout.libraries / "half.half").mkdir(parents=True)
    layout.incoming.mkdir()
    (layout.incoming / "0123").mkdir()
    for name, age_days in (("young.part", 1), ("old.part", 8)):
        path = layout.incoming / name
        path.write_text("part")
        at = path.stat().st_mtime - age_days * 86400
        os.utime(path, (at, at))
    (layout.incoming / "away").symlink_to("/nowhere")


def test_what_nobody_needs_is_cleared_away_and_nothing_else(pi, wire):
    """The running release, the one before, what they share, and what is taken up again stay."""
    layout, _ = pi()
    expected = stands(layout)
    littered(layout)
    told = []
    swept = hygiene.sweep(layout, told.append)
    assert sorted(swept["gone"]) == ["2.0.0-new", "half.half", "newer"]
    assert names(layout.releases) == [PLAN["former_previous"], PLAN["former"]]
    assert names(layout.libraries) == ["older", "shared"]
    assert names(layout.incoming) == ["away", "young.part"]
    assert names(layout.settings.parent) == ["kiosk.toml"]
    assert stands(layout) == expected
    assert hygiene.sweep(layout, told.append) == {"gone": []}
    assert len(told) == 3


def test_a_trial_that_was_cut_short_is_gone_back_from_before_its_release_is_cleared(pi, wire):
    """What runs is never what is cleared away."""
    layout, plan = pi()
    expected = stands(layout)
    switch.forward(layout, plan)
    hygiene.sweep(layout, lambda _: None)
    assert stands(layout) == expected
    assert not layout.release(PLAN["release"]).exists()
    assert layout.release(PLAN["former"]).exists()


@pytest.mark.parametrize("spoilt", [b"", b'{"libr', b"\xff", b"[1]", None])
def test_of_a_release_that_says_nothing_all_libraries_stay(pi, wire, spoilt):
    """Its file is spoilt, it runs all the same: what it needs is not known, so nothing goes."""
    layout, _ = pi()
    ready = layout.release(PLAN["former"]) / READY
    ready.unlink()
    if spoilt is not None:
        ready.write_bytes(spoilt)
    hygiene.sweep(layout, lambda _: None)
    assert "shared" in names(layout.libraries)
    assert PLAN["former"] in names(layout.releases)


def test_a_link_among_the_releases_is_not_followed(pi, wire, tmp_path):
    """Somebody's own: neither what it names nor the link itself goes."""
    layout, _ = pi()
    (tmp_path / "precious").mkdir()
    (layout.releases / "link").symlink_to(tmp_path / "precious")
    hygiene.sweep(layout, lambda _: None)
    assert (layout.releases / "link").exists()


def test_packages_of_the_two_last_releases_are_kept(pi, wire):
    """They need not be sent again; those of others go."""
    layout, _ = pi()
    releases.drop_unused_wheels(layout)
    assert len(names(layout.wheels)) == 2


def test_a_spoilt_history_does_not_keep_anybody_from_deploying(pi):
    """Its readable lines are told, the next one is appended."""
    layout, _ = pi()
    layout.history.write_bytes(b'{"at": "x"}\n\xff\xfe\n{"at\n[1]\n')
    record.note(layout, outcome="kept")
    assert [line.get("outcome") for line in record.newest(layout, 10)] == [None, "kept"]
