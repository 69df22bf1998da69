"""What a Pi is given once, and what is taken off it again."""

import pytest
from board import host
from board.layout import Layout


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    for folder in (layout.state, layout.credential.parent, layout.units, layout.settings.parent):
        folder.mkdir(parents=True)
    return layout


def test_a_secret_is_on_the_disk_before_anything_is_sealed_with_it(layout, monkeypatch):
    """Written as a whole and waited for: half of one would never be made anew, nor open anything."""
    written = []
    monkeypatch.setattr(host, "must", lambda *command, **_: f"sealed by {command[0]}")
    monkeypatch.setattr(host, "write", lambda *arguments: written.append(arguments))
    assert list(host._secret(layout)) == ["device secret made here and sealed for this machine"]
    assert written == [(layout.credential, b"sealed by systemd-creds", 0o600)]
