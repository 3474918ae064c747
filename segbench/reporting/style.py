"""How figures look and how they are written: fixed colours, column widths, the same bytes every time."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from segbench.core.files import write_bytes
from segbench.core.run_record import Method
from segbench.core.vocabulary import SCRATCH

BLUE, VERMILLION, GREY, INK = "#0072B2", "#D55E00", "#767676", "#1b1f24"
COLOURS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CONTROL_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DIVERGING = LinearSegmentedColormap.from_list("worse_better", [VERMILLION, "#f7f7f7", BLUE])
SHADES = LinearSegmentedColormap.from_list("fraction", ["#ffffff", BLUE])
EMBED_LIMIT_BYTES = 350_000
logging.getLogger("fontTools").setLevel(logging.WARNING)  # one line per font and figure otherwise
KINDS = ("svg", "png", "pdf")
"""Encodings of every figure: vectors for the page and for papers, dots for slides."""
HASHED = re.compile(rb'(?<=["#])(?:[a-z]|C[0-9a-f]+_[0-9a-f]+_|image)[0-9a-f]{10}(?=[")])')
"""Name of a path or image that Matplotlib's SVG defines for use in other places: a kind and ten digits of a hash."""
Width = Literal["single", "double"]
WIDTH_MM: dict[Width, float] = {"single": 88.0, "double": 180.0}
"""Widths of one and two columns of a journal's page; figures are drawn at the size at which they are printed."""
SMALLEST_PT = 7.0
"""No text of a figure is smaller, so that it can be read in print."""
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": SMALLEST_PT,
    "text.parse_math": False,
    "axes.titlesize": SMALLEST_PT,
    "axes.labelsize": SMALLEST_PT,
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
    "xtick.labelsize": SMALLEST_PT,
    "ytick.color": INK,
    "ytick.labelsize": SMALLEST_PT,
    "legend.frameon": False,
    "legend.fontsize": SMALLEST_PT,
    "savefig.facecolor": "white",
    "svg.hashsalt": "segbench",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
Style = dict[str, str]
StyleKey = tuple[str, str, str]


@dataclass(frozen=True)
class Plot:
    """A rendered figure: file stem, caption, column width and its encodings."""

    name: str
    caption: str
    width: Width
    svg: bytes
    png: bytes
    pdf: bytes

    @property
    def embedded(self) -> tuple[str, bytes]:
        """Return mime type and bytes for the page: svg, or png where the svg is heavy."""
        if len(self.svg) <= EMBED_LIMIT_BYTES:
            return "image/svg+xml", self.svg
        return "image/png", self.png


def method_styles(methods: Iterable[Method]) -> dict[StyleKey, Style]:
    """Return colour and marker of every method of a run, by (experiment, model, initialisation).

    A method keeps its colour and marker through the whole page: pre-trained weights have those of the model that they
    come from, and "from scratch" those of the same network upstream. Within an experiment no two methods share both.
    Controls are grey.

    Args:
        methods: all methods and self-supervised objectives of the run, in the order of run.json.
    """
    styles: dict[StyleKey, Style] = {}
    known: dict[str, Style] = {}
    trained = controls = 0
    for method in methods:
        subject = _subject(method)
        taken = [styles[key] for key in styles if key[0] == method.experiment]
        if subject not in known or known[subject] in taken:
            if method.trained:
                known[subject] = _style(trained)
                trained += 1
            else:
                known[subject] = {"color": GREY, "marker": CONTROL_MARKERS[controls % len(CONTROL_MARKERS)]}
                controls += 1
        styles[method.experiment, *method.key] = known[subject]
    return styles


def task_styles(names: Iterable[str]) -> dict[str, Style]:
    """Return colour and marker of every task by its name: the same in all figures of a run.

    Args:
        names: names of all tasks of the run, in the order of run.json; a name may come again.
    """
    return {name: _style(i) for i, name in enumerate(dict.fromkeys(names))}


def _style(number: int) -> Style:
    """Return colour and marker number 0, 1, ...; the first 49 differ."""
    marker = MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
    return {"color": COLOURS[number % len(COLOURS)], "marker": marker}


def _subject(method: Method) -> str:
    """Return the model whose colour a method has: for pre-trained weights the one that they come from."""
    if method.kind == "transfer" and method.initialisation != SCRATCH:
        return method.initialisation
    return method.model


def ink_on(background: Any) -> str:
    """Return INK or white, whichever has more contrast on a colour by the relative luminance of WCAG 2."""
    paper, ink = _luminance(background) + 0.05, _luminance(INK) + 0.05
    return INK if paper * paper > 1.05 * ink else "white"


def _luminance(colour: Any) -> float:
    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def new_figure(width: Width, height_inches: float, **options):
    """Return a figure and its axes at a journal's column width; options are those of `pyplot.subplots`."""
    return plt.subplots(figsize=(WIDTH_MM[width] / 25.4, height_inches), layout="constrained", **options)


@contextmanager
def fixed_jitter() -> Iterator[None]:
    """Let seaborn draw the same jitter every time: it takes it from numpy's global generator, which is put back."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def finish(figure: Figure, name: str, caption: str, *, width: Width = "double") -> Plot:
    """Render a figure to svg, png and pdf without dates or versions and close it."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is settled: do not solve it again for each encoding
    encodings = {}
    for kind, metadata in (
        ("svg", {"Date": None, "Creator": None}),
        ("png", {"Software": None}),
        ("pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
    ):
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, dpi=200, metadata=metadata)
        encodings[kind] = stream.getvalue()
    plt.close(figure)
    encodings["svg"] = numbered(encodings["svg"])
    return Plot(name, caption, width, **encodings)


def numbered(svg: bytes) -> bytes:
    """Return a figure whose shared parts are numbered in their order.

    Matplotlib names them by a hash of coordinates that are not rounded yet, which differ between processors.
    """
    names: dict[bytes, bytes] = {}
    return HASHED.sub(lambda found: names.setdefault(found[0], b"part%d" % (len(names) + 1)), svg)


def write_plot(plot: Plot, folder: Path) -> None:
    """Write NAME.svg, NAME.png and NAME.pdf."""
    for kind in KINDS:
        write_bytes(folder / f"{plot.name}.{kind}", getattr(plot, kind))
