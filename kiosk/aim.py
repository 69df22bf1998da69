"""For the one on the ladder: how the face before the camera is seen, in figures and advice.

No picture is kept and none is shown: the measures that decide about a punch are all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from kiosk.clock import NS_PER_S, Clock
from kiosk.feedback.notice import Notice, NoticeKind
from kiosk.types import Quality

_OLD_S = 2.0
_GOOD = 0.6


@dataclass(frozen=True, slots=True)
class View:
    """What one frame showed: its size, and the largest face in it, if there was one."""

    width: int
    height: int
    seen_ns: int
    face_px: int | None = None
    """The shorter side of the face's box."""
    quality: Quality | None = None


class Screen(Protocol):
    """What aiming asks of feedback."""

    def show(self, notice: Notice) -> None:
        """Tell the person in front; returns at once."""
        ...


def advice(quality: Quality) -> Iterator[str]:
    """What to do about each measure that is not good, the worst first."""
    words = {
        "size": "come nearer, or hang it lower or nearer",
        "sharpness": "hold still; clean or focus the lens",
        "exposure": "more light on the face, or no bright door behind it",
        "pose": "turn the camera to the face: it is seen from the side, above or below",
        "edge": "the face is cut off: turn the camera",
    }
    for name in sorted(words, key=lambda name: float(getattr(quality, name))):
        if getattr(quality, name) < _GOOD:
            yield words[name]


def document(view: View | None, now_ns: int) -> dict[str, Any]:
    """The JSON form of a view; `face` is None where none is seen now."""
    if view is None or (now_ns - view.seen_ns) / NS_PER_S > _OLD_S:
        return {"frame": None, "face": None, "advice": ["no picture yet: is the camera running?"]}
    if view.quality is None:
        return {
            "frame": [view.width, view.height],
            "face": None,
            "advice": ["stand where people will stand, and look at the camera"],
        }
    quality = view.quality
    face = {name: round(value, 2) for name, value in asdict(quality).items()}
    return {
        "frame": [view.width, view.height],
        "face": {"px": view.face_px, **face, "overall": round(quality.overall, 2)},
        "advice": list(advice(quality)),
    }


def line(said: dict[str, Any]) -> str:
    """One line for a terminal and for the page."""
    face = said["face"]
    if face is None:
        return str(said["advice"][0])
    figures = (
        f"face {face['px']} px, sharpness {face['sharpness']:.0%}, light {face['exposure']:.0%},"
        f" angle {face['pose']:.0%}, whole {face['edge']:.0%}"
    )
    return f"{figures} – {said['advice'][0] if said['advice'] else 'good'}"


class Aim:
    """Answers who aims, keeps the frames coming meanwhile, and puts the same on the page."""

    def __init__(
        self,
        view: Callable[[], View | None],
        wake: Callable[[], None],
        screen: Screen,
        clock: Clock,
    ) -> None:
        self._view, self._wake, self._screen, self._clock = view, wake, screen, clock

    def look(self) -> dict[str, Any]:
        """The newest view; whoever asks again within seconds keeps the camera awake."""
        self._wake()
        said = document(self._view(), self._clock.boottime_ns())
        self._screen.show(Notice(NoticeKind.LOOK, line(said), None, self._clock.now()))
        return said
