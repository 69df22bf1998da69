"""The same operation through the running daemon, or without one on the files under their lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kiosk.clock import SystemClock
from kiosk.config import Settings
from kiosk.control import ask, daemon_listens
from kiosk.decide.gallery import Gallery
from kiosk.state import State, open_state


@dataclass(slots=True)
class _Holder:
    gallery: Gallery


def perform(settings: Settings, operation: str, **arguments: Any) -> dict[str, Any]:
    """Ask the daemon if one listens; otherwise open the state, which fails while it is held."""
    if daemon_listens(settings.paths.runtime_dir):
        return ask(settings.paths.runtime_dir, operation, **arguments)
    state = open_state(settings)
    try:
        if operation == "outbox":
            return _outbox(state)
        from kiosk.people import People
        from kiosk.vision.manifest import manifest_of

        manifest, models = manifest_of(settings), settings.models
        space = manifest.get(models.embedder, "embedder").space
        also = manifest.get(models.also, "embedder").space if models.also else ""
        people = People(state, _Holder(state.load_gallery()), space, also=also)
        return people.handlers()[operation](arguments)
    finally:
        state.close()


def _outbox(state: State) -> dict[str, Any]:
    from kiosk.outbox.store import Outbox, status_document

    outbox = Outbox(
        state.outbox_path,
        vault=state.vault,
        device_id=state.device,
        signer=state.signer,
        clock=SystemClock(),
    )
    outbox.start()
    try:
        return status_document(outbox.status())
    finally:
        outbox.close(5.0)
