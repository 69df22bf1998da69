"""Frame to decision to punch: what happens between the camera's slot and the person in front."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from kiosk.aim import View
from kiosk.clock import NS_PER_S, Clock
from kiosk.config import Recognition, Settings
from kiosk.decide.gallery import Gallery
from kiosk.decide.policy import Decision, Outcome, Policy
from kiosk.errors import EmbeddingError, OutboxError, OutboxFullError, WireError
from kiosk.feedback.notice import Notice, NoticeKind
from kiosk.logbook import Logbook, Visit
from kiosk.types import Direction, Frame, Punch, Sighting, Stamp
from kiosk.wire.eventid import new_event_id

log = logging.getLogger(__name__)


class Eyes(Protocol):
    """What the reception asks of vision."""

    @property
    def threshold(self) -> float:
        """The manifest's match threshold of the model in use."""
        ...

    def sightings(self, frame: Frame) -> tuple[Sighting, ...]:
        """The faces in a frame."""
        ...


class Ledger(Protocol):
    """What the reception asks of the outbox."""

    def put(self, punch: Punch) -> str:
        """Commit a punch; returns its sequence."""
        ...

    def last_recorded(self, employee: str, kind: Direction | None) -> Stamp | None:
        """When this person was last recorded in this direction."""
        ...


class Screen(Protocol):
    """What the reception asks of feedback."""

    def show(self, notice: Notice) -> None:
        """Tell the person in front; returns at once."""
        ...


class Link(Protocol):
    """What the reception asks of the uplink."""

    @property
    def online(self) -> bool | None:
        """Whether the server answered last time; None before the first answer."""
        ...


def direction_of(settings: Settings) -> Direction | None:
    """The event type that the configuration gives every punch."""
    name = settings.device.direction
    return None if name == "none" else Direction(name.upper())


class Reception:
    """Decides each frame, commits what is to be recorded, and only then tells the person."""

    def __init__(
        self,
        settings: Settings,
        *,
        eyes: Eyes,
        ledger: Ledger,
        link: Link,
        screen: Screen,
        gallery: Gallery,
        logbook: Logbook,
        clock: Clock,
        rng: random.Random,
        also_threshold: float = 1.0,
    ) -> None:
        rules = settings.recognition
        self._eyes, self._ledger, self._link = eyes, ledger, link
        self._screen, self._logbook, self._clock, self._rng = screen, logbook, clock, rng
        self._direction = direction_of(settings)
        self._sends_unknown = rules.unknown == "send"
        self.view: View | None = None
        """What the last frame showed."""
        self.threshold = self._threshold_of(rules)
        self.policy = Policy(
            rules,
            threshold=self.threshold,
            also_threshold=also_threshold,
            direction=self._direction,
            gallery=gallery,
            history=ledger,
        )

    def obey(self, rules: Recognition) -> None:
        """Other rules from the next frame on. Any thread."""
        self._sends_unknown = rules.unknown == "send"
        self.threshold = self._threshold_of(rules)
        self.policy.obey(rules, self.threshold)

    def _threshold_of(self, rules: Recognition) -> float:
        return self._eyes.threshold if rules.threshold == "model" else rules.threshold

    def receive(self, frame: Frame) -> bool:
        """Everything one frame brings about; whether a face was in it.

        Raises OutboxError when the queue cannot be asked or what is on disk has become uncertain:
        the person has then been told that nothing was recorded.
        """
        began = self._clock.boottime_ns()
        sightings = self._eyes.sightings(frame)
        seen = self._clock.boottime_ns()
        decisions = self._decide(sightings, frame.seen)
        decided = self._clock.boottime_ns()
        if sightings:
            self._logbook.time("match", (decided - seen) * 1000 / NS_PER_S)
            self._logbook.time("frame to decision", (decided - began) * 1000 / NS_PER_S)
        self._logbook.count("frames")
        self.view = _view_of(frame, sightings)
        self._act_on(decisions, frame.seen)
        return bool(sightings)

    def _decide(self, sightings: Sequence[Sighting], now: Stamp) -> list[Decision]:
        try:
            return self.policy.decide(sightings, now)
        except OutboxError:
            self._show(NoticeKind.CANNOT_RECORD, None, now)
            raise

    def _act_on(self, decisions: Sequence[Decision], now: Stamp) -> None:
        answered: set[str | None] = set()
        for decision in decisions:
            match decision.outcome:
                case Outcome.LOOK:
                    self._show(NoticeKind.LOOK, None, now)
                case Outcome.ALREADY_RECORDED if decision.person in answered:
                    # Their other face in this very frame: what was said of the first one stands.
                    log.info("visit.second_face", extra={"fields": self._fields(decision)})
                case Outcome.ALREADY_RECORDED:
                    self._already(decision, now)
                case Outcome.UNKNOWN if not self._sends_unknown:
                    self._unknown(decision, now)
                case Outcome.RECORD | Outcome.UNKNOWN:
                    self._record(decision, now)
                    answered.add(decision.person)

    def _already(self, decision: Decision, now: Stamp) -> None:
        self._note(decision, now, "already recorded", "")
        log.info("visit.already_recorded", extra={"fields": self._fields(decision)})
        self._show(NoticeKind.ALREADY_RECORDED, decision.person, decision.before or now)

    def _unknown(self, decision: Decision, now: Stamp) -> None:
        self._note(decision, now, "not recognised", "")
        log.info("visit.not_recognised", extra={"fields": self._fields(decision)})
        self._show(NoticeKind.NOT_RECOGNISED, None, now)

    def _record(self, decision: Decision, now: Stamp) -> None:
        sighting = decision.sighting
        punch = Punch(
            event_id=new_event_id(sighting.seen.utc_ms, self._rng),
            employee=decision.person,
            kind=self._direction,
            embedding=sighting.embedding,
            score=decision.score,
            quality=sighting.quality.overall,
            liveness=sighting.liveness,
            seen=sighting.seen,
        )
        began = self._clock.boottime_ns()
        try:
            # A frame is decided before any of it is recorded, so the queue is asked once more.
            before = None if punch.employee is None else self.policy.repeated(punch.employee, now)
            if before is not None:
                self._already(replace(decision, before=before), now)
                return
            seq = self._ledger.put(punch)
        except (OutboxFullError, WireError, EmbeddingError) as error:
            # A full disk, rolled back, or a punch that no server could read: nothing of it is on
            # disk. The person is told so, and the next one can be recorded.
            self._show(NoticeKind.CANNOT_RECORD, None, now)
            self._note(decision, now, "cannot record", "")
            log.critical("visit.cannot_record", extra={"fields": {"reason": str(error)}})
            return
        except Exception:
            self._show(NoticeKind.CANNOT_RECORD, None, now)
            raise
        self._logbook.time("commit", (self._clock.boottime_ns() - began) * 1000 / NS_PER_S)
        self._recorded(decision, punch, seq, now)

    def _recorded(self, decision: Decision, punch: Punch, seq: str, now: Stamp) -> None:
        online = self._link.online
        kind = NoticeKind.SAVED_OFFLINE if online is False else NoticeKind.RECORDED
        self._show(kind, decision.person, now)
        self._note(decision, now, "recorded", punch.event_id)
        facts = self._fields(decision) | {"event_id": punch.event_id, "seq": seq}
        log.info("visit.recorded", extra={"fields": facts})

    def _show(self, kind: NoticeKind, person: str | None, at: Stamp) -> None:
        self._screen.show(Notice.of(kind, person, at))

    def _fields(self, decision: Decision) -> dict[str, str | int | float]:
        fields: dict[str, str | int | float] = {
            "track": decision.track,
            "quality": round(decision.sighting.quality.overall, 3),
        }
        if decision.person is not None and decision.score is not None:
            fields |= {"employee": decision.person, "score": round(decision.score, 4)}
        return fields

    def _note(self, decision: Decision, now: Stamp, outcome: str, event_id: str) -> None:
        nearest = self.policy.gallery.identify(decision.sighting.embedding)
        visit = Visit(
            at_ms=now.utc_ms,
            outcome=outcome,
            person=decision.person,
            score=decision.score,
            nearest=None if nearest is None else nearest.score,
            event_id=event_id,
        )
        self._logbook.visit(visit)


def _view_of(frame: Frame, sightings: Sequence[Sighting]) -> View:
    height, width = frame.pixels.shape[:2]
    if not sightings:
        return View(width, height, frame.seen.boottime_ns)
    face = max(sightings, key=lambda one: one.box[2] * one.box[3])
    return View(width, height, frame.seen.boottime_ns, round(min(face.box[2:])), face.quality)
