"""A Pi 5 with its own kernel's page size."""

import pytest

from system.other_board import OtherBoard

pytestmark = pytest.mark.system


class TestLargePages(OtherBoard):
    """The same card in it."""

    cpu, pages = "cortex-a76", "16k"
