"""From a path to a queue that can be trusted: what is checked at a start, and what damage costs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from kiosk.clock import Clock
from kiosk.errors import OutboxDamagedError, OutboxError, OutboxFullError
from kiosk.outbox.bodies import Bodies
from kiosk.outbox.database import Database
from kiosk.outbox.inspection import Inspection
from kiosk.outbox.ledger import Ledger
from kiosk.outbox.mark import Loss, Mark, Standing, loss
from kiosk.outbox.room import BALLAST_FILE, Room
from kiosk.outbox.salvage import Salvaged, finish, salvage
from kiosk.outbox.schema import PAGE_BYTES

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Queue:
    """An open queue: all that its owner's thread works with."""

    database: Database
    mark: Mark
    ledger: Ledger
    room: Room
    inspection: Inspection

    def with_room(self, put: Callable[[Ledger], T]) -> T:
        """Record where there is space for it; OutboxFullError, and told, where there is none."""
        try:
            try:
                self.room.make_way()
                done = put(self.ledger)
            except OutboxFullError:
                if not self.room.drop_ballast():
                    raise
                done = put(self.ledger)
        except OutboxFullError as error:
            self.room.refused(error)
            raise
        self.room.accepted()
        return done

    def close(self) -> None:
        """Close everything; the mark last, for it says that the rest was closed cleanly."""
        try:
            self.database.close()
            if self.database.broken is None:
                self.mark.stand(Standing.CLEAN)
        finally:
            self.mark.close()

    def note_damage(self) -> None:
        """Let the next start know that the file is to be set aside."""
        if isinstance(self.database.broken, OutboxDamagedError):
            self.mark.stand(Standing.DAMAGED)


def open_queue(path: Path, bodies: Bodies, clock: Clock) -> Queue:
    """Open, check, and where need be mend the queue at `path`; errors as of `Outbox.start`."""
    finish(path)
    mark = Mark(path.with_name("outbox.mark"), bodies.mark_tags)
    try:
        queue = _sound_queue(path, mark, bodies, clock)
        try:
            _compare(path, queue, _stamp(clock))
        except BaseException:
            queue.database.close()
            raise
    except BaseException:
        mark.close()
        raise
    return queue


def _sound_queue(path: Path, mark: Mark, bodies: Bodies, clock: Clock) -> Queue:
    """Open what is there if it is sound; otherwise what could be taken over from it."""
    try:
        _refuse_known_damage(path, mark)
        return _checked(path, mark, bodies, clock)
    except OutboxDamagedError as error:
        if not mark.existed:
            # Nothing says that this file ever was a queue.
            raise
        found = _salvaged(path, bodies, _stamp(clock))
        fields = {key: str(value) for key, value in asdict(found).items()}
        log.critical("outbox.salvaged", extra={"fields": fields | {"reason": str(error)}})
    return _checked(path, mark, bodies, clock)


def _salvaged(path: Path, bodies: Bodies, stamp: str) -> Salvaged:
    """On a full disk with the ballast's space: it is kept for what cannot wait."""
    try:
        return salvage(path, bodies, stamp=stamp)
    except OutboxFullError:
        ballast = path.with_name(BALLAST_FILE)
        if not ballast.exists():
            raise
        ballast.unlink()
        facts = {"for": "what a damaged queue is salvaged into"}
        log.critical("outbox.ballast_dropped", extra={"fields": facts})
    return salvage(path, bodies, stamp=stamp)


def _refuse_known_damage(path: Path, mark: Mark) -> None:
    """Damage that SQLite would not tell: it takes an empty file for a new one, log and all."""
    if mark.reading is None:
        return
    if mark.reading.standing is Standing.DAMAGED:
        raise OutboxDamagedError(f"{path}: found damaged while it was in use")
    if not path.exists() or path.stat().st_size < PAGE_BYTES:
        raise OutboxDamagedError(f"{path}: expected a queue, got nothing or next to nothing")


def _checked(path: Path, mark: Mark, bodies: Bodies, clock: Clock) -> Queue:
    left = mark.reading
    mark.announce()
    database = Database(path, left_at=None if left is None else left.version)
    try:
        inspection = Inspection(database, bodies, clock)
        inspection.begin(clean=left is None or left.standing is Standing.CLEAN)
        ledger = Ledger(database, bodies, clock, mark)
        try:
            ledger.bind(path)
        except OutboxError as error:
            if left is None:
                raise
            # The mark authenticates under our secret and id, so that the queue was ours too.
            raise OutboxDamagedError(f"{path}: names another device than its mark") from error
        inspection.read_waiting()
        return Queue(database, mark, ledger, Room(database, path.parent), inspection)
    except BaseException:
        database.close()
        raise


def _compare(path: Path, queue: Queue, stamp: str) -> None:
    """Hold the mark against the numbers in the file; begin a new epoch where it knows of more."""
    mark, ledger = queue.mark, queue.ledger
    missing = None
    if mark.reading is not None:
        missing = loss(mark.reading, ledger.epochs())
    unmarked = mark.reading is None and (mark.existed or not queue.database.migrated)
    if unmarked:
        fields = {"path": str(path), "meaning": "whether anything was lost cannot be told"}
        log.critical("outbox.mark_lost", extra={"fields": fields})
    if missing is not None:
        _tell(missing, path, stamp)
    if missing is not None or unmarked:
        ledger.begin_epoch()
    epoch, given = list(ledger.epochs().items())[-1]
    mark.count(epoch, given)


def _tell(missing: Loss, path: Path, stamp: str) -> None:
    """Journal a loss with its bounds; the log that it was cut out of is kept."""
    fields: dict[str, str | int | float] = asdict(missing)
    if not missing.certain:
        meaning = "was being recorded when the power or the process went; perhaps it was told so"
        log.warning("outbox.cut_short", extra={"fields": fields | {"meaning": meaning}})
        return
    source = path.with_name(f"{path.name}-wal")
    if source.exists():
        aside = path.with_name(f"{path.name}.damaged-{stamp}-wal")
        try:
            shutil.copyfile(source, aside)
            fields |= {"kept": str(aside)}
        except OSError as error:
            fields |= {"kept": f"nothing: {error.strerror}"}
    log.critical("outbox.lost", extra={"fields": fields})


def _stamp(clock: Clock) -> str:
    now = clock.now()
    day = datetime.fromtimestamp(now.utc_ms / 1000, UTC)
    return f"{day:%Y%m%dT%H%M%S}-{now.boottime_ns // 1_000_000}"
