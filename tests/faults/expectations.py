"""What the product does not keep yet, in one place.

Each mark is strict: with the change that mends it the test fails until the mark is taken out.
"""

import pytest

NAMES_EVERY_FAILED_START = pytest.mark.xfail(
    reason="a log that cannot be opened ends the start with sqlite3's own error, not the outbox's"
)
STARTS_ON_DAMAGED_FILES = pytest.mark.xfail(
    reason="a damaged database is refused by name; nothing is salvaged into a new file"
)
TELLS_EVERY_LOSS = pytest.mark.xfail(
    reason="a log that is damaged in the middle is cut by SQLite without a word"
)
SENDS_ONLY_WHAT_AUTHENTICATES = pytest.mark.xfail(
    reason="time and number of an event that was never leased lie beside its seal, not under it"
)
NOT_UNDER_THE_SEAL = frozenset({"TS1"})
"""What damage changes in a message today; empty once the mark above is out."""
