"""What is said to the person in front, in words a person understands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from kiosk.types import Stamp

_DASH = " – "


class NoticeKind(Enum):
    """The states of the screen; the value is the name the page knows the state by."""

    IDLE = "idle"
    LOOK = "look"
    RECORDED = "recorded"
    SAVED_OFFLINE = "saved-offline"
    ALREADY_RECORDED = "already-recorded"
    NOT_RECOGNISED = "not-recognised"
    CANNOT_RECORD = "cannot-record"
    NO_CAMERA = "no-camera"

    @property
    def stands(self) -> bool:
        """Whether the state lasts until another replaces it.

        A kiosk that could not record must not turn to a friendly idle by itself.
        """
        return self.rests or self is NoticeKind.CANNOT_RECORD

    @property
    def rests(self) -> bool:
        """Whether the screen comes back to it when what was said to a person is over.

        The last visit may still be told after the camera has gone: what follows is no welcome.
        """
        return self in {NoticeKind.IDLE, NoticeKind.NO_CAMERA}


# What comes after the dash is shown smaller: the words before it must do alone.
_TEXTS = {
    NoticeKind.IDLE: "Ready – look at the camera",
    NoticeKind.LOOK: "Hold still",
    NoticeKind.RECORDED: "Recorded",
    NoticeKind.SAVED_OFFLINE: "Saved – will be sent when the network is back",
    NoticeKind.ALREADY_RECORDED: "Already recorded at {time}",
    NoticeKind.NOT_RECOGNISED: "Not recognised – step away and try again",
    NoticeKind.CANNOT_RECORD: "CANNOT RECORD – use another way",
    NoticeKind.NO_CAMERA: "No camera picture – use another way",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing said to the person in front.

    `text` is one line, `person` whom it is about (None: nobody is named). `at` is the moment the
    words speak of: for ALREADY_RECORDED that of the earlier punch, else that of the visit.
    """

    kind: NoticeKind
    text: str
    person: str | None
    at: Stamp

    @classmethod
    def of(cls, kind: NoticeKind, person: str | None, at: Stamp) -> Notice:
        """A notice in the usual words; a time in them is local wall time, HH:MM."""
        local = datetime.fromtimestamp(at.utc_ms / 1000, UTC).astimezone()
        return cls(kind, _TEXTS[kind].format(time=f"{local:%H:%M}"), person, at)

    @property
    def headline(self) -> str:
        """The words to read from two metres."""
        return self.text.partition(_DASH)[0]

    @property
    def detail(self) -> str:
        """What follows the dash, "" where nothing does."""
        return self.text.partition(_DASH)[2]
