"""Long work says how far it is, on a terminal and where there is none."""

from kiosk.lab.progress import track


class Slow:
    """A clock on which each look takes four seconds."""

    def __init__(self):
        self.now = 0

    def boottime_ns(self):
        self.now += 4_000_000_000
        return self.now


def test_without_a_terminal_a_line_tells_how_far_it_is(capsys):
    """Every ten seconds or more: the count and an estimate; the items as they were."""
    assert list(track(range(8), "working", Slow())) == list(range(8))
    assert capsys.readouterr().err.splitlines() == [
        "working: 3 of 8, about 20 s left",
        "working: 6 of 8, about 8 s left",
    ]


def test_what_is_soon_done_says_nothing(capsys):
    """Two seconds of work need no word."""
    assert list(track([1, 2], "working", Slow())) == [1, 2]
    assert capsys.readouterr().err == ""
