"""From a study over pairs to the threshold of a model, with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from kiosk.errors import UserError
from kiosk.lab.faces import digest_of, digest_of_all
from kiosk.lab.roc import far_name, impostors_needed
from kiosk.lab.study import Study

MOST_FAR = 1e-2
"""One stranger in a hundred; a kiosk wants 1e-4 or less."""
LEAST_TAR = 0.1
"""Ten times the laxest FAR; hard crops bring an honest model down to 0.47 at 1e-4."""
LEAST_AUC = 0.9
"""A model that knows nothing has 0.5."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A threshold, the upper 95 % bound for the wanted FAR, and its provenance in words."""

    threshold: float
    tar: float
    note: str


def check_resolvable(impostors: int, far: float) -> None:
    """UserError for a FAR that no kiosk should go by, or that so many pairs cannot tell."""
    if far > MOST_FAR:
        raise UserError(
            f"--far: at most {far_name(MOST_FAR)} expected for a threshold that decides, got"
            f" {far_name(far)}",
            hint="1e-4 is usual: one stranger in ten thousand",
        )
    needed = impostors_needed(far)
    if impostors < needed:
        raise UserError(
            f"{needed} impostor pairs expected for FAR {far_name(far)}, got {impostors}:"
            " no threshold is set",
            hint="bring more people and pictures, or ask for a FAR that these pairs can tell",
        )


def setting(found: Study, far: float, model: int, *, aligned: bool) -> Setting:
    """The threshold of one model of a study; UserError when the pairs cannot tell it."""
    roc = found.rocs[model]
    check_resolvable(roc.impostors, far)
    wanted = found.wanted(far, model)
    if wanted.threshold is None or wanted.upper is None or found.boot is None:
        raise UserError(
            f"an upper bound of the threshold for FAR {far_name(far)} expected, the resamples give"
            " none",
            hint="bring more people, and leave --resamples at 200 or more",
        )
    threshold, tar = wanted.upper, roc.sweep.tar_at(wanted.upper)
    if threshold > 1.0 or tar == 0.0:
        raise UserError(
            f"genuine pairs above the threshold for FAR {far_name(far)} expected, none reaches"
            f" {threshold:.6f}",
            hint="the model does not tell these people apart; is it fed rightly?"
            " --channels, --mean and --scale of `kiosk models add` say how",
        )
    if not (tar >= LEAST_TAR and roc.auc >= LEAST_AUC):
        raise UserError(
            f"a model that tells people apart expected (TAR {LEAST_TAR:g} or more, AUC"
            f" {LEAST_AUC:g} or more), got TAR {tar:.6f} at {threshold:.6f} for FAR"
            f" {far_name(far)} and AUC {roc.auc:.6f}: no threshold is set",
            hint="is it fed rightly? --channels, --mean and --scale of `kiosk models add` say how",
        )
    digest = digest_of_all(map(digest_of, found.pairs.pictures))
    kind = "aligned crops" if aligned else "photographs"
    note = (
        f"upper 95 % bound, {found.boot.unit} resampled {found.boot.resamples} times, of the cosine"
        f" {wanted.threshold:.6f} for FAR {far_name(far)} over {roc.impostors} impostor and"
        f" {roc.genuine} genuine pairs of {len(found.pairs.pictures)} {kind}; TAR there"
        f" {tar:.6f}; SHA-256 of the set {digest}"
    )
    return Setting(threshold, tar, note)
