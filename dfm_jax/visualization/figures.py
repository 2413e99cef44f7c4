"""matplotlib, of which only colours and files are wanted.

It does not start where MPLBACKEND, which a notebook hands on to every command it starts, names what is not installed
here. Pictures need none of it; a notebook's own figures still get it where it is there.
"""

import contextlib
import os

VARIABLE = "MPLBACKEND"

_chosen = os.environ.pop(VARIABLE, "")
try:
    from matplotlib import colormaps, rcParams
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter
finally:
    if _chosen:
        os.environ[VARIABLE] = _chosen
if _chosen:
    with contextlib.suppress(ValueError):
        rcParams["backend"] = _chosen

__all__ = ["Axes", "Figure", "FigureCanvasAgg", "LogFormatter", "colormaps"]
