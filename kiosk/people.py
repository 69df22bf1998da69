"""Enrolment and removal in the running daemon, or without one, through the same functions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from kiosk.changeover import Changeover, changeover
from kiosk.contradictions import contradictions
from kiosk.decide.gallery import Gallery, Template
from kiosk.errors import GalleryError, OutboxError, VaultError
from kiosk.state import State, template_document, template_from
from kiosk.wire.jsontext import quoted
from kiosk.wire.message import EMPLOYEE, EMPLOYEE_EXPECTED

log = logging.getLogger(__name__)

AS_SAVED = "as last saved"


class Marks(Protocol):
    """Where the number of the newest gallery is kept, away from the gallery: the outbox."""

    def gallery_mark(self) -> int:
        """The number that was noted last, 0 if none was; VaultError if it was changed."""
        ...

    def mark_gallery(self, number: int) -> None:
        """Note the number of the newest gallery."""
        ...


class HoldsGallery(Protocol):
    """Whoever matches against the gallery: replacing the attribute is in force at once."""

    gallery: Gallery


class People:
    """The gallery on disk and in memory, changed together: disk first.

    `also` is the second space where two run side by side, each with its dimension; `thresholds`
    is the least cosine of a match in each, by which a new face is held against those enrolled.
    """

    def __init__(
        self,
        state: State,
        holder: HoldsGallery,
        *,
        space: str,
        dim: int,
        thresholds: Mapping[str, float],
        marks: Marks,
        also: tuple[str, int] | None = None,
    ) -> None:
        self._state = state
        self._holder = holder
        self._space = space
        self._also = "" if also is None else also[0]
        self._dims = dict([(space, dim), *([also] if also else [])])
        self._marks = marks
        self._thresholds = thresholds
        self._lock = threading.Lock()

    def enrol(
        self,
        templates: Iterable[Template],
        *,
        force: bool = False,
        pictures: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, Any]:
        """Add templates; GalleryError for another model's space or an unusable name.

        GalleryError also for a face or a picture that is somebody else's, unless `force`; what
        speaks against the faces that were added is told as `warnings`. `pictures` says what a
        picture is called, by its SHA-256.
        """
        templates = list(templates)
        for template in templates:
            self._check(template)
        with self._lock:
            before = self._holder.gallery
            gallery = before.added(templates)
            against = contradictions(before, gallery, self._thresholds, pictures)
            if against.grave and not force:
                raise GalleryError(
                    "expected pictures that nobody else is enrolled by, got "
                    + " | ".join(against.all),
                    hint="nothing was enrolled, --force enrols them all the same",
                )
            self._replace(gallery)
        people = sorted({template.person for template in templates})
        for person in people:
            log.info("gallery.enrolled", extra={"fields": {"employee": person}})
        self._tell_if_over()
        counts = {person: gallery.people()[person] for person in people}
        return {"people": counts, "warnings": against.all}

    def remove(self, person: str) -> dict[str, Any]:
        """Forget a person; GalleryError when nobody has that name."""
        with self._lock:
            self._replace(self._holder.gallery.removed(person))
        log.info("gallery.removed", extra={"fields": {"employee": person}})
        return {"removed": person}

    def listing(self) -> dict[str, Any]:
        """Who is enrolled, with how many faces, and in which spaces."""
        gallery = self._holder.gallery
        return {
            "people": gallery.people(),
            "spaces": gallery.spaces,
            "space": self._space,
            "standing": self.standing(),
            "changeover": self.changeover().document(names=True),
        }

    def changeover(self) -> Changeover:
        """Who must enrol again for the space in use."""
        return changeover(self._holder.gallery, self._space, self._also)

    def show(self, person: str) -> dict[str, Any]:
        """One person's templates without their vectors."""
        mine = [t for t in self._holder.gallery.templates if t.person == person]
        if not mine:
            raise GalleryError(
                f"nobody is enrolled as {person!r}", hint="`kiosk gallery list` shows who is"
            )
        faces = [{"space": t.embedding.space, "source": t.source} for t in mine]
        return {"person": person, "faces": faces}

    def verify(self) -> dict[str, Any]:
        """Read the sealed file again and hold it against what is in memory."""
        on_disk = [template_document(t) for t in self._state.load_gallery().templates]
        in_memory = [template_document(t) for t in self._holder.gallery.templates]
        if on_disk != in_memory:
            raise GalleryError(
                f"the sealed file holds {len(on_disk)} faces as expected by memory's"
                f" {len(in_memory)}: they differ",
                hint="restart the daemon; what is on disk is then in force",
            )
        return {"faces": len(on_disk), "people": len(self._holder.gallery.people())}

    def standing(self) -> str:
        """Whether the gallery on disk is the one that was saved last; otherwise what it is."""
        try:
            newest, number = self._marks.gallery_mark(), self._state.gallery_number()
        except VaultError as error:
            return str(error)
        if (number or 0) >= newest:
            return AS_SAVED
        if number is None:
            return f"missing: number {newest} was saved last"
        return f"older than the one saved last: number {number} instead of {newest}"

    def handlers(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        """The control socket's operations on people."""
        return {
            "enrol": lambda request: self.enrol(
                (template_from(t) for t in request["templates"]),
                force=request.get("force") is True,
                pictures={k: str(name) for k, name in dict(request.get("pictures", {})).items()},
            ),
            "gallery.list": lambda _: self.listing(),
            "gallery.show": lambda request: self.show(str(request["person"])),
            "gallery.remove": lambda request: self.remove(str(request["person"])),
            "gallery.verify": lambda _: self.verify(),
        }

    def warn_of_rollback(self) -> None:
        """Say at start that an older gallery lies there, or none any more.

        The kiosk goes on: a restored backup looks the same, and punches must be taken meanwhile.
        """
        standing = self.standing()
        if standing != AS_SAVED:
            meaning = "whoever was removed since may be let in, whoever was enrolled may not"
            fields = {"gallery": standing, "meaning": meaning}
            log.critical("gallery.rolled_back", extra={"fields": fields})

    def warn_of_other_spaces(self) -> None:
        """Say at start who must enrol again, because another model made their templates."""
        now = self.changeover()
        spaces = ",".join(s for s in self._holder.gallery.spaces if s != self._space)
        for people, level, meaning in (
            (now.unrecognised, logging.ERROR, "people of another model are not recognised"),
            (now.waiting, logging.WARNING, "recognised by models.also until they enrol again"),
        ):
            if people:
                fields = {
                    "people": len(people),
                    "spaces": spaces,
                    "in_use": self._space,
                    "meaning": meaning,
                    # Written only where journal.names allows it.
                    "employee": ", ".join(people),
                }
                log.log(level, "gallery.other_model", extra={"fields": fields})
        self._tell_if_over()

    def _tell_if_over(self) -> None:
        now = self.changeover()
        if now.is_over:
            meaning = "everybody is enrolled for the space in use: models.also can be taken out"
            fields = {"people": now.people, "in_use": now.space, "meaning": meaning}
            log.warning("gallery.also_can_go", extra={"fields": fields})

    def _check(self, template: Template) -> None:
        # What the wire would refuse must fail here, not when the person stands at the door.
        if not EMPLOYEE.fullmatch(template.person):
            raise GalleryError(
                f"a person's id: expected {EMPLOYEE_EXPECTED}, got {quoted(template.person)}"
            )
        # The server has ids in its paths. Whoever has such a name already keeps it.
        if "/" in template.person and template.person not in self._holder.gallery.people():
            raise GalleryError(
                f"a person's id: expected one without /, got {quoted(template.person)}",
                hint="the server takes no such id",
            )
        dim = self._dims.get(template.embedding.space)
        if dim is None:
            raise GalleryError(
                f"a face of space {self._space} expected, got {template.embedding.space}",
                hint="enrol with the model that the daemon uses",
            )

        if template.embedding.vector.size != dim:
            raise GalleryError(
                f"a face of {dim} values expected, got {template.embedding.vector.size}",
                hint="enrol with the model that the daemon uses",
            )

    def _replace(self, gallery: Gallery) -> None:
        """Disk, memory, mark: cut off in between, the gallery is newer than its mark, not older."""
        try:
            newest = self._marks.gallery_mark()
        except VaultError:
            # Told at start and in the status; what is saved now is the newest whatever it said.
            newest = 0
        number = self._state.save_gallery(gallery, beyond=newest)
        self._holder.gallery = gallery
        try:
            self._marks.mark_gallery(number)
        except OutboxError as error:
            log.error("gallery.not_marked", extra={"fields": {"reason": str(error)}})  # noqa: TRY400 - one line
