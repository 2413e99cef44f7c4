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
        places = list(dict.fromkeys(point["place"] for point in points))
        if all(isinstance(place, float) and place > 0 for place in places):
            axes.set_xscale("log")
            axes.set_xticks(places, [f"{place:g}" for place in places])
            axes.minorticks_off()
        if any(isinstance(point["place"], str) for point in points):
            axes.tick_params(axis="x", labelrotation=20)
    if len(lines) > 1:
        every[0].legend(frameon=False)
    save_figure(figure, path)


def kinds(path: Path, measured: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """A panel a measure, in it a group of bars a kind of picture, a bar a method."""
    panels = {"context_psnr": "Context view, dB", "mode_purity": "Purity", "diversity": "Diversity"}
    names = list(dict.fromkeys(name for found in measured.values() for name in found))
    figure, every = new_figure(3, (12.0, 1.2 + 0.55 * len(measured)))
    height = 0.8 / len(names)
    for axes, (measure, title) in zip(every, panels.items(), strict=True):
        for i, name in enumerate(names):
            values = [found[name].get(measure, 0.0) for found in measured.values()]
            places = [k + (i - (len(names) - 1) / 2) * height for k in range(len(measured))]
            axes.barh(places, values, height=0.9 * height, color=COLOURS[(1 + i) % len(COLOURS)], label=name)
        axes.set_yticks(range(len(measured)), list(measured))
        axes.invert_yaxis()
        axes.set_title(title, fontsize=11, fontweight="bold", loc="left")
    every[-1].legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def over_steps(path: Path, areas: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """A panel a part, in it a line a kind of picture: the area under the ROC curve after each step."""
    parts = list(next(iter(areas.values())))
    figure, every = new_figure(len(parts), (12.0, 3.6))
    for axes, part in zip(every, parts, strict=True):
        for i, (kind, found) in enumerate(areas.items()):
            style = {"marker": MARKERS[i % len(MARKERS)], "color": COLOURS[i % len(COLOURS)], "label": kind}
            axes.plot(range(1, len(found[part]) + 1), found[part], ms=4, **style)
        axes.axhline(0.5, color="0.6", ls="--")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("sampling step")
        axes.set_title(part.replace("_", " ").capitalize(), fontsize=11, fontweight="bold", loc="left")
    every[-1].legend(frameon=False, fontsize=8)
    save_figure(figure, path)
