"""Enrolled people, held in memory as one matrix for each embedding space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from kiosk.errors import GalleryError
from kiosk.types import Embedding, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """One enrolled face: `source` is the SHA-256 of the picture it was taken from."""

    person: str
    embedding: Embedding
    source: str


@dataclass(frozen=True, slots=True)
class Match:
    """The best person for a probe; `runner_up` is the best cosine of anybody else, -1 if none."""

    person: str
    score: float
    runner_up: float

    def holds(self, threshold: float, margin: float) -> bool:
        """Whether the best is good enough and far enough ahead of the second."""
        return self.score >= threshold and self.score - self.runner_up >= margin


@dataclass(frozen=True, slots=True, eq=False)
class _Shelf:
    """The templates of one space: `matrix` float32 (templates, dim), `owner` index of person."""

    matrix: FloatArray
    owner: np.ndarray[tuple[int], np.dtype[np.intp]]
    people: tuple[str, ...]


class Gallery:
    """An immutable set of templates; adding and removing give a new one.

    A change is thus in force by handing over one reference, with no lock on the match.
    """

    def __init__(self, templates: Iterable[Template] = ()) -> None:
        self.templates = tuple(templates)
        self._shelves: Mapping[str, _Shelf] = {
            space: self._shelf(space)
            for space in sorted({t.embedding.space for t in self.templates})
        }

    def _shelf(self, space: str) -> _Shelf:
        here = [t for t in self.templates if t.embedding.space == space]
        sizes = {t.embedding.vector.size for t in here}
        if len(sizes) > 1:
            raise GalleryError(
                f"templates of space {space} have one dimension, got {sorted(sizes)}",
                hint="remove and enrol these people again with the model in use",
            )
        people = tuple(sorted({t.person for t in here}))
        index = {person: number for number, person in enumerate(people)}
        matrix = np.stack([t.embedding.vector for t in here])
        return _Shelf(matrix, np.array([index[t.person] for t in here], dtype=np.intp), people)

    @property
    def spaces(self) -> tuple[str, ...]:
        """The embedding spaces that hold at least one template."""
        return tuple(self._shelves)

    def people(self) -> dict[str, int]:
        """Every person with the number of their templates, by name."""
        counts: dict[str, int] = {}
        for template in self.templates:
            counts[template.person] = counts.get(template.person, 0) + 1
        return dict(sorted(counts.items()))

    def people_in(self, space: str) -> frozenset[str]:
        """Everybody with a template of a space."""
        shelf = self._shelves.get(space)
        return frozenset() if shelf is None else frozenset(shelf.people)

    def added(self, templates: Iterable[Template]) -> Gallery:
        """A gallery with these templates behind its own; no face is added twice."""
        known = {(t.person, t.embedding.space, t.source) for t in self.templates}
        fresh = {(t.person, t.embedding.space, t.source): t for t in templates}
        return Gallery((*self.templates, *(t for key, t in fresh.items() if key not in known)))

    def removed(self, person: str) -> Gallery:
        """A gallery without this person; GalleryError when nobody has that name."""
        if person not in self.people():
            raise GalleryError(
                f"nobody is enrolled as {person!r}", hint="`kiosk gallery list` shows who is"
            )
        return Gallery(t for t in self.templates if t.person != person)

    def identify(self, probe: Embedding) -> Match | None:
        """The nearest person by cosine; None when nobody is enrolled in the probe's space."""
        shelf = self._shelves.get(probe.space)
        if shelf is None:
            return None
        best = np.full(len(shelf.people), -1.0, dtype=np.float32)
        np.maximum.at(best, shelf.owner, shelf.matrix @ probe.vector)
        first = int(np.argmax(best))
        others = np.delete(best, first)
        runner_up = float(others.max()) if others.size else -1.0
        return Match(shelf.people[first], float(best[first]), runner_up)
