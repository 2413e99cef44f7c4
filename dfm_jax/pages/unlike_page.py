"""`score_distillation_unlike/index.html`: what becomes of pictures that a model never saw, for a person. It needs no
network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.pages import distillation_plots, html
from dfm_jax.pages.evaluation_page import page
from dfm_jax.sampling.familiarity import PARTS
from dfm_jax.visualization import pictures

COLUMNS = (
    ("context_psnr", "Context view", ".1f dB"),
    ("mode_purity", "Purity", ".1%"),
    ("agreement", "Novel views agree", ".1%"),
    ("diversity", "Diversity", ".3f"),
    ("saturation", "Saturation", ".3f"),
    ("contrast", "Contrast", ".3f"),
)


def write_page(folder: Path, result: Mapping[str, Any], shown: Mapping[str, Sequence[np.ndarray]]) -> Path:
    """Writes the page, and the plots and pictures that it shows.

    Args:
      shown: of each kind, the picture that was given, the deterministic estimate, and as many results of each method.
    """
    methods = [name for name in next(iter(result["kinds"].values())) if name != "estimate"]
    count = (len(next(iter(shown.values()))) - 2) // len(methods)
    heads = ["given", "estimate", *(name for method in methods for name in (method, *[""] * (count - 1)))]
    pictures.write_png(folder / "pictures.png", pictures.grid(list(shown.values()), heads, list(shown), side=72, gap=4))
    distillation_plots.kinds(folder / "unlike.png", result["kinds"])
    distillation_plots.over_steps(folder / "early.png", result["early"])
    rows = [((kind, name), found) for kind, of_kind in result["kinds"].items() for name, found in of_kind.items()]
    meanings = "".join(f"<dt>{name.replace('_', ' ')}</dt><dd>{escape(text)}</dd>" for name, text in PARTS.items())
    body = f"""<h1>Pictures that the model never saw</h1>
<p class="lead">{escape(verdict(result))}</p>
<img src="pictures.png" alt="What was given, and results" style="max-width:100%">
<img src="unlike.png" alt="Measures of each kind of picture" style="max-width:100%">
{html.measures(rows, COLUMNS, ["Picture", "Method"])}
<h2>How early is it seen?</h2>
<p>The area under the ROC curve, by which the scene that a step predicts tells these pictures from held-out ones: 0.5 is
guessing, 1 is certain.</p>
<img src="early.png" alt="ROC area over steps" style="max-width:100%"><dl>{meanings}</dl>
<p>All numbers: <a href="unlike.json">unlike.json</a>.</p>"""
    path = folder / "index.html"
    path.write_text(page("Unlike pictures", body), encoding="utf-8")
    return path


def verdict(result: Mapping[str, Any]) -> str:
    """By which part each kind is told best after the first step, and after the last."""
    said = []
    for kind, parts in result["early"].items():
        first, last = (max(parts, key=lambda part, at=at: parts[part][at]) for at in (0, -1))
        areas = parts[first][0], parts[last][-1]
        said.append(
            f"{kind} after the first step with {areas[0]:.2f} ({first.replace('_', ' ')}), after the last with "
            f"{areas[1]:.2f} ({last.replace('_', ' ')})"
        )
    return "ROC areas by which pictures are told from held-out ones: " + "; ".join(said) + "."
