"""The same operation through the running daemon, or without one on the files under their lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kiosk.config import Settings
from kiosk.control import ask, daemon_listens
from kiosk.errors import UserError

if TYPE_CHECKING:
    from kiosk.decide.gallery import Gallery
    from kiosk.outbox.operations import Operation
    from kiosk.outbox.store import Outbox
    from kiosk.people import Marks, People
    from kiosk.state import State


@dataclass(slots=True)
class _Holder:
    gallery: Gallery


Ask = Callable[..., dict[str, Any]]
"""Performs one operation by its name, with arguments by theirs."""


def perform(settings: Settings, operation: str, **arguments: Any) -> dict[str, Any]:
    """Ask the daemon if one listens; otherwise open the state, which fails while it is held."""
    with desk(settings, queue_only=operation.startswith("outbox")) as ask_for:
        return ask_for(operation, **arguments)


@contextmanager
def desk(settings: Settings, *, queue_only: bool = False) -> Iterator[Ask]:
    """The same for several operations: without a daemon the state is held in between.

    `queue_only`: where there is no queue nothing is made; UserError says so.
    """
    if daemon_listens(settings.paths.runtime_dir):
        yield partial(ask, settings.paths.runtime_dir)
        return
    # What follows needs libraries that take longer to load than a daemon to answer.
    from kiosk.clock import SystemClock
    from kiosk.state import OUTBOX_FILE, open_state
    from kiosk.untold import kept_for_the_daemon

    folder = Path(settings.paths.state_dir)
    if queue_only and not (folder / OUTBOX_FILE).exists():
        raise UserError(
            f"paths.state_dir {folder}: expected a kiosk's queue, there is none",
            hint="mend the path, or start the kiosk once",
        )
    _tell(settings)
    with kept_for_the_daemon(folder, SystemClock()):
        state = open_state(settings)
        try:
            with _queue(state) as outbox:
                yield partial(_on_files, settings, state, outbox)
        finally:
            state.close()


def _tell(settings: Settings) -> None:
    """What is found in the files is told on standard error, with all its facts."""
    from kiosk.clock import SystemClock
    from kiosk.journal import set_up

    quiet = msgspec.structs.replace(settings.journal, level="warning")
    set_up(quiet, clock=SystemClock(), under_systemd=False)


@contextmanager
def card(folder: Path, key_id: str, recovery_key: bytes | None) -> Iterator[Ask]:
    """The queue on the card of another board, which no daemon holds."""
    from kiosk.state import open_card

    state = open_card(folder, key_id, recovery_key)
    try:
        with _queue(state) as outbox:
            of_the_queue = operations_of(outbox)
            yield lambda operation, **arguments: of_the_queue[operation](arguments)
    finally:
        state.close()


@contextmanager
def _queue(state: State) -> Iterator[Outbox]:
    from kiosk.clock import SystemClock
    from kiosk.outbox.store import Outbox

    outbox = Outbox(
        state.outbox_path,
        vault=state.vault,
        device_id=state.device,
        former_id=state.former,
        signer=state.signer,
        clock=SystemClock(),
    )
    outbox.start()
    try:
        yield outbox
    finally:
        outbox.close(5.0)


def operations_of(outbox: Outbox) -> Mapping[str, Operation]:
    """What may be asked of a queue, by name."""
    from kiosk.outbox.operations import operations

    return operations(outbox)


def _on_files(
    settings: Settings, state: State, outbox: Outbox, operation: str, **arguments: Any
) -> dict[str, Any]:
    of_the_queue = operations_of(outbox)
    if operation in of_the_queue:
        return of_the_queue[operation](arguments)
    return _people(settings, state, outbox).handlers()[operation](arguments)


def _people(settings: Settings, state: State, marks: Marks) -> People:
    from kiosk.people import People
    from kiosk.vision.manifest import manifest_of

    manifest, models = manifest_of(settings), settings.models
    entry = manifest.get(models.embedder, "embedder")
    entries, also = [entry], None
    if models.also:
        second = manifest.get(models.also, "embedder")
        entries.append(second)
        also = (second.space, second.dim)
    # The rules by which the daemon recognises: a new face is held against the others by the same.
    thresholds = {e.space: e.threshold for e in entries if e.usable}
    if settings.recognition.threshold != "model":
        thresholds[entry.space] = settings.recognition.threshold
    holder = _Holder(state.load_gallery())
    return People(
        state,
        holder,
        space=entry.space,
        dim=entry.dim,
        marks=marks,
        also=also,
        thresholds=thresholds,
    )
