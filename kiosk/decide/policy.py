"""From tracks to decisions: one for each visit, and the reason for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from kiosk.clock import comparable, elapsed_s
from kiosk.config import Recognition
from kiosk.decide.gallery import Gallery, Match
from kiosk.decide.track import Track, Tracker
from kiosk.types import Direction, Sighting, Stamp


class Outcome(Enum):
    """What a visit came to."""

    RECORD = "record"
    ALREADY_RECORDED = "already recorded"
    UNKNOWN = "unknown"
    LOOK = "look"


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """One visit's outcome.

    `sighting` is the best usable one behind it; of two embeddings the one that named the person is
    its `embedding`. `person` and `score` are set when a person was
    agreed on; `before` is when they were last recorded, for ALREADY_RECORDED.
    """

    outcome: Outcome
    track: int
    sighting: Sighting
    person: str | None = None
    score: float | None = None
    before: Stamp | None = None


class History(Protocol):
    """What the repeat window asks of the queue on disk."""

    def last_recorded(self, employee: str, kind: Direction | None) -> Stamp | None:
        """When this person was last recorded in this direction, None if never."""
        ...


@dataclass(frozen=True, slots=True)
class _Agreement:
    person: str
    score: float
    best: Sighting


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The least cosine in the space in use, and in the second one where two run side by side."""

    main: float
    also: float = 1.0


def vote(
    sighting: Sighting, gallery: Gallery, thresholds: Thresholds, margin: float
) -> tuple[Sighting, Match] | None:
    """Whom one frame names, and the sighting with the embedding that did so; None for nobody.

    It names its nearest person of a space when the cosine reaches that space's threshold and leads
    the second by the margin. The space in use goes first; two people named by two spaces are none.
    """
    match = gallery.identify(sighting.embedding)
    here = match is not None and match.holds(thresholds.main, margin)
    if sighting.also is not None:
        other = gallery.identify(sighting.also)
        if other is not None and other.holds(thresholds.also, margin):
            if match is None or not here:
                return replace(sighting, embedding=sighting.also, also=None), other
            if other.person != match.person:
                return None
    return None if match is None or not here else (sighting, match)


def agree(votes: Sequence[tuple[Sighting, Match]], rules: Recognition) -> _Agreement | None:
    """The one person that enough of the frames name; None while there is none, or two.

    The most named must have `frames_to_agree` votes and twice those of the next.
    """
    ranking = Counter(m.person for _, m in votes).most_common(2)
    if not ranking or ranking[0][1] < rules.frames_to_agree:
        return None
    person, count = ranking[0]
    if len(ranking) > 1 and count < 2 * ranking[1][1]:
        return None
    own = [(s, m) for s, m in votes if m.person == person]
    # Where two spaces run, what the second one named has no `also` left; scores of two spaces
    # cannot be compared.
    best, match = max(own, key=lambda pair: (pair[0].also is not None, pair[1].score))
    return _Agreement(person, match.score, best)


class Policy:
    """Turns the sightings of each frame into at most one decision for each visit.

    `threshold` is the least cosine, from the configuration or from the model's manifest,
    `also_threshold` that of the second space.
    The gallery is a plain attribute: replacing it is in force at the next frame, also for
    whoever stands before the camera already.
    """

    def __init__(
        self,
        rules: Recognition,
        *,
        threshold: float,
        also_threshold: float = 1.0,
        direction: Direction | None,
        gallery: Gallery,
        history: History,
    ) -> None:
        self.gallery = gallery
        self._rules = rules
        self._thresholds = Thresholds(threshold, also_threshold)
        self._direction = direction
        self._history = history
        self._tracker = Tracker(gap_s=rules.visit_gap_s, min_quality=rules.min_quality)
        self._decided: set[int] = set()
        self._unknown: set[int] = set()
        self._looked: set[int] = set()
        self._in_force = gallery

    def obey(self, rules: Recognition, threshold: float) -> None:
        """Other rules from the next frame on; visits under way go on under them."""
        self._rules = rules
        self._thresholds = Thresholds(threshold, self._thresholds.also)
        self._tracker.obey(gap_s=rules.visit_gap_s, min_quality=rules.min_quality)

    def decide(self, sightings: Sequence[Sighting], now: Stamp) -> list[Decision]:
        """The decisions that this frame brings, in order of face size.

        Nobody is in one frame twice: of two faces that come to the same person one is recorded,
        the other (a reflection, a photograph) is ALREADY_RECORDED, whatever the repeat window.
        """
        self._take_gallery()
        seen, ended = self._tracker.follow(sightings, now)
        for track in ended:
            for numbers in (self._decided, self._unknown, self._looked):
                numbers.discard(track.number)
        decisions: list[Decision] = []
        for track in seen:
            decision = None if track.number in self._decided else self._of(track, now)
            if decision is not None:
                decisions.append(_once(decision, decisions))
        return decisions

    def repeated(self, person: str, now: Stamp) -> Stamp | None:
        """When a person was last recorded, if that is within the repeat window before `now`."""
        before = self._history.last_recorded(person, self._direction)
        # After a clock that ran ahead, wall time may say "in the future": that is no repeat.
        # What lies between two boots is unknown while a clock is not proven: better a punch more
        # than one that somebody needs.
        if before is None or not comparable(before, now):
            return None
        if not 0.0 <= elapsed_s(before, now) < self._rules.repeat_window_s:
            return None
        return before

    def _take_gallery(self) -> None:
        """Under a new gallery whoever stands there unknown is looked at anew, without leaving."""
        gallery = self.gallery
        if gallery is not self._in_force:
            self._in_force = gallery
            self._decided -= self._unknown

    def _of(self, track: Track, now: Stamp) -> Decision | None:
        if not track.sightings:
            return self._look(track)
        agreed = agree(self._votes(track), self._rules)
        if agreed is not None:
            return self._named(track, agreed, now)
        if len(track.sightings) < self._rules.frames_to_give_up:
            return self._look(track)
        self._decided.add(track.number)
        if track.number in self._unknown:
            # Looked at anew under another gallery and still a stranger: that was said before.
            return None
        self._unknown.add(track.number)
        best = max(track.sightings, key=lambda s: s.quality.overall)
        return Decision(Outcome.UNKNOWN, track.number, best)

    def _votes(self, track: Track) -> list[tuple[Sighting, Match]]:
        margin = self._rules.margin
        votes = (vote(s, self._in_force, self._thresholds, margin) for s in track.sightings)
        return [named for named in votes if named is not None]

    def _look(self, track: Track) -> Decision | None:
        """Say once for each visit that a face is seen and looked at."""
        if track.number in self._looked:
            return None
        self._looked.add(track.number)
        return Decision(Outcome.LOOK, track.number, track.last)

    def _named(self, track: Track, agreed: _Agreement, now: Stamp) -> Decision:
        self._decided.add(track.number)
        before = self.repeated(agreed.person, now)
        outcome = Outcome.RECORD if before is None else Outcome.ALREADY_RECORDED
        return Decision(outcome, track.number, agreed.best, agreed.person, agreed.score, before)


def _once(decision: Decision, earlier: Sequence[Decision]) -> Decision:
    """A decision as it stands after those of the same frame."""
    if decision.outcome is Outcome.RECORD:
        for other in earlier:
            if other.person == decision.person:
                before = other.before or other.sighting.seen
                return replace(decision, outcome=Outcome.ALREADY_RECORDED, before=before)
    return decision
