"""How long to wait after a failure."""

from __future__ import annotations

import random

# 2**64 times the least base is beyond every cap; a larger exponent would only overflow.
_MAX_EXPONENT = 64


def delay_s(
    attempt: int, *, base_s: float, cap_s: float, min_delay_s: float, rng: random.Random
) -> float:
    """Return the seconds to wait: exponential with full jitter, never below `min_delay_s`.

    Uniform in 0 .. min(cap_s, base_s * 2**attempt), where `attempt` counts the failures before
    this one, from 0; `min_delay_s` is what the server asked for and may exceed the cap. Source:
    Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    ceiling = min(cap_s, base_s * 2.0 ** min(attempt, _MAX_EXPONENT))
    return max(min_delay_s, rng.uniform(0.0, ceiling))
