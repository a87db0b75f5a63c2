"""One look for all figures: legible in print, safe for the colour-blind, every line told apart twice."""

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe and Ito's palette, dark enough on white; yellow is left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
}


def style():
    """The context in which every figure is drawn: `with style(): ...`."""
    return mpl.rc_context(STYLE)


def line_style(index: int) -> dict:
    """Colour and dash of the index-th line, so that grey print tells lines apart too."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def subplots(rows: int, columns: int, width: float = 7.0, height: float = 2.6, **kwargs) -> tuple[Figure, list]:
    """A figure without pyplot's global state, and its axes as a flat list; width in inches, height per row."""
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, list(axes.flat)
