"""Faces that do not fit the name they are to be enrolled under, held against the gallery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiosk.decide.gallery import Gallery, Template
from kiosk.types import FloatArray
from kiosk.wire.jsontext import quoted

_NAME_CHARACTERS = 12
"""So much of a picture's SHA-256 tells it from others where nobody says what it is called."""


@dataclass(frozen=True, slots=True)
class Contradictions:
    """What speaks against an enrolment: `grave` confuses two people, `doubts` may be a bad day."""

    grave: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """Every one in a sentence of its own, the grave ones first."""
        return [*self.grave, *self.doubts]


def contradictions(
    before: Gallery,
    after: Gallery,
    thresholds: Mapping[str, float],
    pictures: Mapping[str, str],
) -> Contradictions:
    """Hold each face that `after` has besides `before` against all the others of `after`.

    `thresholds` is the least cosine of a match for each space; faces of a space without one are
    compared by their pictures alone. `pictures` says what a picture is called, by its SHA-256.
    """
    known = len(before.templates)
    shelves: dict[str, _Shelf] = {}
    grave: list[str] = []
    doubts: list[str] = []
    owners = _owners(after)
    for template in after.templates[known:]:
        name = _name(template, pictures)
        others = owners[template.source] - {template.person}
        if others:
            grave.append(f"{name}: this picture is enrolled as {', '.join(sorted(others))} already")
        space = template.embedding.space
        if space not in thresholds:
            continue
        if space not in shelves:
            shelves[space] = _Shelf(after, known, space)
        near, threshold = shelves[space].near(template), thresholds[space]
        if near.other >= threshold and not others:
            # Nearer to the person's own face of old: the kiosk would not confuse the two.
            (grave if near.other > near.enrolled else doubts).append(
                f"{name}: looks like {near.who}{_figures(near.other, threshold)}"
            )
        if near.has_own and near.own < threshold:
            doubts.append(
                f"{name}: unlike the other faces of {template.person}"
                f"{_figures(near.own, threshold)}"
            )
    return Contradictions(tuple(dict.fromkeys(grave)), tuple(dict.fromkeys(doubts)))


@dataclass(frozen=True, slots=True)
class _Near:
    """The best cosines of one face to other pictures, -1 where there is none.

    `own` is the person's own, `enrolled` the best of those that were there before; `other` is the
    nearest of anybody else, `who`.
    """

    own: float
    has_own: bool
    enrolled: float
    other: float
    who: str


class _Shelf:
    """The faces of one space as a matrix: thousands are compared at once, not one by one."""

    def __init__(self, gallery: Gallery, known: int, space: str) -> None:
        rows = [
            (number, template)
            for number, template in enumerate(gallery.templates)
            if template.embedding.space == space
        ]
        self._people = [t.person for _, t in rows]
        self._matrix: FloatArray = np.stack([t.embedding.vector for _, t in rows])
        self._enrolled = np.array([number < known for number, _ in rows])
        self._person_ids: dict[str, int] = {}
        self._picture_ids: dict[str, int] = {}
        self._person = _numbered(self._people, self._person_ids)
        self._picture = _numbered([t.source for _, t in rows], self._picture_ids)

    def near(self, template: Template) -> _Near:
        """The nearest of other pictures; the same one says nothing of whom it shows."""
        cosines = self._matrix @ template.embedding.vector
        mine = self._person == self._person_ids[template.person]
        elsewhere = self._picture != self._picture_ids[template.source]
        others = np.where(mine | ~elsewhere, np.float32(-1.0), cosines)
        nearest = int(np.argmax(others))
        own = mine & elsewhere
        return _Near(
            own=_best(cosines, own),
            has_own=bool(own.any()),
            enrolled=_best(cosines, own & self._enrolled),
            other=float(others[nearest]),
            who=self._people[nearest],
        )


def _numbered(values: list[str], ids: dict[str, int]) -> NDArray[np.intp]:
    return np.array([ids.setdefault(value, len(ids)) for value in values], dtype=np.intp)


def _best(cosines: FloatArray, rows: NDArray[np.bool_]) -> float:
    return float(np.max(cosines, where=rows, initial=-1.0))


def _owners(gallery: Gallery) -> dict[str, set[str]]:
    owners: dict[str, set[str]] = {}
    for template in gallery.templates:
        owners.setdefault(template.source, set()).add(template.person)
    return owners


def _name(template: Template, pictures: Mapping[str, str]) -> str:
    name = pictures.get(template.source, f"the picture {template.source[:_NAME_CHARACTERS]}")
    # A path may hold anything but NUL, and each sentence is to be one line.
    return name if name.isprintable() else quoted(name)


def _figures(cosine: float, threshold: float) -> str:
    return f" (cosine {cosine:.4f}, the threshold is {threshold:.4f})"
