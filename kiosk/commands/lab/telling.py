"""What several commands tell: the models, the machine, the files left out, advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kiosk.commands.console import say

if TYPE_CHECKING:
    from kiosk.lab.advice import Advice
    from kiosk.lab.faces import Skipped
    from kiosk.lab.runner import Arithmetic
    from kiosk.lab.subject import Subject

_NAMED = 5
_LABELS = {"auc": "AUC", "eer": "EER"}


def tell_models(subjects: Sequence[Subject], arithmetic: Arithmetic) -> None:
    """The models by file and hash, and the machine with what is to be known of its arithmetic."""
    from kiosk.lab.comparison import arithmetic_remark
    from kiosk.lab.machine import describe, title

    for name, subject in zip(("FP32", "INT8"), subjects, strict=False):
        say(f"{name}     {subject.path} (SHA-256 {subject.sha256[:12]}…, {subject.dim} values)")
    say(f"machine  {title(describe())}, {arithmetic} arithmetic")
    remark = arithmetic_remark(subjects, arithmetic)
    if remark:
        say(f"note     {remark}")


def tell_skipped(skipped: Sequence[Skipped], what: str = "left out") -> None:
    """How many files gave nothing, and the first of them by name."""
    for item in skipped[:_NAMED]:
        say(f"{what} {item.reason}")
    if len(skipped) > _NAMED:
        say(f"{what} {len(skipped) - _NAMED} more, {len(skipped)} in all (--json names them)")


def tell_advice(given: Sequence[Advice], about: str = "") -> None:
    """What was seen and why it matters, and below it what to do."""
    for advice in given:
        say(f"{advice.weight}: {about}{advice.seen} {advice.why}\n  {advice.do}")


def listed(skipped: Sequence[Skipped]) -> list[dict[str, str]]:
    """All of them for JSON."""
    return [{"file": str(item.path), "reason": item.reason} for item in skipped]


def label(figure: str) -> str:
    """A figure's name for a person."""
    return _LABELS.get(figure, figure.replace("tar@", "TAR@"))


def origin(
    subjects: Sequence[Subject], arithmetic: Arithmetic, skipped: Sequence[Skipped]
) -> dict[str, object]:
    """The same for JSON."""
    from kiosk.lab.comparison import arithmetic_remark
    from kiosk.lab.machine import describe

    return {
        "models": [
            {"file": str(subject.path), "sha256": subject.sha256, "dim": subject.dim}
            for subject in subjects
        ],
        "machine": describe(),
        "arithmetic": arithmetic,
        "remark": arithmetic_remark(subjects, arithmetic),
        "skipped": listed(skipped),
    }
