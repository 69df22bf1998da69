"""From one embedding space to another: who must enrol again, and whether that is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kiosk.decide.gallery import Gallery


@dataclass(frozen=True, slots=True)
class Changeover:
    """Who has no face in the space in use.

    `waiting` are recognised in the second space meanwhile, `unrecognised` are not recognised.
    """

    space: str
    also: str
    """The second space that runs beside, "" without one."""
    people: int
    waiting: tuple[str, ...]
    unrecognised: tuple[str, ...]

    @property
    def is_over(self) -> bool:
        """Whether a second space runs that nobody needs any more."""
        return bool(self.also) and not self.waiting and not self.unrecognised

    def document(self, *, names: bool) -> dict[str, Any]:
        """The JSON form: who must enrol again by number, and by id where `names` allows it."""
        document: dict[str, Any] = {
            "space": self.space,
            "also": self.also or None,
            "waiting": len(self.waiting),
            "unrecognised": len(self.unrecognised),
            "also_can_go": self.is_over,
        }
        if names:
            document["enrol_again"] = sorted((*self.waiting, *self.unrecognised))
        return document


def changeover(gallery: Gallery, space: str, also: str = "") -> Changeover:
    """Where a gallery stands, with `space` in use and `also` beside it."""
    lacking = sorted(gallery.people().keys() - gallery.people_in(space))
    elsewhere = gallery.people_in(also) if also else frozenset()
    return Changeover(
        space,
        also,
        len(gallery.people()),
        tuple(person for person in lacking if person in elsewhere),
        tuple(person for person in lacking if person not in elsewhere),
    )


def in_words(document: dict[str, Any]) -> list[str]:
    """What a changeover's document has to say to a person; nothing when there is nothing to do."""
    waiting, lost = document["waiting"], document["unrecognised"]
    lines = []
    if lost:
        lines.append(f"{lost} not recognised: enrolled with another model, enrol again")
    if waiting:
        lines.append(
            f"{waiting} recognised by models.also ({document['also']}) only: enrol again"
            f" for {document['space']}"
        )
    again = document.get("enrol_again")
    if again:
        lines.append(f"to enrol again: {', '.join(again)}")
    if document["also_can_go"]:
        lines.append(f"everybody is enrolled for {document['space']}: models.also can be taken out")
    return lines
