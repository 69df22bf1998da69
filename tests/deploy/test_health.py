"""What is asked of the kiosk that runs, before the switch and after it."""

import pytest
from board import health
from board.layout import Layout, point

GOOD = '{"configuration": "in force"}'


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    layout.kiosk(layout.release("1.0.0")).parent.mkdir(parents=True)
    point(layout.current, layout.release("1.0.0").relative_to(layout.home))
    return layout


@pytest.mark.parametrize(
    ("script", "mode", "told"),
    [
        (f"#!/bin/sh\necho '{GOOD}'\n", 0o755, {"configuration": "in force"}),
        ("#!/bin/sh\nexit 1\n", 0o755, {}),
        ("#!/bin/sh\necho nonsense\n", 0o755, {}),
        ("#!/bin/sh\necho 7\n", 0o755, {}),
        ("#!/nowhere/python\n", 0o755, {}),
        ("", 0o755, {}),
        (f"#!/bin/sh\necho '{GOOD}'\n", 0o644, {}),
        (None, 0, {}),
    ],
)
def test_a_release_that_is_spoilt_does_not_keep_another_from_being_tried(
    layout, script, mode, told
):
    """Its command is gone, does not start or answers nonsense: there is nothing to remember."""
    kiosk = layout.kiosk(layout.release("1.0.0"))
    if script is not None:
        kiosk.write_text(script)
        kiosk.chmod(mode)
    watch = health.Watch(layout, lambda _: None)
    watch.remember()
    assert watch._before == told
