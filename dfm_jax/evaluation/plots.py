"""Plots as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dfm_jax.evaluation.evaluation_results import honest_total_variation

COLOURS = matplotlib.colormaps["tab10"].colors


def total_variation_over_steps(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """A line a sampler; in grey where as many honest draws would lie on average."""
    figure, (axes,) = _figure(1, (6.4, 3.6))
    for colour, sampler in zip(COLOURS, dict.fromkeys(r["sampler"] for r in records), strict=False):
        points = [(r["num_steps"], r["total_variation"]) for r in records if r["sampler"] == sampler]
        axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=sampler)
    axes.axhline(honest_total_variation(records[0]["num_samples"]), color="0.6", ls="--", label="honest draws")
    steps = sorted({r["num_steps"] for r in records})
    axes.set_xscale("log")
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("sampling steps")
    axes.set_ylabel("total variation to the true odds")
    axes.legend(frameon=False)
    _save(figure, path)


def _figure(count: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    """Without pyplot, which keeps figures and may look for a screen."""
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path)
