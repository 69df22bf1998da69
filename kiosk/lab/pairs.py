"""Pairs of pictures to verify with: a CSV, LFW's pairs.txt, or a folder for each person."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kiosk.errors import UserError
from kiosk.lab.faces import SUFFIXES, Skipped, digest_of, person_of, pictures_of
from kiosk.lab.roc import Flags, Numbers, Values
from kiosk.types import FloatArray

MOST_PAIRS = 2_000_000
"""All pairs of 2,000 pictures: half a gigabyte and a minute."""
_SAME = {"1": True, "same": True, "0": False, "different": False}
_CHUNK = 8192


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs by the numbers of their pictures.

    `left`, `right`, `same` and `fold` have an entry for each pair, `person` one for each picture;
    `fold` and `person` are None where unknown. `skipped` are files that give no pair, `repeated`
    counts the rows that name a pair anew.
    """

    source: Path
    pictures: tuple[Path, ...]
    left: Numbers
    right: Numbers
    same: Flags
    person: Numbers | None = None
    fold: Numbers | None = None
    skipped: tuple[Skipped, ...] = ()
    repeated: int = 0

    def __len__(self) -> int:
        return len(self.same)

    @property
    def people(self) -> Numbers | None:
        """Both identities of each pair, (pairs, 2)."""
        if self.person is None:
            return None
        return np.stack([self.person[self.left], self.person[self.right]], axis=1)

    def among(self, kept: Sequence[Path]) -> Pairs:
        """The pairs whose pictures both are in `kept`, numbered by their place there.

        Raises UserError when no genuine or no impostor pair is left.
        """
        places = {path: place for place, path in enumerate(kept)}
        renumber = np.array([places.get(path, -1) for path in self.pictures], dtype=np.int64)
        left, right = renumber[self.left], renumber[self.right]
        whole = (left >= 0) & (right >= 0)
        genuine = int(self.same[whole].sum())
        if genuine in {0, int(whole.sum())}:
            raise UserError(
                f"{self.source}: genuine and impostor pairs with a face in both pictures expected,"
                f" got {genuine} and {int(whole.sum()) - genuine}"
            )
        person = None
        if self.person is not None:
            person = np.zeros(len(kept), dtype=np.int64)
            person[renumber[renumber >= 0]] = self.person[renumber >= 0]
        return replace(
            self,
            pictures=tuple(kept),
            left=left[whole],
            right=right[whole],
            same=self.same[whole],
            person=person,
            fold=None if self.fold is None else self.fold[whole],
        )

    def scores(self, left: FloatArray, right: FloatArray | None = None) -> Values:
        """The cosine of each pair, from unit vectors (pictures, dim).

        `right` are the vectors of the second pictures, where they differ from `left`.
        """
        others = left if right is None else right
        scores = np.empty(len(self))
        for start in range(0, len(self), _CHUNK):
            part = slice(start, start + _CHUNK)
            first = left[self.left[part]].astype(np.float64)
            scores[part] = (first * others[self.right[part]]).sum(axis=1)
        return scores


@dataclass(frozen=True, slots=True)
class _Row:
    """One pair as a file names it."""

    line: int
    first: Path
    second: Path
    same: bool


def from_csv(path: Path) -> Pairs:
    """Rows of two paths and a label (1 or same, 0 or different); a header is let pass.

    Paths are relative to the CSV; a pair that is named twice counts once. Raises UserError that
    names the line.
    """
    rows: dict[tuple[Path, Path], _Row] = {}
    repeated = 0
    for place, (number, cells) in enumerate(_csv_rows(path)):
        where = f"{path}, line {number}"
        if len(cells) != 3:
            raise UserError(f"{where}: two paths and a label expected, got {len(cells)} cells")
        label = cells[2].strip().lower()
        first, second = (path.parent / cell.strip() for cell in cells[:2])
        # By its paths, not by its label: a column may well be called "same".
        if place == 0 and not any(_is_picture(side) for side in (first, second)):
            continue
        if label not in _SAME:
            raise UserError(
                f"{where}: a label expected (1 or same, 0 or different), got {cells[2].strip()!r}"
            )
        row = _Row(number, first, second, _SAME[label])
        if first == second:
            raise UserError(f"{where}: two pictures expected, got {cells[0].strip()} twice")
        known = rows.setdefault((min(first, second), max(first, second)), row)
        repeated += known is not row
        if known.same != row.same:
            raise UserError(f"{where}: line {known.line} gives this pair the other label")
    return replace(_numbered(path, list(rows.values())), repeated=repeated)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES or path.is_file()


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells
    except OSError as error:
        raise UserError(f"{path}: a CSV of pairs expected, {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: a CSV of pairs in UTF-8 expected, {error}") from error


def from_lfw(path: Path, images: Path) -> Pairs:
    """LFW's pairs.txt over `images`/NAME/NAME_0001.jpg (or another picture suffix).

    The first line tells the folds and the pairs of each kind in a fold (`10 300`), or only the
    pairs of each kind (LFW's development sets): those have no folds. Then `NAME N1 N2` is a
    genuine pair and `NAME1 N1 NAME2 N2` an impostor pair. Raises UserError that names the line.
    """
    if not images.is_dir():
        raise UserError(f"{images}: a folder of pictures expected, there is none")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: LFW's pairs expected, {error}") from error
    head = lines[0].split() if lines else []
    if len(head) not in {1, 2} or not all(_is_number(cell) for cell in head):
        raise UserError(
            f"{path}, line 1: folds and pairs in each expected (10 300), got {' '.join(head)!r}"
        )
    folds, each = (1, int(head[0])) if len(head) == 1 else (int(head[0]), int(head[1]))
    reader = _LfwReader(path, images)
    rows = [reader.row(n, line.split()) for n, line in enumerate(lines[1:], 2) if line.strip()]
    if len(rows) != folds * 2 * each:
        raise UserError(
            f"{path}: {folds} x 2 x {each} pairs expected as line 1 says, got {len(rows)}"
        )
    pairs = _numbered(path, rows)
    fold = None if folds == 1 else np.arange(len(rows), dtype=np.int64) // (2 * each)
    person = np.array([reader.people[picture] for picture in pairs.pictures], dtype=np.int64)
    return replace(pairs, person=person, fold=fold)


class _LfwReader:
    """Reads the lines of one pairs.txt and notes who is on which picture."""

    def __init__(self, path: Path, images: Path) -> None:
        self._path, self._images = path, images
        self._numbers: dict[str, int] = {}
        self.people: dict[Path, int] = {}

    def row(self, number: int, cells: list[str]) -> _Row:
        """One line, in words; UserError that names it."""
        where = f"{self._path}, line {number}"
        if len(cells) not in {3, 4}:
            raise UserError(
                f"{where}: NAME N1 N2 or NAME1 N1 NAME2 N2 expected, got {len(cells)} words"
            )
        same = len(cells) == 3
        sides = [cells[:2], [cells[0], cells[2]]] if same else [cells[:2], cells[2:]]
        odd = next((figure for _, figure in sides if not _is_number(figure)), None)
        if odd is not None:
            raise UserError(f"{where}: the number of a picture expected, got {odd!r}")
        first, second = (_lfw_picture(self._images, name, int(figure)) for name, figure in sides)
        for picture, (name, _) in zip((first, second), sides, strict=True):
            self.people[picture] = self._numbers.setdefault(name, len(self._numbers))
        if first == second or (not same and sides[0][0] == sides[1][0]):
            what = "two pictures" if same else "two people"
            raise UserError(f"{where}: {what} expected, got {' '.join(cells)}")
        return _Row(number, first, second, same)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 1_000_000


def _lfw_picture(images: Path, name: str, number: int) -> Path:
    stem = images / name / f"{name}_{number:04d}"
    found = [stem.with_name(stem.name + suffix) for suffix in [".jpg", *sorted(SUFFIXES)]]
    return next((picture for picture in found if picture.is_file()), found[0])


def _numbered(source: Path, rows: Sequence[_Row]) -> Pairs:
    if not rows:
        raise UserError(f"{source}: pairs expected, the file has none")
    pictures = list(dict.fromkeys(p for row in rows for p in (row.first, row.second)))
    places = {path: place for place, path in enumerate(pictures)}
    return Pairs(
        source,
        tuple(pictures),
        np.array([places[row.first] for row in rows], dtype=np.int64),
        np.array([places[row.second] for row in rows], dtype=np.int64),
        np.array([row.same for row in rows], dtype=np.bool_),
    )


def pairless(files: Sequence[tuple[Path, str, str]]) -> dict[int, str]:
    """Which of these (path, person, SHA-256) make no pair, by number, and why.

    A picture of nobody, a second copy of one person's picture, and a picture that lies in two
    people's folders: an impostor pair of cosine 1, and which folder errs nobody knows.
    """
    people: dict[str, dict[str, Path]] = {}
    for path, person, digest in files:
        if person:
            people.setdefault(digest, {}).setdefault(person, path)
    found: dict[int, str] = {}
    for number, (path, person, digest) in enumerate(files):
        if not person:
            found[number] = f"{path}: lies in no person's folder"
        elif len(people[digest]) > 1:
            other = next(p for name, p in people[digest].items() if name != person)
            found[number] = f"{path}: two people's, the same file as {other}"
        elif people[digest][person] != path:
            found[number] = f"{path}: the same file as {people[digest][person]}"
    return found


def from_folders(folder: Path) -> Pairs:
    """All pairs of the pictures in a folder that has one folder for each person.

    What `pairless` names is skipped. Raises UserError above MOST_PAIRS.
    """
    files = [(path, person_of(folder, path), digest_of(path)) for path in pictures_of(folder)]
    without = pairless(files)
    skipped = [Skipped(files[i][0], reason) for i, reason in without.items()]
    kept = [path for i, (path, _, _) in enumerate(files) if i not in without]
    names = [person for i, (_, person, _) in enumerate(files) if i not in without]
    if len(set(names)) < 2:
        raise UserError(
            f"{folder}: a folder for each of two people or more expected, got {len(set(names))}"
        )
    count = len(kept) * (len(kept) - 1) // 2
    if count > MOST_PAIRS:
        raise UserError(
            f"{folder}: at most {MOST_PAIRS} pairs expected, {len(kept)} pictures make {count}",
            hint="name the pairs in a CSV (--pairs)",
        )
    left, right = np.triu_indices(len(kept), 1)
    person = np.unique(names, return_inverse=True)[1].astype(np.int64)
    same = person[left] == person[right]
    return Pairs(folder, tuple(kept), left, right, same, person, None, tuple(skipped))
