"""Plots as PNG files."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from dfm_jax.evaluation.calibration.honest_draws import expected_total_variation
from dfm_jax.visualization.figures import Axes, Figure, FigureCanvasAgg, LogFormatter

# Okabe and Ito's, which those who do not see red and green apart tell from each other; and shapes besides.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def total_variation_over_steps(path: Path, records: Sequence[Mapping[str, Any]], odds: Sequence[float]) -> None:
    """A line a sampler and spacing; in grey where as many samples of the true odds would lie on average."""
    figure, (axes,) = new_figure(1, (6.4, 3.6))
    _over_steps(axes, records, [r["total_variation"] for r in records])
    expected = expected_total_variation(records[0]["num_samples"], odds)
    axes.axhline(expected, color="0.6", ls="--", label="samples of the true odds")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("total variation to the true odds")
    axes.legend(frameon=False)
    save_figure(figure, path)


def distance_over_steps(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """The distance to each of the long solutions, and how many samples chose as the published one did; in each panel a
    line a sampler and spacing."""
    panels = {
        ("to_uniform", "psnr"): ("To 250 steps even in time, as published", "PSNR of samples, median, dB"),
        ("to_log-snr", "psnr"): ("To 250 steps even in log-SNR", "PSNR of samples, median, dB"),
        ("to_uniform", "same"): ("Samples that chose as 250 steps did", "share"),
    }
    figure, every = new_figure(len(panels), (14.0, 3.9))
    for axes, ((name, measure), (title, label)) in zip(every, panels.items(), strict=True):
        _over_steps(axes, records, [r[name][measure] for r in records])
        axes.set_title(title)
        axes.set_ylabel(label)
    every[-1].legend(frameon=False)
    save_figure(figure, path)


def quality_over_speed(path: Path, records: Sequence[Mapping[str, Any]], honest: float | None) -> None:
    """Quality over how many times as fast samples are: a panel a measure, a point a way to sample, with its range over
    seeds; the first is what the others are compared with. Dashed what as many samples of the true odds come to."""
    titles = {
        "psnr": "Samples against nothing left out, dB",
        "total_variation": "Total variation to the true odds",
        "purity": "Samples of one colour",
        "novel_view_agreement": "Novel views that agree",
        "context_psnr": "Context view, rendered, dB",
    }
    shown = {name: title for name, title in titles.items() if name in records[0]}
    figure, every = new_figure(-(-(len(shown) + 1) // 2), (15.0, 8.0), rows=2)
    for axes, (name, title) in zip(every, shown.items(), strict=False):
        for number, record in enumerate(records):
            if name == "psnr" and not number:
                continue  # of samples against themselves
            values = [each[name] for each in record["of_seeds"]]
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)]
            label = f"{number}: {record['name']}"
            axes.plot([record["speed"]] * 2, [min(values), max(values)], color=colour, lw=1)
            axes.plot(record["speed"], record[name], marker, color=colour, label=label)
            place = {"xytext": (5, 4), "textcoords": "offset points", "fontsize": 8}
            axes.annotate(str(number), (record["speed"], record[name]), **place)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("times as fast")
        if name == "total_variation" and honest is not None:
            axes.axhline(honest, color="0.6", ls="--")
    last = list(shown).index("context_psnr")
    for axes in every[len(shown) :]:
        axes.axis("off")
    every[-1].legend(*every[last].get_legend_handles_labels(), loc="center", frameon=False, fontsize=8)
    save_figure(figure, path)


def few_steps(path: Path, records: Sequence[Mapping[str, Any]], honest: float | None) -> None:
    """Quality against time: a panel a measure, in it a line a sampler; numbers of steps beside the points. Dashed what
    as many samples of the true odds come to, if they are known."""
    titles = {
        "total_variation": "Total variation to the true odds",
        "purity": "Samples of one colour",
        "novel_view_agreement": "Novel views that agree",
        "context_psnr": "Context view, rendered, dB",
    }
    shown = {name: title for name, title in titles.items() if all(name in record for record in records)}
    figure, every = new_figure(len(shown), (4.2 * len(shown), 4.0))
    for axes, (name, title) in zip(every, shown.items(), strict=True):
        for colour, marker, kind in zip(cycle(COLOURS[1:]), cycle(MARKERS), dict.fromkeys(r["name"] for r in records)):
            mine = sorted((r for r in records if r["name"] == kind), key=lambda r: r["num_steps"])
            times, values = [1e3 * r["seconds"] for r in mine], [r[name] for r in mine]
            axes.plot(times, values, marker=marker, color=colour, alpha=0.85, label=kind)
            for record, x, y in zip(mine, times, values, strict=True):
                axes.annotate(str(record["num_steps"]), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(LogFormatter())  # few of them where there are many
        axes.set_xlabel("milliseconds a sample")
        axes.set_title(title, fontsize=11)
    if honest is not None and "total_variation" in shown:
        every[0].axhline(honest, color="0.6", ls="--", label="samples of the true odds")
    every[0].legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def _over_steps(axes: Axes, records: Sequence[Mapping[str, Any]], values: Sequence[float]) -> None:
    kinds = list(dict.fromkeys((r["sampler"], r["spacing"]) for r in records))
    samplers, spacings = ([*dict.fromkeys(names)] for names in zip(*kinds, strict=True))
    for sampler, spacing in kinds:
        colour = COLOURS[1:][samplers.index(sampler) % len(COLOURS[1:])]
        marker = MARKERS[spacings.index(spacing) % len(MARKERS)]
        mine = [i for i, r in enumerate(records) if (r["sampler"], r["spacing"]) == (sampler, spacing)]
        steps = [records[i]["num_steps"] for i in mine]
        axes.plot(steps, [values[i] for i in mine], marker=marker, color=colour, label=f"{sampler}, {spacing}")
    steps = sorted({r["num_steps"] for r in records})
    axes.set_xscale("log")
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.minorticks_off()
    axes.set_xlabel("sampling steps")


def guidance(path: Path, measured: Mapping[str, Sequence[Mapping[str, float]]], truth: Mapping[str, float]) -> None:
    """A panel a measure, in it a line a cure over the scale of guidance; dashed what is wanted: of colours what true
    images have, of diversity that of samples without guidance."""
    unguided = next(point for points in measured.values() for point in points if point["scale"] == 1)
    panels = {
        "saturation": ("Saturation", "colours burn above the line"),
        "contrast": ("Contrast", "harsh above the line"),
        "diversity": ("Diversity", "samples are too alike below the line"),
        "context_psnr": ("Context view, rendered", "dB; more is better"),
        "scene_psnr": ("Scene against guided image", "dB; more is better"),
    }
    wanted = {**truth, "diversity": unguided["diversity"]}
    figure, (*every, last) = new_figure(3, (11.5, 6.6), rows=2)
    for axes, (name, (title, meaning)) in zip(every, panels.items(), strict=True):
        for colour, marker, (cure, points) in zip(cycle(COLOURS), cycle(MARKERS), measured.items(), strict=False):
            scales, values = ([point[key] for point in points] for key in ("scale", name))
            axes.plot(scales, values, marker=marker, ms=5, lw=1.5, color=colour, alpha=0.9, label=cure)
        if name in wanted:
            axes.axhline(wanted[name], color="0.45", ls="--", label="wanted: as in true images,\nor without guidance")
        axes.set_xscale("log")
        axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
        axes.minorticks_off()
        axes.set_title(title, fontsize=11, fontweight="bold", loc="left", pad=20)
        axes.text(0, 1.02, meaning, transform=axes.transAxes, fontsize=9, color="0.35")
        axes.set_xlabel("scale of guidance")
    last.axis("off")
    last.legend(*every[0].get_legend_handles_labels(), loc="center", frameon=False, title="Cure", alignment="left")
    save_figure(figure, path)


def new_figure(count: int, size: tuple[float, float], rows: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """`count` panels in each of `rows` rows; without pyplot, which keeps figures and may look for a screen."""
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, count, squeeze=False).ravel()
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    figure.savefig(path)
