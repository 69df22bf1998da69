"""The rows that the bench prints, each with what it is held against."""

from collections.abc import Iterable
from dataclasses import dataclass

HEAD = ("what", "measured", "floor", "aim", "verdict")


@dataclass(frozen=True)
class Row:
    """One figure. `floor` is to be reached, `aim` is the wish; both None for a figure only told."""

    what: str
    value: float
    floor: float | None = None
    aim: float | None = None
    more_is_better: bool = False
    excuse: str = ""
    digits: int = 3

    def reaches(self, limit: float) -> bool:
        return self.value >= limit if self.more_is_better else self.value <= limit

    @property
    def verdict(self) -> str:
        if self.excuse:
            return f"told only: {self.excuse}"
        if self.floor is None:
            return "told"
        if not self.reaches(self.floor):
            return "missed"
        return "reached, the aim too" if self.reaches(self.aim) else "reached"

    def cells(self) -> tuple[str, ...]:
        limits = ("" if v is None else f"{v:.{self.digits}f}" for v in (self.floor, self.aim))
        return (self.what, f"{self.value:.{self.digits}f}", *limits, self.verdict)


def lines(rows: Iterable[Row]) -> list[str]:
    """The rows as a Markdown table that is read as easily unrendered."""
    cells = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    cells.insert(1, tuple("-" * width for width in widths))
    return ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
