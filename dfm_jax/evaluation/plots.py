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
    """A line a sampler and spacing; in grey where as many honest draws would lie on average."""
    figure, (axes,) = _figure(1, (6.4, 3.6))
    _over_steps(axes, records, [r["total_variation"] for r in records])
    axes.axhline(honest_total_variation(records[0]["num_samples"]), color="0.6", ls="--", label="honest draws")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("total variation to the true odds")
    axes.legend(frameon=False)
    _save(figure, path)


def distance_over_steps(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """A panel for each of the long solutions, in it a line a sampler and spacing."""
    titles = {"to_uniform": "to 250 steps even in time, as published", "to_log-snr": "to 250 steps even in log-SNR"}
    figure, every = _figure(len(titles), (11.0, 3.9))
    for axes, (name, title) in zip(every, titles.items(), strict=True):
        _over_steps(axes, records, [r[name]["psnr"] for r in records])
        axes.set_title(title)
        axes.set_ylabel("PSNR of samples, median, dB")
    every[0].legend(frameon=False)
    _save(figure, path)


def _over_steps(axes: Axes, records: Sequence[Mapping[str, Any]], values: Sequence[float]) -> None:
    kinds = list(dict.fromkeys((r["sampler"], r["spacing"]) for r in records))
    for colour, (sampler, spacing) in zip(COLOURS, kinds, strict=False):
        mine = [i for i, r in enumerate(records) if (r["sampler"], r["spacing"]) == (sampler, spacing)]
        steps = [records[i]["num_steps"] for i in mine]
        axes.plot(steps, [values[i] for i in mine], marker="o", color=colour, label=f"{sampler}, {spacing}")
    steps = sorted({r["num_steps"] for r in records})
    axes.set_xscale("log")
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.minorticks_off()
    axes.set_xlabel("sampling steps")


def guidance(path: Path, measured: Mapping[str, Sequence[Mapping[str, float]]], truth: Mapping[str, float]) -> None:
    """A panel a measure, in it a line a cure over the scale of guidance; dashed what the true images have."""
    panels = {
        "saturation": "saturation",
        "contrast": "contrast",
        "diversity": "diversity of samples",
        "scene_psnr": "scene against drawn image, dB",
    }
    figure, every = _figure(len(panels), (15.0, 3.9))
    for axes, (name, title) in zip(every, panels.items(), strict=True):
        for colour, (cure, points) in zip(COLOURS, measured.items(), strict=False):
            scales, values = ([point[key] for point in points] for key in ("scale", name))
            axes.plot(scales, values, marker="o", ms=4, color=colour, label=cure)
        if name in truth:
            axes.axhline(truth[name], color="0.5", ls="--", label="true images")
        axes.set_xscale("log")
        axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
        axes.minorticks_off()
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("guidance scale")
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
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
