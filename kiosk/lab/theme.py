"""Drawings that take their colours and their type from the page around them.

Every colour here is a stand-in that `svg_of` replaces by a variable of the page's style sheet, so
that one drawing serves light, dark and print. Text stays text.
"""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib.figure import Figure

from kiosk.lab.report_data import Role

INK, MUTED, RULE, PAPER = "#010101", "#020202", "#030303", "#0a0a0a"
ROLES: dict[Role, str] = {"fp32": "#040404", "int8": "#050505", "naive": "#060606"}
GENUINE, IMPOSTOR, KEPT = "#070707", "#080808", "#090909"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "paper",
    ROLES["fp32"]: "fp32",
    ROLES["int8"]: "int8",
    ROLES["naive"]: "naive",
    GENUINE: "genuine",
    IMPOSTOR: "impostor",
    KEPT: "kept",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kiosk",
    # A dollar sign in a name is a dollar sign.
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.6,
}


def svg_of(figure: Figure, name: str, says: str) -> str:
    """A figure as SVG to be set into the page; `says` is for whoever cannot see it."""
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    return _themed(text[text.index("<svg") :], name, says)


def _themed(svg: str, name: str, says: str) -> str:
    """The drawing with the page's colours and type, and ids that no other drawing has."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', _opening(says), svg, count=1)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r"font: (?:\w+ )*?([\d.]+)px [^;\"]*", r"font: \1px var(--type)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--type)", svg)
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg))
    wanted = {part for pair in used for part in pair if part}
    svg = re.sub(
        r' id="([^"]+)"',
        lambda found: f' id="{name}-{found[1]}"' if found[1] in wanted else "",
        svg,
    )
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)


def _opening(says: str) -> str:
    return rf'<svg class="plot" role="img" aria-label="{says}" viewBox="\1">'
