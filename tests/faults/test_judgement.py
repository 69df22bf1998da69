"""The judgement itself: each kind of wrong, made by hand, is seen and called by its name."""

import json

import pytest

from faults.account import Account, Said, Verdict, heard_late, judge, read


def body(name, number=1, person=None, **more):
    """A message in small."""
    return json.dumps({"A1": name, "SEQ": f"e:{number}", "E1": person or name, **more}).encode()


ONE, TWO = body("a", 1), body("b", 2)


@pytest.mark.parametrize(
    ("said", "after", "verdict"),
    [
        (Said(("a", "b"), (), (ONE,)), [TWO], Verdict(promised=2)),
        (Said(("a",), (), (ONE,)), [body("a", 1), TWO], Verdict(promised=1, resent=1)),
    ],
)
def test_what_is_right_is_called_so(said, after, verdict):
    """All that was promised is there; a message that comes again is known and does no harm."""
    assert judge(said, after) == verdict
    assert verdict.kept


@pytest.mark.parametrize(
    ("said", "after", "verdict"),
    [
        (Said(("a", "b"), (), (ONE,)), [], Verdict(promised=2, lost=1)),
        (Said((), (), (ONE,)), [body("c", 2, person="a")], Verdict(doubled=1)),
        (Said((), (), (ONE,)), [body("a", TS1="later")], Verdict(altered=1)),
        (Said((), (), (ONE,)), [body("b", 3)], Verdict(disordered=1)),
        (Said((), (), (TWO,)), [ONE], Verdict(disordered=2)),
        (Said((), ("b",), (ONE,)), [TWO], Verdict(unsaid=1)),
        (Said(("b",), (), (ONE,)), [body("b", 1)], Verdict(promised=1, disordered=1, by_number=1)),
    ],
)
def test_each_kind_of_wrong_is_seen(said, after, verdict):
    """Lost, doubled, altered, out of order, there although refused, lost by its number."""
    assert judge(said, after) == verdict
    assert not verdict.kept


def test_a_promise_counts_from_its_last_byte(tmp_path):
    """An account is read as it stood at a moment; a line that was cut was never said."""
    account = Account(tmp_path / "account")
    account.recorded("a")
    size = (tmp_path / "account").stat().st_size
    account.received(ONE)
    account.refused("b")
    assert read(tmp_path / "account") == Said(("a",), ("b",), (ONE,))
    assert read(tmp_path / "account", size) == Said(("a",), (), ())
    assert read(tmp_path / "account", size - 1) == Said((), (), ())
    assert read(tmp_path / "none") == Said((), (), ())


def test_the_next_account_begins_with_a_whole_line(tmp_path):
    """What a kill cut in two is not continued by what the next kiosk says."""
    Account(tmp_path / "account").recorded("a")
    with (tmp_path / "account").open("ab") as file:
        file.write(b"received {half")
    Account(tmp_path / "account").recorded("b")
    assert read(tmp_path / "account") == Said(("a", "b"), (), ())


def test_what_was_received_and_is_heard_of_late_is_no_loss():
    """The disk has it for settled, the server has it, and word of that was under way at the cut."""
    said, later = Said(("a", "b"), (), (ONE,)), Said(("a", "b"), (), (ONE, TWO))
    after = [body("c", 3)]
    assert judge(said, after).lost == 1
    assert judge(heard_late(said, later, after), after).kept


def test_what_the_disk_never_had_is_a_loss_whatever_is_heard_later():
    """The run went on and sent it; the disk of the cut gives its number to another."""
    said, later = Said(("a", "b"), (), (ONE,)), Said(("a", "b"), (), (ONE, TWO))
    after = [body("c", 2)]
    assert judge(heard_late(said, later, after), after).lost == 1
