"""Who is on which picture, as the folders say, and what that tells of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kiosk.lab.faces import Face, Skipped
from kiosk.lab.gate import JUDGED_FAR, too_few
from kiosk.lab.pairs import pairless
from kiosk.lab.roc import Flags, Roc, Values, measure
from kiosk.types import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Identities:
    """One person for each face, "" where it lies in no person's folder.

    `skipped` are the faces that make no pair, by number: the rule is that of `pairs.from_folders`.
    """

    people: tuple[str, ...]
    skipped: Mapping[int, Skipped] = field(default_factory=dict)

    @classmethod
    def of(cls, faces: Sequence[Face]) -> Identities:
        """The people of a set whose pictures lie in a folder for each person."""
        without = pairless([(face.path, face.person, face.sha256) for face in faces])
        skipped = {i: Skipped(faces[i].path, reason) for i, reason in without.items()}
        return cls(tuple(face.person for face in faces), skipped)

    def count(self) -> int | None:
        """How many people there are; None where the folders name nobody."""
        return len(set(self.people) - {""}) or None

    def why_no_roc(self) -> str:
        """Why the gate cannot judge the curves on these faces; "" when it can."""
        if self.count() is None:
            return "no identities: a folder for each person needed"
        names, genuine = self._paired()[1], 0
        for count in np.unique(names, return_counts=True)[1].tolist():
            genuine += count * (count - 1) // 2
        impostors = len(names) * (len(names) - 1) // 2 - genuine
        return too_few(genuine, impostors)

    def _paired(self) -> tuple[list[int], NDArray[np.str_]]:
        """The faces that make pairs, by number, and their people."""
        kept = [i for i in range(len(self.people)) if i not in self.skipped]
        return kept, np.array([self.people[i] for i in kept], dtype=np.str_)

    def every(self, nth: int) -> frozenset[int]:
        """The faces of every n-th person; every n-th face where that leaves nobody on one side."""
        names = sorted(set(self.people))
        picked = set(names[nth - 1 :: nth])
        if not picked or len(picked) == len(names):
            return frozenset(range(nth - 1, len(self.people), nth)) or frozenset({0})
        return frozenset(i for i, name in enumerate(self.people) if name in picked)

    def scored(self, matrix: FloatArray) -> tuple[Values, Flags]:
        """The cosine of every pair of faces, and whether it is one person's."""
        kept, names = self._paired()
        rows = matrix[kept].astype(np.float64)
        upper = np.triu_indices(len(names), 1)
        scores = (rows @ rows.T)[upper]
        return np.asarray(scores), np.asarray((names[:, None] == names)[upper])

    def roc(self, matrix: FloatArray) -> Roc | None:
        """The curve over all pairs; None where they are too few for the gate."""
        return None if self.why_no_roc() else measure(*self.scored(matrix))

    def tar_drop(self, reference: FloatArray, other: FloatArray) -> float | None:
        """TAR lost at the gate's FAR; None where the pairs are too few."""
        before, after = self.roc(reference), self.roc(other)
        if before is None or after is None:
            return None
        one, two = before.at(JUDGED_FAR).tar, after.at(JUDGED_FAR).tar
        return None if one is None or two is None else one - two
