"""How long to wait before the next attempt."""

from __future__ import annotations

import random


def delay_s(
    attempt: int, *, base_s: float, cap_s: float, min_delay_s: float, rng: random.Random
) -> float:
    """Seconds to wait after failure number `attempt` (from 1): exponential with full jitter.

    Uniform in 0 .. min(cap_s, base_s * 2**(attempt-1)), but never below `min_delay_s`, which is
    what the server asked for. Source: Brooker, "Exponential Backoff And Jitter", AWS, 2015.
    """
    # 2**64 seconds is beyond any cap; a larger exponent would only overflow.
    ceiling = min(cap_s, base_s * 2.0 ** min(max(attempt, 1) - 1, 64))
    return max(min_delay_s, rng.uniform(0.0, ceiling))
