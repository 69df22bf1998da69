"""The gate: what a quantised model must reach before it may stand in for its FP32 original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kiosk.lab.agreement import Agreement
from kiosk.lab.roc import FARS, Roc, far_name

# docs/quantisation.md and the guide's "Accuracy Validation", step 1.
LEAST_MEAN_COSINE = 0.995
LEAST_MIN_COSINE = 0.98
MOST_MEAN_MAE = 0.005
# The guide's "ROC Curve Comparison", step 2.
MOST_AUC_DROP = 0.01
# Ours: AUC is blind to the far end of the curve, where a kiosk works. In shares, not in points.
MOST_TAR_DROP = 0.01
JUDGED_FAR = 1e-3
# Fewer pairs than these move the drops by more than their limits when one pair changes sides.
LEAST_GENUINE = 100
LEAST_IMPOSTORS = round(1 / JUDGED_FAR)
_MOST_PLACES = 17
LEFT_OUT = "left out, --no-identities"


def beside(value: float, limit: float | None, digits: int) -> str:
    """A figure with so many decimals, with more where these would put it at or beyond its limit.

    The limit itself has its plain digits: 0.9950 beside "fails" would read as if the gate erred.
    """
    for places in range(digits, _MOST_PLACES):
        text = f"{value:.{places}f}"
        shown = float(text)
        if limit is None or (shown > limit, shown < limit) == (value > limit, value < limit):
            return text if shown else text.removeprefix("-")
    return f"{value!r}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the gate. `passed` is None for what is not judged; `note` says why not.

    `limit` is "" for a figure that is told only; `got` is None when it could not be had.
    `left_out`: the caller said that this line is not to be judged.
    """

    name: str
    limit: str
    got: float | None
    passed: bool | None
    note: str = ""
    left_out: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the line has a limit and was not judged."""
        return bool(self.limit) and self.passed is None

    @property
    def figure(self) -> str:
        """`got` with six decimals, with more where six would show it beside its limit."""
        return self.told(6)

    def told(self, digits: int) -> str:
        """`got` with so many decimals, or with as many as tell it from the limit."""
        if self.got is None:
            return "-"
        limit = float(self.limit.split()[-1]) if self.limit else None
        return beside(self.got, limit, digits)

    def document(self) -> dict[str, str | float | bool | None]:
        """The line for JSON."""
        return {
            "name": self.name,
            "limit": self.limit,
            "got": self.got,
            "passed": self.passed,
            "note": self.note,
        }


def judge(
    agreement: Agreement,
    fp32_roc: Roc | None = None,
    int8_roc: Roc | None = None,
    *,
    why_no_roc: str = "",
    identities: bool = True,
) -> tuple[Line, ...]:
    """Every line of the gate. Limits are strict: a figure that equals its limit fails.

    Drops are FP32 minus INT8, so a gain is negative and passes. `why_no_roc` is told in the lines
    that need the curves when these are None. Without `identities` they are left out on purpose:
    cosine and MAE alone are judged.
    """
    if not identities:
        fp32_roc, int8_roc, why_no_roc = None, None, LEFT_OUT
    lines = [
        _least("mean cosine", LEAST_MEAN_COSINE, agreement.mean_cosine),
        _least("min cosine", LEAST_MIN_COSINE, agreement.min_cosine),
        _most("mean MAE", MOST_MEAN_MAE, agreement.mean_mae),
    ]
    missing = why_no_roc or "no pairs of faces"
    if fp32_roc is not None and int8_roc is not None:
        missing = too_few(fp32_roc.genuine, fp32_roc.impostors)
    auc_drop = None
    if fp32_roc is not None and int8_roc is not None:
        auc_drop = fp32_roc.auc - int8_roc.auc
    lines.append(_judged("AUC drop", MOST_AUC_DROP, auc_drop, missing))
    for far in FARS:
        name, drop = f"TAR@{far_name(far)} drop", _tar_drop(fp32_roc, int8_roc, far)
        if far == JUDGED_FAR:
            lines.append(_judged(name, MOST_TAR_DROP, drop, missing))
        else:
            note = (
                "told only" if drop is not None else f"too few impostor pairs, {1 / far:.0f} needed"
            )
            lines.append(Line(name, "", drop, None, note if fp32_roc is not None else missing))
    if not identities:
        return tuple(replace(line, left_out=line.is_open) for line in lines)
    return tuple(lines)


def weights_line(at_minus_128: int) -> tuple[Line, ...]:
    """The line that fails for INT8 weights of -128, which the daemon refuses; none without any."""
    if not at_minus_128:
        return ()
    note = "ARM's kernels overflow on it: quantise with symmetric weights"
    return (Line("INT8 weights of -128", "< 1", float(at_minus_128), False, note),)


def failing(lines: Sequence[Line]) -> list[Line]:
    """The lines that were judged and do not pass."""
    return [line for line in lines if line.passed is False]


def unjudged(lines: Sequence[Line]) -> list[Line]:
    """The lines with a limit that were not judged, left out or not."""
    return [line for line in lines if line.is_open]


def passes(lines: Sequence[Line]) -> bool:
    """Whether every line with a limit was judged and passes, but for those left out by word."""
    return all(line.passed is True for line in lines if line.limit and not line.left_out)


def not_judged(lines: Sequence[Line]) -> list[dict[str, str]]:
    """The lines that were not judged, each with its reason, for JSON and the record."""
    return [{"line": line.name, "why": line.note} for line in unjudged(lines)]


def shortfall(lines: Sequence[Line]) -> str:
    """What keeps the gate from being passed, in words: lines that fail, lines left open; or ""."""
    bad = [f"{line.name} {line.figure} ({line.limit} expected)" for line in failing(lines)]
    by_reason: dict[str, list[str]] = {}
    for line in unjudged(lines):
        if not line.left_out:
            by_reason.setdefault(line.note, []).append(line.name)
    bad += [f"{', '.join(names)}: not judged ({why})" for why, names in by_reason.items()]
    return ", ".join(bad)


def _least(name: str, limit: float, got: float) -> Line:
    return Line(name, f"> {limit:g}", got, got > limit)


def _most(name: str, limit: float, got: float) -> Line:
    return Line(name, f"< {limit:g}", got, got < limit)


def _judged(name: str, limit: float, drop: float | None, missing: str) -> Line:
    if missing or drop is None:
        return Line(name, f"< {limit:g}", drop, None, missing)
    return _most(name, limit, drop)


def too_few(genuine: int, impostors: int) -> str:
    """Why so many pairs judge no drop; "" when they are enough."""
    if genuine >= LEAST_GENUINE and impostors >= LEAST_IMPOSTORS:
        return ""
    return (
        f"{LEAST_GENUINE} genuine and {LEAST_IMPOSTORS} impostor pairs needed,"
        f" got {genuine} and {impostors}"
    )


def _tar_drop(fp32: Roc | None, int8: Roc | None, far: float) -> float | None:
    if fp32 is None or int8 is None:
        return None
    before, after = fp32.at(far).tar, int8.at(far).tar
    return None if before is None or after is None else before - after
