"""How plots look: fonts, and a color, marker and dash per method that color-blind readers can tell apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_hex, to_rgb

from semiseg.report.results import Entry

# Okabe and Ito's palette, for lines and names on white: without black, which is near the bounds' gray, its
# sky blue and orange darkened, and purple instead of yellow.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#3D9FD8", "#C98A00", "#882255")
MARKERS = "osD^vPX"
GRAY = "#555555"
LEGIBLE = 4.5  # contrast of text to its background that WCAG asks for
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))

RC: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "pdf.fonttype": 42,  # text stays text, which journals ask for
}


@dataclass(frozen=True)
class Look:
    """The color, marker and dash of a method in every plot."""

    color: str
    marker: str
    dash: Any

    @property
    def ink(self) -> str:
        """The color for words: as dark as white paper needs."""
        red, green, blue = to_rgb(self.color)
        shades = (to_hex((share * red, share * green, share * blue)) for share in np.linspace(1, 0, 101))
        return next(shade for shade in shades if contrast(shade, "white") >= LEGIBLE)

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of a line with markers."""
        return {
            "color": self.color,
            "marker": self.marker,
            "linestyle": self.dash,
            "linewidth": 1.4,
            "markersize": 4.5,
        }


def contrast(color: str, other: str) -> float:
    """From 1 for equal colors to 21 for black and white, as WCAG 2 defines it."""

    def luminance(name: str) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(name)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(color), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def looks(entries: Sequence[Entry]) -> dict[str, Look]:
    """A look per method: bounds are gray, the others differ in color first, in marker and dash after."""
    out, index, bounds = {}, 0, 0
    for entry in entries:
        if entry.role == "upper bound":
            out[entry.name] = Look(GRAY, "o", DASHES[0])
            continue
        if entry.role == "lower bound":
            out[entry.name] = Look(GRAY, MARKERS[bounds % len(MARKERS)], DASHES[1 + bounds % 2])
            bounds += 1
            continue
        turn = index // len(COLORS)
        out[entry.name] = Look(
            COLORS[index % len(COLORS)],
            MARKERS[(index + 3 * turn) % len(MARKERS)],
            DASHES[turn % len(DASHES)],
        )
        index += 1
    return out
