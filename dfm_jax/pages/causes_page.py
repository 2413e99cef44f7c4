"""`score_distillation_causes/index.html`: what makes colours too strong, for a person. It needs no network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dfm_jax.pages import distillation_plots
from dfm_jax.pages.evaluation_page import formatted, page

# What is varied, and how the axis is called.
CAUSES = {
    "scale": ("Scale of guidance", "scale"),
    "noise": ("The noise term", "noise in the gradient, at scale 7.5"),
    "levels": ("Range and order of noise levels", "levels, shares of all"),
    "rate": ("Learning rate, and clipping by a sigmoid", "Adam's rate at first"),
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
    """Writes the page and the plots that it shows, the cause that moves colours most first."""
    truth, sections = result["truth"]["saturation"], ""
    for number, row in enumerate(result["ranking"], start=1):
        name = row["cause"]
        title, label = CAUSES[name]
        points = result["causes"][name]
        distillation_plots.cause(folder / f"{name}.png", points, result["truth"], label)
        sections += f"""<h2>{number}. {escape(title)}</h2><p>{escape(sentence(points, truth))}</p>
<img src="{name}.png" alt="Saturation and contrast" style="max-width:100%">{_table(points)}"""
    body = f"""<h1>What makes colours too strong</h1>
<p class="lead">Each possible cause alone, everything else held: {escape(order(result["ranking"]))}</p>
<p>Saturation of true images: {truth:.3f}. All numbers: <a href="causes.json">causes.json</a>.</p>
{sections}"""
    path = folder / "index.html"
    path.write_text(page("Causes of saturation", body), encoding="utf-8")
    return path


def order(ranking: Sequence[Mapping[str, Any]]) -> str:
    """The causes in one sentence, by how far each moves the saturation."""
    return "; ".join(f"{CAUSES[row['cause']][0].lower()} moves it by {row['moved']:.0%}" for row in ranking) + "."


def sentence(points: Sequence[Mapping[str, Any]], truth: float) -> str:
    """What the extremes of a cause are, and by how much they miss the truth."""
    least, most = (extreme(points, key=lambda point: point["saturation"]) for extreme in (min, max))
    said = lambda point: f"{point['saturation'] / truth:.2f} times that of true images at {_named(point)}"
    return f"Saturation goes from {said(least)} to {said(most)}."


def _named(point: Mapping[str, Any]) -> str:
    place = point["place"] if isinstance(point["place"], str) else f"{point['place']:g}"
    return f"{place} ({point['line']})"


def _table(points: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(_named(point))}</td>"
        + "".join(f"<td>{formatted(point.get(key), style)}</td>" for key, _, style in COLUMNS)
        + "</tr>"
        for point in points
    )
    heads = "".join(f"<th>{title}</th>" for _, title, _ in COLUMNS)
    return f"""<details><summary>Every number</summary>
<div class="scroll"><table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"""
