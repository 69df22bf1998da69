"""`kiosk lab roc --set-threshold`: a model of one's own goes by what its curve says."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kiosk.commands.console import complain, say
from kiosk.commands.lab.options import own_models
from kiosk.errors import UserError

if TYPE_CHECKING:
    from kiosk.lab.pairs import Pairs
    from kiosk.lab.study import Study
    from kiosk.lab.subject import Subject


def check_wish(options: argparse.Namespace, subjects: Sequence[Subject], pairs: Pairs) -> None:
    """UserError for what would make the long run vain: found out before it."""
    from kiosk.lab.threshold import check_resolvable

    if options.far is None:
        raise UserError("--set-threshold: --far X expected with it, 1e-4 for instance")
    if not options.resamples:
        raise UserError("--set-threshold: --resamples above 0 expected, the bound comes from them")
    _measured(options, subjects)
    check_resolvable(int((~pairs.same).sum()), options.far)


def set_threshold(
    options: argparse.Namespace, subjects: Sequence[Subject], found: Study
) -> dict[str, object]:
    """Write the threshold and where it is from; its document."""
    from kiosk.lab.threshold import setting

    model = _measured(options, subjects)
    chosen = setting(found, options.far, model, aligned=options.aligned)
    own = own_models(options)
    old = own.get(options.set_threshold)
    own.set_threshold(options.set_threshold, chosen.threshold, chosen.note)
    replaced = {"threshold": old.threshold, "note": old.threshold_note} if old.usable else None
    return {
        "id": options.set_threshold,
        "threshold": chosen.threshold,
        "tar": chosen.tar,
        "note": chosen.note,
        "replaced": replaced,
        "laxer": old.usable and chosen.threshold < old.threshold,
    }


def tell_set(document: dict[str, object]) -> None:
    """The same in words."""
    replaced = document["replaced"]
    if document["laxer"] and isinstance(replaced, dict):
        complain(
            f"kiosk: warning: {document['threshold']:.6f} lets more pass than"
            f" {replaced['threshold']:.6f}, which it replaces ({replaced['note']})"
        )
    say(f"threshold of {document['id']} set to {document['threshold']:.6f}: {document['note']}")
    say("in force after a restart of the daemon")


def _measured(options: argparse.Namespace, subjects: Sequence[Subject]) -> int:
    """Which of the models measured is the one to set; UserError when neither is."""
    entry = own_models(options).get(options.set_threshold)
    for number, subject in enumerate(subjects):
        if subject.sha256 == entry.sha256:
            return number
    raise UserError(
        f"--set-threshold: the file of {entry.id} among those measured expected"
        f" (SHA-256 {entry.sha256[:12]}…), got "
        + ", ".join(f"{s.path} ({s.sha256[:12]}…)" for s in subjects),
        hint=f"kiosk lab roc {entry.id} measures it",
    )
