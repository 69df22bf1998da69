"""What `journalctl -x` says: an entry for each MESSAGE_ID, and each happening is a real one."""

import re
from pathlib import Path

import pytest

from kiosk.messages import MESSAGE_IDS

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "deploy/kiosk.catalog").read_text(encoding="utf-8")
ENTRIES = {
    block.split("\n", 1)[0].strip(): block.split("\n", 1)[1] for block in TEXT.split("\n-- ")[1:]
}


def test_catalogue_and_code_have_the_same_ids():
    """Neither has one that the other lacks, and none stands twice."""
    assert len(MESSAGE_IDS) >= 25
    assert sorted(ENTRIES) == sorted(MESSAGE_IDS.values())
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in MESSAGE_IDS.values())


@pytest.mark.parametrize("event", sorted(MESSAGE_IDS))
def test_each_is_explained_and_happens(event):
    """A subject, words below it, and a place in the product that logs it."""
    head, _, words = ENTRIES[MESSAGE_IDS[event]].partition("\n\n")
    assert re.search(r"^Subject: \S", head, re.MULTILINE)
    assert len(words.strip()) > 20
    places = [p for p in (ROOT / "kiosk").rglob("*.py") if p.name != "messages.py"]
    assert any(f'"{event}"' in place.read_text(encoding="utf-8") for place in places)


def test_operations_explains_each_too():
    """The table of happenings in the documentation names every one of the catalogue."""
    documented = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert [event for event in MESSAGE_IDS if f"`{event}`" not in documented] == []
