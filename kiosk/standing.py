"""How the running daemon stands: the status document, and the one line of `systemctl status`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kiosk import __version__
from kiosk.board import read_board
from kiosk.capture.slot import FrameSlot
from kiosk.clock import NS_PER_S, Clock, elapsed_s
from kiosk.config import Settings, sends_in_the_clear
from kiosk.logbook import Logbook
from kiosk.lookout import Lookout
from kiosk.outbox.store import Outbox, status_document
from kiosk.people import People
from kiosk.pulse import Pulse
from kiosk.reception import Reception
from kiosk.reloading import Reloader
from kiosk.restarts import Restarts
from kiosk.strain import Strain
from kiosk.timekeeper import Timekeeper
from kiosk.types import Frame
from kiosk.upkeep import Upkeep
from kiosk.uplink.sender import Sender
from kiosk.vision.pipeline import FacePipeline
from kiosk.wire import heartbeat
from kiosk.wire.signing import Signer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that has something to say of itself."""

    reloader: Reloader
    device: str
    clock: Clock
    began_ns: int
    stopping: Callable[[], bool]
    outbox: Outbox
    sender: Sender
    pipeline: FacePipeline
    lookout: Lookout
    reception: Reception
    people: People
    timekeeper: Timekeeper
    slot: FrameSlot[Frame]
    logbook: Logbook
    pulse: Pulse
    restarts: Restarts
    upkeep: Upkeep
    strain: Strain

    def document(self) -> dict[str, Any]:
        """The running daemon in one JSON document."""
        now_ns = self.clock.boottime_ns()
        uptime = (now_ns - self.began_ns) / NS_PER_S
        last = self.sender.last_receipt
        return {
            "state": self.word(),
            "cannot_record": self.outbox.cannot_record,
            "version": __version__,
            "process": os.getpid(),
            "at_ms": self.clock.now().utc_ms,
            "uptime_s": round(uptime, 1),
            "configuration": self.reloader.refused or "in force",
            "rss_mb": round(self.strain.rss_mb, 1),
            "one_of": self.lookout.one_of,
            "restarts": self.restarts.document(),
            "threads": self.pulse.document(),
            "device": self.device,
            "camera": self.lookout.state,
            "awake": self.lookout.awake,
            "frames_per_s": round(self.lookout.rate.per_second(now_ns), 2),
            "frame_age_s": self.lookout.rate.age_s(now_ns),
            "idle": self.slot.is_empty,
            **self.pipeline.status(),
            "threshold": self.reception.threshold,
            "people": len(self.reception.policy.gallery.people()),
            "changeover": self.people.changeover().document(
                names=self.reloader.settings.journal.names
            ),
            "gallery": self.people.standing(),
            "liveness": "not measured",
            "clock": self.timekeeper.trust.value,
            "online": self.sender.online,
            "link_problem": self.sender.problem,
            "last_receipt_ms": None if last is None else last.utc_ms,
            "outbox": status_document(self.outbox.status()),
            "inspecting": self.outbox.inspecting,
            "disk": self.outbox.room(),
            "board": read_board().document(),
            **self.logbook.summary(),
        }

    def at_ready(self) -> dict[str, str | int | float | None]:
        """The facts of the line that says ready."""
        also = self.pipeline.also_space
        return {
            "version": __version__,
            "device": self.device,
            "model": self.pipeline.model_id,
            "space": self.pipeline.space,
            "also": also[0] if also else None,
            "threshold": round(self.reception.threshold, 4),
            "people": len(self.reception.policy.gallery.people()),
            "pending": self.outbox.status().pending,
            "camera": self.reloader.settings.camera.source,
            # A word: the reason stands at camera.failed, which may have come before.
            "camera_state": self.lookout.state.partition(":")[0],
        }

    def heartbeat(self, signer: Signer | None) -> bytes:
        """How the kiosk stands, as the server is told."""
        queue, now = self.outbox.status(), self.clock.now()
        age_s = 0 if queue.oldest is None else round(elapsed_s(queue.oldest, now))
        aside = self.outbox.in_quarantine(heartbeat.MAX_NUMBERS) if queue.quarantined else []
        said = heartbeat.Standing(
            space=self.pipeline.space,
            version=__version__,
            seq=f"{queue.epoch}:{queue.highest}",
            queue=queue.pending,
            queue_age_s=max(0, age_s),
            quarantine=[one.event.seq for one in aside],
            state=self.word(),
        )
        return heartbeat.write(self.device, now, said, signer)

    def word(self) -> str:
        """The daemon's own word for itself: running, degraded, cannot record, stopping."""
        if self.stopping():
            return "stopping"
        if self.outbox.cannot_record:
            return "cannot record"
        blind = self.lookout.state.startswith("failed")
        return "degraded" if blind or self.reloader.refused else "running"

    def line(self) -> str:
        """All that a glance should tell."""
        online = {None: "server not asked yet", True: "server answers", False: "server silent"}
        parts = [self.word()]
        if self.outbox.cannot_record:
            parts.append(self.outbox.cannot_record)
        if self.reloader.refused:
            parts.append("configuration refused, the last good one is in force")
        parts += [
            f"camera {self.lookout.state}",
            self.pipeline.model_id,
            online[self.sender.online],
            f"{self.upkeep.pending} waiting to be sent",
        ]
        return "; ".join(parts)


def warn_of_settings(settings: Settings) -> None:
    """What every start repeats, because somebody chose it or nothing can be done about it."""
    log.warning(
        "liveness.not_measured",
        extra={"fields": {"meaning": "a photograph of a person is not told from the person"}},
    )
    server = settings.server
    if sends_in_the_clear(server):
        log.warning("uplink.plain_http", extra={"fields": {"url": server.url}})
    if server.accept_plain_receipts:
        log.warning(
            "uplink.plain_receipts",
            extra={"fields": {"meaning": "any 2xx, a captive portal's too, ends an event"}},
        )
