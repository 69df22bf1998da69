"""A Pi 4: its core has no dot product."""

import pytest

from system.other_board import OtherBoard

pytestmark = pytest.mark.system


class TestPi4(OtherBoard):
    """The same card in it."""

    cpu, pages = "cortex-a72", "4k"
