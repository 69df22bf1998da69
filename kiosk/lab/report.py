"""The report: one HTML file with everything in it, from figures that were measured before.

The same figures give the same bytes: nothing here asks a clock, a machine or a random generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kiosk.lab import plots
from kiosk.lab.gate import beside
from kiosk.lab.margin import GateLine, passes, tightest
from kiosk.lab.report_data import Curve, Judged, ReportData
from kiosk.lab.timing import Profile, Timing

_SCALE = 1.25
"""A margin bar ends here: a quarter beyond the limit, which leaves the limit's mark inside."""
_MIB = 1024 * 1024
_MOST_TRIES = 12
"""A longer list of tries is folded up: the final candidates must not be lost among a search."""


def render(data: ReportData) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("kiosk.lab", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bar=bar_width,
        figure=figure_of,
        mib=lambda size: f"{size / _MIB:.2f}",
        rate=lambda far: f"{far:.0e}".replace("e-0", "e-"),
        beside=lambda value, limit, digits=4: (
            "–" if value is None else beside(value, limit, digits).replace("-", "−")
        ),
        percent=lambda share, digits=2: beside(100 * share, None, digits),
        signed=lambda share, digits=2: signed_of(share, digits),
    )
    style = files("kiosk.lab").joinpath("pages", "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(
        data=data,
        style=Markup(style),  # noqa: S704 - a file of this package
        judged=arithmetic_of(data.judged),
        passed=passes(data.gate),
        worst=tightest(data.gate) if data.gate else None,
        limit_at=f"{100 / _SCALE:.4g}%",
        pictures=_pictures(data),
        curves=_by_role(data.curves),
        base=next((curve for curve in data.curves if curve.role == "fp32"), None),
        speed=_speed(data),
        fastest=_fastest(data),
        limits={line.name: line.limit for line in data.gate},
        tries=_tries(data),
        most_shown=_MOST_TRIES,
    )


def arithmetic_of(judged: Judged) -> str:
    """In which arithmetic the figures were made, in words for a person."""
    if judged.arithmetic == "reference":
        said = (
            "Judged in the reference arithmetic: every 8-bit step as ONNX defines it, which ARM and"
            f" x86 with VNNI follow but for the rounding of ties. Run on {judged.machine}"
        )
        if judged.saturates:
            return f"{said}, whose own kernels saturate in 16 bits and give other figures."
        return f"{said}."
    said = f"Judged with the kernels of this machine, {judged.machine}"
    if judged.saturates is None:
        return f"{said}; whether its 8-bit products saturate is not known."
    if judged.saturates:
        return (
            f"{said}, whose 8-bit products saturate in 16 bits: on ARM, and on x86 with VNNI, the"
            " same file gives other figures."
        )
    return f"{said}, whose 8-bit products do not saturate: ARM and VNNI agree with it."


def bar_width(line: GateLine) -> str:
    """How far a margin bar reaches, as a share of its track; NaN fills it."""
    used = line.used if line.used == line.used else _SCALE
    return f"{100 * min(used, _SCALE) / _SCALE:.4g}%"


def figure_of(value: float | None, digits: int = 4) -> str:
    """A figure with its digits; a dash for what was not measured."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed_of(share: float, digits: int = 2) -> str:
    """Percentage points with their sign; a nought that was rounded has none."""
    text = f"{100 * share:+.{digits}f}"
    return (text if float(text) else text[1:]).replace("-", "−")


def _by_role(curves: Sequence[Curve]) -> list[Curve]:
    """FP32 first, then what is judged, then what it is contrasted with."""
    return sorted(curves, key=lambda curve: ("fp32", "int8", "naive").index(curve.role))


def _tries(data: ReportData) -> list[dict[str, Any]]:
    """The tries by their note, in order; for each column that not all have, whether any has it."""
    notes = dict.fromkeys(candidate.note for candidate in data.tries)
    groups: list[dict[str, Any]] = []
    for note in notes:
        rows = [candidate for candidate in data.tries if candidate.note == note]
        has = {
            column: any(getattr(row, column) is not None for row in rows)
            for column in ("tar", "ms", "bytes", "passed")
        }
        groups.append({"note": note, "rows": rows, **has})
    return groups


def _speed(data: ReportData) -> tuple[Timing, Timing] | None:
    """FP32 and the judged model at the smallest number of threads, where both were measured."""
    profile = data.profile
    if profile is None:
        return None
    threads = [timing.threads for model in profile.models for timing in model.timings]
    if not threads or not {data.model, data.against} <= {m.name for m in profile.models}:
        return None
    least = min(threads)
    return profile.timing(data.against, least), profile.timing(data.model, least)


def _fastest(data: ReportData) -> Timing | None:
    """The fastest FP32 file at the smallest number of threads, where another than `against` is.

    FP32 is what the profile measured and no try was.
    """
    speed, profile = _speed(data), data.profile
    if speed is None or profile is None:
        return None
    int8 = {data.model, *(candidate.name for candidate in data.tries)}
    fp32 = [profile.timing(m.name, speed[0].threads) for m in profile.models if m.name not in int8]
    best = min(fp32, key=lambda timing: timing.warm.min_ms, default=speed[0])
    return best if best.warm.min_ms < speed[0].warm.min_ms else None


def _pictures(data: ReportData) -> dict[str, Markup]:
    """The plots that there are figures for, by name."""
    drawn: dict[str, str] = {}
    if data.curves:
        drawn["roc"] = plots.roc(data.curves)
    if data.similarities:
        judged = next((curve for curve in data.curves if curve.role == "int8"), None)
        threshold = None if judged is None else judged.threshold
        drawn["similarity"] = plots.similarities(data.similarities, threshold)
    if data.agreements:
        drawn["agreement"] = plots.agreements(data.agreements, _cosine_limits(data.gate))
    if data.layers is not None and data.layers.rows:
        drawn["worst"] = plots.worst_layers(data.layers)
        drawn["all"] = plots.all_layers(data.layers)
    if data.profile is not None and _has_timings(data.profile):
        drawn["latency"] = plots.latencies(data.profile, data.model)
    elif any(candidate.ms is not None for candidate in data.tries):
        drawn["latency"] = plots.tried_latencies(data.tries)
    # Drawn by matplotlib from text that it escapes itself.
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704


def _has_timings(profile: Profile | None) -> bool:
    return profile is not None and any(model.timings for model in profile.models)


def _cosine_limits(gate: Sequence[GateLine]) -> list[tuple[str, float]]:
    return [(line.name, line.limit) for line in gate if "cosine" in line.name.lower()]
