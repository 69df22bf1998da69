"""Plots of a report, drawn in the colours of `kiosk.lab.theme`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from kiosk.lab.report_data import Agreement, Curve, Layer, Layers, Role, Similarity, Try
from kiosk.lab.theme import (
    GENUINE,
    IMPOSTOR,
    INK,
    KEPT,
    MUTED,
    PAPER,
    ROLES,
    STYLE,
    svg_of,
)
from kiosk.lab.timing import ModelProfile, Profile

_WIDTH_IN = 5.4
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_WORST = 14
_ORDER: tuple[Role, ...] = ("naive", "fp32", "int8")


def roc(curves: Sequence[Curve]) -> str:
    """True against false accept rate, the latter on a logarithmic axis."""
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(3.5)
        for curve in sorted(curves, key=lambda curve: _ORDER.index(curve.role)):
            axes.plot(
                curve.far,
                curve.tar,
                color=ROLES[curve.role],
                linewidth=2.4 if curve.role == "int8" else 1.5,
                linestyle=(0, (4, 2)) if curve.role == "naive" else "-",
                label=_short(curve.name, 44),
            )
        axes.set_xscale("log")
        least = min((curve.far[0] for curve in curves if curve.far), default=1e-4)
        axes.set_xlim(least, 1)
        # Never 1, where all lie at the top: an axis has two ends.
        lowest = min((min(curve.tar[0], 0.99) for curve in curves if curve.tar), default=0.0)
        axes.set_ylim(max(0.0, lowest - (1 - lowest) * 0.08), 1 + (1 - lowest) * 0.02)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _power(x)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", length=0)
        _percent(axes)
        axes.grid(visible=True, axis="both")
        axes.set_xlabel("false accept rate")
        axes.set_ylabel("true accept rate")
        axes.legend(loc="lower right")
        return svg_of(figure, "roc", "ROC on a logarithmic axis of the false accept rate")


def similarities(histograms: Sequence[Similarity], threshold: float | None) -> str:
    """Genuine and impostor pairs: FP32 as a line, the judged model filled."""
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(3.5)
        for shown in histograms:
            if shown.role == "naive":
                continue
            for counts, colour, who in (
                (shown.impostor, IMPOSTOR, "different people"),
                (shown.genuine, GENUINE, "same person"),
            ):
                share = [count / (sum(counts) or 1) for count in counts]
                is_filled = shown.role == "int8"
                axes.stairs(
                    share,
                    shown.edges,
                    fill=is_filled,
                    color=colour,
                    alpha=0.45 if is_filled else 1,
                    linewidth=0 if is_filled else 1.3,
                    label=f"{who}, {_short(shown.name, 14)}",
                )
        used = [
            edge
            for shown in histograms
            for counts in (shown.genuine, shown.impostor)
            for edge, count in zip(shown.edges, counts, strict=False)
            if count
        ]
        if used:
            axes.set_xlim(min(used) - 0.03, min(1.0, max(used) + 0.06))
        axes.set_ylim(0, axes.get_ylim()[1] * 1.34)
        if threshold is not None:
            axes.axvline(threshold, ymax=0.77, color=INK, linewidth=1, linestyle=(0, (2, 2)))
            axes.annotate(
                f"threshold {threshold:.2f}",
                (threshold, 0.77),
                xycoords=("data", "axes fraction"),
                xytext=(-4, -9),
                textcoords="offset points",
                ha="right",
                fontsize=9.5,
            )
        _percent(axes)
        axes.grid(visible=True, axis="y")
        axes.set_xlabel("cosine of a pair")
        axes.set_ylabel("share of pairs")
        axes.legend(loc="upper center", ncols=2, columnspacing=1.6, borderaxespad=0.1)
        return svg_of(
            figure, "similarity", "Histogram of similarities of genuine and impostor pairs"
        )


def agreements(shown: Sequence[Agreement], limits: Sequence[tuple[str, float]]) -> str:
    """Cosine to FP32 over held-out faces; `limits` are the gate's, with their names.

    A model whose mean lies left of the histogram is told in words: its bar would dwarf the others.
    """
    inside = [model for model in shown if model.mean >= model.edges[0]] or list(shown)
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(3.1)
        for model in sorted(inside, key=lambda model: _ORDER.index(model.role)):
            total = sum(model.counts) or 1
            axes.stairs(
                [count / total for count in model.counts],
                model.edges,
                fill=True,
                color=ROLES[model.role],
                alpha=0.85 if model.role == "int8" else 0.45,
                label=_short(model.name, 36),
            )
        edges = [
            edge
            for model in inside
            for edge, count in zip(model.edges, model.counts, strict=False)
            if count
        ]
        lowest = min([*edges, *(limit for _, limit in limits)], default=0.9)
        axes.set_xlim(lowest - (1 - lowest) * 0.05, 1.0)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
        for step, (name, limit) in enumerate(sorted(limits, key=lambda pair: -pair[1])):
            axes.axvline(limit, color=INK, linewidth=1, linestyle=(0, (2, 2)))
            is_left = limit - lowest < 0.3 * (1 - lowest)
            axes.annotate(
                f"{name} {limit:g}",
                (limit, 1),
                xycoords=("data", "axes fraction"),
                xytext=(4 if is_left else -4, -6 - 14 * step),
                textcoords="offset points",
                ha="left" if is_left else "right",
                fontsize=9.5,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
            )
        for step, model in enumerate(model for model in shown if model not in inside):
            said = f"← {_short(model.name, 36)}:\n    {model.mean:.3f} in the mean"
            axes.text(0.06, 0.55 - 0.17 * step, said, transform=axes.transAxes, color=MUTED)
        _percent(axes)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(visible=True, axis="y")
        axes.set_xlabel("cosine of one face between the model and FP32")
        axes.set_ylabel("share of faces")
        if len(inside) > 1:
            axes.legend(loc="center left")
        return svg_of(figure, "agreement", "Histogram of the cosine to FP32 over held-out faces")


def worst_layers(layers: Layers) -> str:
    """The layers with the largest error, by name; those kept in FP32 stand out."""
    with mpl.rc_context(STYLE):
        rows = sorted(layers.rows, key=lambda row: row.error)[-_WORST:]
        figure, axes = _canvas(0.75 + 0.215 * len(rows))
        axes.barh(
            range(len(rows)), [row.error for row in rows], height=0.62, color=_layer_colours(rows)
        )
        axes.set_yticks(range(len(rows)), [_short(f"{row.name}, {row.kind}") for row in rows])
        largest = max((row.error for row in rows), default=1.0)
        for place, row in enumerate(rows):
            axes.text(row.error + largest * 0.012, place, _two(row.error), va="center", size=9)
        axes.set_xlim(0, largest * 1.16)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        _bars(axes, "error")
        return svg_of(figure, "worst-layers", "The layers with the largest error")


def all_layers(layers: Layers) -> str:
    """Every layer in the order of the graph."""
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(0.75 + 0.215 * min(_WORST, len(layers.rows)))
        axes.bar(
            range(1, len(layers.rows) + 1),
            [row.error for row in layers.rows],
            width=0.74,
            color=_layer_colours(layers.rows),
        )
        axes.set_xlim(0.3, len(layers.rows) + 0.7)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(visible=True, axis="y")
        axes.set_xlabel("layer, from input to output")
        axes.set_ylabel("error")
        return svg_of(figure, "all-layers", "The error of every layer in the order of the graph")


def latencies(profile: Profile, model: str) -> str:
    """Best milliseconds of each model, a bar for each number of threads."""
    return _times(
        [(m.name, m.name == model, _best(m)) for m in profile.models if m.timings],
    )


def tried_latencies(tries: Sequence[Try]) -> str:
    """Best milliseconds of each candidate, where no profile was made."""
    return _times([(t.name, t.chosen, [("", t.ms)]) for t in tries if t.ms is not None])


def _best(model: ModelProfile) -> list[tuple[str, float]]:
    if len(model.timings) == 1:
        return [("", model.timings[0].warm.min_ms)]
    return [
        (f" ({t.threads} thread{'' if t.threads == 1 else 's'})", t.warm.min_ms)
        for t in model.timings
    ]


def _times(groups: Sequence[tuple[str, bool, list[tuple[str, float]]]]) -> str:
    """A group of bars for each name; the judged one in its colour. The first tells the shades."""
    with mpl.rc_context(STYLE):
        bars = sum(len(times) for _, _, times in groups)
        is_single = bars == len(groups)
        gap = 0.9 if is_single else 0.7
        figure, axes = _canvas(0.75 + 0.2 * (bars + gap * len(groups)))
        largest = max((ms for _, _, times in groups for _, ms in times), default=1.0)
        top, ticks = 0.0, []
        for place, (_, is_judged, times) in enumerate(groups):
            ticks.append(top - (len(times) - 1) / 2)
            for step, (said, ms) in enumerate(times):
                colour = ROLES["int8"] if is_judged else ROLES["fp32"]
                told = f"{ms:.2f}{said if place == 0 else ''}"
                axes.barh(top - step, ms, height=0.78, color=colour, alpha=1 if step == 0 else 0.55)
                axes.text(ms + largest * 0.012, top - step, told, va="center", size=9)
            top -= len(times) + gap
        axes.set_yticks(
            ticks, ["\n".join(textwrap.wrap(_short(name, 44), 24)) for name, _, _ in groups]
        )
        axes.set_xlim(0, largest * (1.12 if is_single else 1.3))
        axes.set_ylim(top + 0.4 + gap, 0.6)
        _bars(axes, "milliseconds, best of the run")
        return svg_of(figure, "latency", "Milliseconds of each candidate")


def _canvas(height_in: float) -> tuple[Figure, Axes]:
    """A figure without a window: `Figure` by itself draws with Agg, and knows no global state."""
    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    figure.patch.set_alpha(0)
    return figure, figure.add_subplot()


def _layer_colours(rows: Sequence[Layer]) -> list[str]:
    return [KEPT if row.kept_fp32 else ROLES["int8"] for row in rows]


def _bars(axes: Axes, label: str) -> None:
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(label)


def _percent(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{round(100 * y, 6):g} %"))


def _two(value: float) -> str:
    """Two figures, without an exponent: 0.000069."""
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")


def _power(value: float) -> str:
    exponent = f"{value:.0e}".split("e")[1]
    return "1" if int(exponent) == 0 else f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def _short(name: str, most: int = 30) -> str:
    """The end of a name tells it apart: its beginning is what all have in common."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
