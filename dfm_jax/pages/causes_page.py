"""`score_distillation_causes/index.html`: what makes colours too strong, for a person. It needs no network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dfm_jax.pages import distillation_plots, html
from dfm_jax.pages.evaluation_page import page

# What is varied, and how the axis is called.
CAUSES = {
    "scale": ("Scale of guidance", "scale"),
    "noise": ("The noise term", "noise in the gradient, at scale 7.5"),
    "levels": ("Range and order of noise levels", "levels, shares of all"),
    "rate": ("Learning rate, and clipping by a sigmoid", "Adam's rate, of the usual one"),
    "parallel": ("Part of guidance along the prediction", "share that is kept"),
    "mean": ("The mean of a mixture", "without guidance"),
    "field": ("Background and density of the field", "grey of the background, or bias of the density"),
    "marching": ("Noise along rays", ""),
}
COLUMNS = (
    ("saturation", "Saturation", ".3f"),
    ("contrast", "Contrast", ".3f"),
    ("diversity", "Diversity", ".3f"),
    ("mode_purity", "Purity", ".1%"),
    ("total_variation", "Total variation", ".3f"),
)


def write_page(folder: Path, result: Mapping[str, Any]) -> Path:
    """Writes the page and the plots that it shows, the cause with a line that burns most first."""
    truth, sections = result["truth"], ""
    for number, row in enumerate(result["ranking"], start=1):
        name = row["cause"]
        title, label = CAUSES[name]
        points = result["causes"][name]
        distillation_plots.cause(folder / f"{name}.png", points, result["truth"], label)
        sections += f"""<h2>{number}. {escape(title)}</h2><p>{escape(sentence(points, truth))}</p>
<img src="{name}.png" alt="Saturation and contrast" style="max-width:100%">{_table(points)}"""
    body = f"""<h1>What makes colours too strong</h1>
<p class="lead">Each possible cause alone, everything else held. {escape(order(result["ranking"]))}</p>
<p>Saturation of true images: {truth["saturation"]:.3f}, contrast: {truth["contrast"]:.3f}. All numbers:
<a href="causes.json">causes.json</a>.</p>
{sections}"""
    path = folder / "index.html"
    path.write_text(page("Causes of saturation", body), encoding="utf-8")
    return path


def order(ranking: Sequence[Mapping[str, Any]]) -> str:
    """The causes in one sentence, by the burn of a line of each, and between which of its places that is."""

    def said(row: Mapping[str, Any]) -> str:
        alone = f"saturation alone by {row['saturation']:.0%}, contrast alone by {row['contrast']:.0%}"
        return f"{row['line']}: by {row['burn']:.0%} from {_place(row['from'])} to {_place(row['to'])}; {alone}"

    each = (f"{CAUSES[row['cause']][0].lower()} ({said(row)})" for row in ranking)
    return "What adds to colours beyond the true ones, the most first: " + "; ".join(each) + "."


def sentence(points: Sequence[Mapping[str, Any]], truth: Mapping[str, float]) -> str:
    """What the extremes of a cause are, and by how much they miss the truth."""

    def of(name: str) -> str:
        least, most = (extreme(points, key=lambda point: point[name]) for extreme in (min, max))
        return f"{name} from {_said(least, name, truth)} to {_said(most, name, truth)}"

    return f"Relative to true images, {of('saturation')}; {of('contrast')}."


def _said(point: Mapping[str, Any], name: str, truth: Mapping[str, float]) -> str:
    return f"{point[name] / truth[name]:.2f} at {_named(point)}"


def _named(point: Mapping[str, Any]) -> str:
    return f"{_place(point['place'])} ({point['line']})"


def _place(place: float | str) -> str:
    return place if isinstance(place, str) else f"{place:g}"


def _table(points: Sequence[Mapping[str, Any]]) -> str:
    table = html.measures([([_named(point)], point) for point in points], COLUMNS, [""])
    return f"<details><summary>Every number</summary>{table}</details>"
