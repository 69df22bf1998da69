"""Milliseconds of contenders that take turns in one run: the best of many is the machine's own."""

from collections.abc import Callable, Mapping
from time import perf_counter

ROUNDS = 100

Contender = Callable[[], float]
"""Runs once and gives the milliseconds it took."""


def timed(function: Callable[[], object]) -> Contender:
    """A contender of this process."""

    def run() -> float:
        began = perf_counter()
        function()
        return (perf_counter() - began) * 1000

    return run


def best_of(contenders: Mapping[str, Contender], rounds: int = ROUNDS) -> dict[str, float]:
    """The shortest time of each, all in turn, so that a busy spell hits every one alike.

    A round runs each three times: the first finds its weights thrown out of the cache by the one
    before it, which no kiosk meets.
    """
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, contender in contenders.items():
            best[name] = min(best[name], *(contender() for _ in range(3)))
    return best
