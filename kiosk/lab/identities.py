"""Who is on which picture, as the folders say, and what that tells of two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kiosk.lab.faces import Face
from kiosk.lab.gate import JUDGED_FAR, LEAST_GENUINE, LEAST_IMPOSTORS
from kiosk.lab.roc import Flags, Roc, Values, measure
from kiosk.types import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Identities:
    """One person for each face, by the folder it lies in."""

    people: tuple[str, ...]

    @classmethod
    def of(cls, faces: Sequence[Face]) -> Identities:
        """The people of a set whose pictures lie in a folder for each person."""
        return cls(tuple(str(face.path.parent) for face in faces))

    def count(self) -> int:
        """How many people there are."""
        return len(set(self.people))

    def every(self, nth: int) -> frozenset[int]:
        """The faces of every n-th person; every n-th face where that leaves nobody on one side."""
        names = sorted(set(self.people))
        picked = set(names[nth - 1 :: nth])
        if not picked or len(picked) == len(names):
            return frozenset(range(nth - 1, len(self.people), nth)) or frozenset({0})
        return frozenset(i for i, name in enumerate(self.people) if name in picked)

    def scored(self, matrix: FloatArray) -> tuple[Values, Flags]:
        """The cosine of every pair of faces, and whether it is one person's."""
        names = np.array(self.people)
        upper = np.triu_indices(len(names), 1)
        scores = (matrix.astype(np.float64) @ matrix.T.astype(np.float64))[upper]
        return np.asarray(scores), np.asarray((names[:, None] == names)[upper])

    def roc(self, matrix: FloatArray) -> Roc | None:
        """The curve over all pairs; None where they are too few for the gate."""
        scores, same = self.scored(matrix)
        if int(same.sum()) < LEAST_GENUINE or int((~same).sum()) < LEAST_IMPOSTORS:
            return None
        return measure(scores, same)

    def tar_drop(self, reference: FloatArray, other: FloatArray) -> float | None:
        """TAR lost at the gate's FAR; None where the pairs are too few."""
        before, after = self.roc(reference), self.roc(other)
        if before is None or after is None:
            return None
        one, two = before.at(JUDGED_FAR).tar, after.at(JUDGED_FAR).tar
        return None if one is None or two is None else one - two
