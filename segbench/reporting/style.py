"""How figures look and how they are written: Okabe-Ito colours, png and svg with the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from segbench.core.files import write_bytes
from segbench.reporting.run import Method, MethodKey

BLUE, VERMILLION, GREY, INK = "#0072B2", "#D55E00", "#8a8a8a", "#1b1f24"
COLOURS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CONTROL_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DIVERGING = LinearSegmentedColormap.from_list("worse_better", [VERMILLION, "#f7f7f7", BLUE])
EMBED_LIMIT_BYTES = 350_000
RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.parse_math": False,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": INK,
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "svg.hashsalt": "segbench",
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Plot:
    """A rendered figure: file stem, caption, and both encodings."""

    name: str
    caption: str
    svg: bytes
    png: bytes

    @property
    def embedded(self) -> tuple[str, bytes]:
        """Return mime type and bytes for the page: svg, or png where the svg is heavy."""
        if len(self.svg) <= EMBED_LIMIT_BYTES:
            return "image/svg+xml", self.svg
        return "image/png", self.png


def method_styles(methods: Sequence[Method]) -> dict[MethodKey, dict]:
    """Return colour and marker per method; trained methods in colour, controls in grey, each pair distinct."""
    styles, trained, controls = {}, 0, 0
    for method in methods:
        if method.trained:
            colour = COLOURS[trained % len(COLOURS)]
            marker = MARKERS[(trained + trained // len(COLOURS)) % len(MARKERS)]
            trained += 1
        else:
            colour, marker = GREY, CONTROL_MARKERS[controls % len(CONTROL_MARKERS)]
            controls += 1
        styles[method.key] = {"color": colour, "marker": marker}
    return styles


def finish(figure: Figure, name: str, caption: str) -> Plot:
    """Render a figure to svg and png without dates or versions and close it."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is settled: do not solve it again for each encoding
    encodings = {}
    for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, dpi=150, metadata=metadata)
        encodings[kind] = stream.getvalue()
    plt.close(figure)
    return Plot(name, caption, encodings["svg"], encodings["png"])


def write_plot(plot: Plot, folder: Path) -> None:
    """Write NAME.svg and NAME.png."""
    write_bytes(folder / f"{plot.name}.svg", plot.svg)
    write_bytes(folder / f"{plot.name}.png", plot.png)
