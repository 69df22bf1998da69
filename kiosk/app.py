"""The composition root: builds the rooms, runs their threads, ends them in order."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kiosk import untold
from kiosk.aim import Aim
from kiosk.board import read_board
from kiosk.capture.camera import open_camera
from kiosk.capture.slot import FrameSlot
from kiosk.clock import NS_PER_S, Clock, has_rtc
from kiosk.config import Settings
from kiosk.control import ControlServer
from kiosk.correspondence import Correspondence
from kiosk.ending import Ending, Worker
from kiosk.errors import CameraError
from kiosk.feedback.page import Page
from kiosk.journal import set_up
from kiosk.logbook import Logbook
from kiosk.lookout import Lookout
from kiosk.metrics_port import figures
from kiosk.notify import Notifier
from kiosk.outbox.operations import operations
from kiosk.outbox.store import Outbox
from kiosk.people import People
from kiosk.pulse import QUEUE_S, Pulse
from kiosk.rebooting import consider
from kiosk.reception import Reception
from kiosk.reloading import Origin, Reloader
from kiosk.restarts import Restarts, begun, ending_of
from kiosk.standing import Standing, warn_of_settings
from kiosk.state import open_state
from kiosk.strain import Strain, resident_mb
from kiosk.supervisor import ROUND_S, Supervisor
from kiosk.timekeeper import Timekeeper
from kiosk.types import Envelope, Frame, Receipt
from kiosk.upkeep import Upkeep
from kiosk.vision.pipeline import open_pipeline

log = logging.getLogger(__name__)

# The whole end has two seconds; what does not end by then is named and left behind.
_END_S = 1.9
# Of these the last belong to the queue on disk, whatever else hangs.
_LAST_S = 0.6
# So long a thread waits for a frame before it looks whether it is to end.
_FRAME_S = 0.5
# The camera has its own, shorter deadlines for every step of its first attempt.
_FIRST_LOOK_S = 30.0
_GLANCE_S = 0.02
# Longer than the queue's own deadline for opening.
_SALVAGE_S = 960.0


class Kiosk:
    """One daemon. `run` blocks until `stop` is set and returns the exit status."""

    def __init__(self, settings: Settings, *, clock: Clock, origin: Origin | None = None) -> None:
        self._origin = origin
        self._settings = settings
        self._clock = clock
        self._logbook = Logbook()
        self._slot: FrameSlot[Frame] = FrameSlot()
        self._stop = threading.Event()
        self._failed: str | None = None
        self._workers: list[Worker] = []
        self._wakers: list[tuple[str, Callable[[], object]]] = []
        self._last = contextlib.ExitStack()
        self._began_ns = clock.boottime_ns()
        self._pulse = Pulse(clock)
        self._notifier = Notifier()
        self._restarts: Restarts | None = None
        self._good_end = "stopped"

    def run(self, stop: threading.Event) -> int:
        """Open everything, work until `stop`, and end cleanly; 0, or 1 after a failure."""
        self._stop = stop
        try:
            self._open()
            self._begin()
            while not self._clock.wait(stop, ROUND_S):
                self._round(stop)
        except Exception as error:
            # Whoever started it tells the error; the line of the end must not deny it.
            self._failed = self._failed or str(error) or type(error).__name__
            raise
        finally:
            self._end()
        return 0 if self._failed is None else 1

    def _round(self, stop: threading.Event) -> None:
        reason = self._supervisor.look(self._workers)
        if reason:
            self._failed = self._failed or reason
            stop.set()
        if self._strain.due() and self._strain.look(read_board(), resident_mb()):
            self._good_end = "restarted"
            stop.set()
        self._reloader.look()

    def _obey(self, settings: Settings) -> None:
        """What of other settings may be in force at once."""
        set_up(settings.journal, clock=self._clock)
        self._reception.obey(settings.recognition)
        self._strain.limits = settings.limits

    def _open(self) -> None:
        settings, clock = self._settings, self._clock
        warn_of_settings(settings)
        self._reloader = Reloader(settings, self._origin, self._obey)
        self._state = open_state(settings)
        self._last.callback(self._state.close)
        untold.tell(self._state.folder)
        restarts = self._restarts = begun(
            Path(settings.paths.runtime_dir), clock, self._notifier, self._stop
        )
        consider(settings, restarts.beginning, clock)
        self._outbox = Outbox(
            self._state.outbox_path,
            vault=self._state.vault,
            device_id=self._state.device,
            former_id=self._state.former,
            signer=self._state.signer,
            clock=clock,
        )
        self._open_uplink()
        self._open_eyes()
        self._upkeep = Upkeep(self._outbox, self._page, clock=clock, beat=self._pulse.beat)
        self._standing = self._stands(restarts)
        self._supervisor = Supervisor(
            self._pulse,
            self._notifier,
            restarts,
            camera=self._lookout,
            line=self._standing.line,
            stopping=self._stop.is_set,
            clock=clock,
        )
        self._control = ControlServer(
            settings.paths.runtime_dir, self._handlers(), clock=clock, beat=self._pulse.beat
        )

    def _open_uplink(self) -> None:
        settings, clock = self._settings, self._clock
        self._mail = Correspondence(
            settings.server,
            self._outbox,
            self._state,
            clock=clock,
            beat=self._pulse.beat,
            on_settled=self._settled,
            heartbeat=lambda: self._standing.heartbeat(self._state.signer),
        )
        self._timekeeper = Timekeeper(
            self._outbox, clock=clock, rtc=has_rtc(), beat=self._pulse.beat
        )

    def _open_eyes(self) -> None:
        settings, clock = self._settings, self._clock
        self._pipeline = open_pipeline(
            settings.models,
            clock=clock,
            record=self._logbook.time,
            choice_in=self._state.folder,
        )
        self._camera = open_camera(settings.camera, clock)
        self._page = Page(settings.feedback, settings.device.label, clock=clock)
        self._reception = Reception(
            settings,
            eyes=self._pipeline,
            ledger=self._outbox,
            link=self._mail.sender,
            screen=self._page,
            gallery=self._state.gallery_or_nobody(),
            logbook=self._logbook,
            clock=clock,
            rng=random.SystemRandom(),
            also_threshold=self._pipeline.also_threshold,
        )
        self._lookout = Lookout(
            settings.camera,
            self._camera,
            slot=self._slot,
            screen=self._page,
            clock=clock,
            beat=self._pulse.beat,
        )
        self._strain = Strain(settings.limits, self._lookout, clock=clock)
        self._people = People(
            self._state,
            self._reception.policy,
            space=self._pipeline.space,
            dim=self._pipeline.dim,
            also=self._pipeline.also_space,
            marks=self._outbox,
            thresholds=self._pipeline.thresholds(self._reception.threshold),
        )

    def _stands(self, restarts: Restarts) -> Standing:
        return Standing(
            reloader=self._reloader,
            device=self._state.device,
            clock=self._clock,
            began_ns=self._began_ns,
            stopping=self._stop.is_set,
            outbox=self._outbox,
            sender=self._mail.sender,
            pipeline=self._pipeline,
            lookout=self._lookout,
            reception=self._reception,
            people=self._people,
            timekeeper=self._timekeeper,
            slot=self._slot,
            logbook=self._logbook,
            pulse=self._pulse,
            restarts=restarts,
            strain=self._strain,
            upkeep=self._upkeep,
        )

    def _begin(self) -> None:
        # A damaged queue of years is salvaged for minutes.
        self._notifier.takes(_SALVAGE_S)
        self._outbox.start()
        self._state.keep_spare()
        self._last.callback(self._close_outbox)
        self._last.callback(self._mail.close)
        self._page.start()
        self._wakers.append(("end page", self._page.close))
        self._control.open()
        self._wakers += [
            ("end control", self._control.close),
            ("end queue", self._outbox.arrived.set),
            ("end uplink", self._mail.abort),
            # Wakes a read that would wait for a frame until its own deadline.
            ("end camera", self._camera.close),
        ]
        self._thread("clock", lambda: self._timekeeper.run(self._stop))
        self._thread("uplink", lambda: self._mail.sender.run(self._stop))
        self._thread("vision", self._watch)
        self._thread("capture", lambda: self._lookout.run(self._stop))
        self._thread("control", lambda: self._control.run(self._stop))
        self._thread("upkeep", lambda: self._upkeep.run(self._stop))
        if self._settings.server.heartbeat_s:
            self._thread("heartbeat", lambda: self._mail.heart.run(self._stop))
        beat = self._pulse.beat
        document = self._standing.document
        for name, run in figures(self._settings.metrics, document, self._clock, beat):
            self._thread(name, partial(run, self._stop))
        self._await_camera()
        self._tell_ready()

    def _await_camera(self) -> None:
        """Until its first attempt has come to something, for better or worse."""
        until_ns = self._clock.boottime_ns() + _FIRST_LOOK_S * NS_PER_S
        while self._lookout.state == "opening" and self._clock.boottime_ns() < until_ns:
            if self._clock.wait(self._stop, _GLANCE_S):
                return

    def _tell_ready(self) -> None:
        facts = self._standing.at_ready()
        level = logging.WARNING if facts["camera_state"] == "failed" else logging.INFO
        log.log(level, "kiosk.ready", extra={"fields": facts})
        self._notifier.status(self._standing.line())
        self._notifier.ready()
        self._reloader.ready()
        self._people.warn_of_other_spaces()
        self._people.warn_of_rollback()

    def _thread(self, name: str, body: Callable[[], None]) -> None:
        def top() -> None:
            try:
                body()
            except Exception as error:
                # What was committed stays queued on disk; the rest was never called recorded.
                self._failed = f"{name}: {error}"
                log.critical(
                    "thread.failed",
                    extra={
                        "fields": {
                            "thread": name,
                            "reason": str(error) or type(error).__name__,
                            "data": "committed punches stay queued; nothing else was promised",
                        }
                    },
                    exc_info=True,
                )
                self._stop.set()

        self._workers.append(Worker(name, top))

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._pulse.beat("waits for a frame", QUEUE_S)
            frame = self._next_frame()
            if frame is not None:
                self._pulse.beat("recognises", QUEUE_S)
                if self._reception.receive(frame):
                    self._lookout.somebody()

    def _next_frame(self) -> Frame | None:
        try:
            return self._slot.take(_FRAME_S)
        except CameraError:
            # No frame within the deadline: the capture thread tells why.
            return None

    def _settled(self, envelope: Envelope, receipt: Receipt) -> None:
        self._logbook.answered(envelope.event_id, receipt.status.value)

    def _handlers(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        aim = Aim(lambda: self._reception.view, self._lookout.somebody, self._page, self._clock)
        return {
            "status": lambda _: self._standing.document(),
            "aim": lambda _: aim.look(),
            **operations(self._outbox),
            **self._people.handlers(),
        }

    def _end(self) -> None:
        """Ask every thread to end, shut what they may wait in, and name those that do not.

        Nothing is called from this thread that could hang: it has the time, and only it.
        """
        self._ending = Ending(self._clock, _END_S)
        self._stop.set()
        self._notifier.stopping()
        self._slot.close()
        wakers = [Worker(name, wake) for name, wake in self._wakers]
        self._ending.wait([*self._workers, *wakers], keep_s=_LAST_S)
        if self._restarts is not None:
            self._restarts.note(ending_of(self._failed, self._good_end))
        last = Worker("end outbox", self._last.close)
        self._ending.wait([last])
        if last.error is not None:
            self._failed = self._failed or str(last.error)
            log.critical("kiosk.end_failed", extra={"fields": {"reason": str(last.error)}})
        level = logging.ERROR if self._failed else logging.INFO
        log.log(level, "kiosk.stopped", extra={"fields": {"failure": self._failed or "none"}})

    def _close_outbox(self) -> None:
        self._outbox.close(self._ending.left_s())
