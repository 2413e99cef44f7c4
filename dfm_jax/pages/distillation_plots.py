"""Plots of score distillation as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfm_jax.pages.plots import COLOURS, MARKERS, new_figure, save_figure

PANELS = {
    "total_variation": ("Total variation to the odds", "0 is honest"),
    "mode_purity": ("Purity", "share of results of one colour"),
    "diversity": ("Diversity", "results are too alike below sampling's"),
    "saturation": ("Saturation", "colours burn above the line"),
    "contrast": ("Contrast", "harsh above the line"),
    "context_psnr": ("Context view, rendered", "dB; more is better"),
}


def methods(
    path: Path,
    measured: Mapping[str, Mapping[str, Any]],
    truth: Mapping[str, float],
    honest: Mapping[str, float] | None,
) -> None:
    """A panel a measure, in it a bar a method; dashed what true images have, or what honest draws of the odds stay
    below."""
    panels = {name: text for name, text in PANELS.items() if any(name in found for found in measured.values())}
    wanted = dict(truth) | ({"total_variation": honest["limit"]} if honest else {})
    figure, every = new_figure(3, (12.0, 1.8 + 0.46 * len(measured)), rows=-(-len(panels) // 3))
    names = list(measured)
    for axes, (name, (title, meaning)) in zip(every, panels.items(), strict=False):
        axes.barh(names, [measured[each].get(name, 0.0) for each in names], color=COLOURS[1], height=0.7)
        axes.invert_yaxis()
        if name in wanted:
            axes.axvline(wanted[name], color=COLOURS[2], ls="--")
        axes.set_title(title, fontsize=11, fontweight="bold", loc="left", pad=20)
        axes.text(0, 1.03, meaning, transform=axes.transAxes, fontsize=9, color="0.35")
    for axes in every[len(panels) :]:
        axes.axis("off")
    save_figure(figure, path)


def cause(path: Path, points: Sequence[Mapping[str, Any]], truth: Mapping[str, float], label: str) -> None:
    """Saturation, contrast and diversity over the places of a cause, a line each that it has; dashed those of true
    images."""
    lines = list(dict.fromkeys(point["line"] for point in points))
    figure, every = new_figure(3, (12.0, 3.4))
    for axes, name in zip(every, ("saturation", "contrast", "diversity"), strict=True):
        for i, line in enumerate(lines):
            mine = [point for point in points if point["line"] == line]
            values = [point[name] for point in mine]
            style = {"marker": MARKERS[i % len(MARKERS)], "color": COLOURS[1 + i % (len(COLOURS) - 1)], "label": line}
            axes.plot([point["place"] for point in mine], values, **style)
        if name in truth:
            axes.axhline(truth[name], color="0.45", ls="--", label="true images")
        axes.set_title(name.capitalize(), fontsize=11, fontweight="bold", loc="left")
        axes.set_xlabel(label)
        axes.set_ylim(bottom=0)
        if all(isinstance(point["place"], float) and point["place"] > 0 for point in points):
            axes.set_xscale("log")
        if any(isinstance(point["place"], str) for point in points):
            axes.tick_params(axis="x", labelrotation=20)
    if len(lines) > 1:
        every[0].legend(frameon=False)
    save_figure(figure, path)
