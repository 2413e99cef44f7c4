"""`score_distillation/index.html`: what sampling and score distillation make of the same scores, for a person. It needs
no network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.pages import distillation_plots, html
from dfm_jax.pages.evaluation_page import page
from dfm_jax.visualization import pictures

Methods = Mapping[str, Mapping[str, Any]]

# Name, what it is called, its format.
COLUMNS = (
    ("total_variation", "Total variation", ".3f"),
    ("mode_purity", "Purity", ".1%"),
    ("saturation", "Saturation", ".3f"),
    ("contrast", "Contrast", ".3f"),
    ("diversity", "Diversity", ".3f"),
    ("agreement", "Novel views agree", ".1%"),
    ("context_psnr", "Context view", ".1f dB"),
    ("mean_error", "Mean, error", ".3f"),
    ("covariance_error", "Covariance, error", ".3f"),
    ("evaluations", "Evaluations", "d"),
    ("seconds", "Seconds", ".1f"),
)
MEANING = """<dl><dt>Total variation</dt><dd>of the hidden colours that results show, to their odds of 0.5, 0.3 and 0.2:
0 equal, 1 disjoint.</dd><dt>Purity</dt><dd>share of results whose hidden side shows one colour cleanly.</dd>
<dt>Saturation, contrast</dt><dd>of HSV, and the standard deviation of grey values; wanted are those of true
images.</dd><dt>Diversity</dt><dd>standard deviation over the results behind one picture.</dd>
<dt>Novel views agree</dt><dd>share of novel views of the scene behind a result that show its hidden colour.</dd>
<dt>Context view</dt><dd>PSNR of that scene, rendered at the photograph's camera.</dd>
<dt>Mean, covariance</dt><dd>of signals with a known posterior: distance of the results' mean in standard deviations,
and relative error of their covariance, where 1 is no variance at all.</dd>
<dt>Evaluations</dt><dd>of the denoiser, for each result.</dd><dt>Seconds</dt><dd>of all results together, but for
compiling.</dd></dl>"""
TITLES = {"methods": "The picture itself", "methods_3d": "A scene, rendered at random cameras"}


def write_page(folder: Path, result: Mapping[str, Any], shown: Mapping[str, Sequence[Sequence[np.ndarray]]]) -> Path:
    """Writes the page, and the plots and pictures that it shows.

    Args:
      result: `methods`, and `methods_3d` if there are some, each by the name of the method; what `truth` looks like;
        and what `honest` draws of the odds would score.
      shown: of a target, a row of pictures a method, in the order of the methods, after a row that has what was given.
    """
    sections = ""
    for target, title in TITLES.items():
        if not (methods := result.get(target)):
            continue
        figure = ""
        if "saturation" in next(iter(methods.values())):
            distillation_plots.methods(folder / f"{target}.png", methods, result["truth"], result.get("honest"))
            figure = f'<img src="{target}.png" alt="Measures of each method" style="max-width:100%">'
        sections += f"<h2>{title}</h2>\n{figure}\n{_table(methods, result)}\n{_sheet(folder, target, methods, shown)}"
    body = f"""<h1>Why distillation burns and sampling does not</h1>
<p class="lead">{escape(verdict(result))}</p>
<p>One trained denoiser (step {result["step"]}), used in every way: sampled, or asked for gradients on what is
optimised. All numbers: <a href="score_distillation.json">score_distillation.json</a>.</p>
{sections}
<h2>What the numbers mean</h2>{MEANING}"""
    path = folder / "index.html"
    path.write_text(page("Score distillation", body), encoding="utf-8")
    return path


def verdict(result: Mapping[str, Any]) -> str:
    """What was found, in one or two sentences that only say what was measured."""
    methods, honest = result.get("methods") or result.get("methods_3d") or {}, result.get("honest")
    if not honest or not all("total_variation" in found for found in methods.values()):
        return "Whether a method keeps a distribution shows in the error of the covariance: 1 is no variance at all."
    keeps = [name for name, found in methods.items() if found["total_variation"] <= honest["limit"]]
    truth = result["truth"]["saturation"]
    burns = [name for name, found in methods.items() if found["saturation"] > 1.1 * truth]
    kept = (
        f"{_listed(keeps)} kept the odds, as honest draws do in 95 % of experiments" if keeps else "None kept the odds"
    )
    burnt = (
        f"{_listed(burns)} made colours more than a tenth stronger than true ones" if burns else "none burnt colours"
    )
    return f"{kept}; {burnt}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _table(methods: Methods, result: Mapping[str, Any]) -> str:
    columns = [column for column in COLUMNS if any(column[0] in found for found in methods.values())]
    wanted = dict(result.get("truth", {})) | {"total_variation": result.get("honest", {}).get("total_variation")}
    return html.measures(
        [([name], found) for name, found in {**methods, "wanted": wanted}.items()], columns, ["Method"]
    )


def _sheet(folder: Path, target: str, methods: Methods, shown: Mapping[str, Sequence[Sequence[np.ndarray]]]) -> str:
    if not (rows := shown.get(target)):
        return ""
    width = max(map(len, rows))
    filled = [[*row, *[None] * (width - len(row))] for row in rows]
    sheet = pictures.grid(filled, [""] * width, ["given, truth", *methods], side=72, gap=4)
    pictures.write_png(folder / f"{target}-pictures.png", sheet)
    return f"""<h3>Results</h3><p>Behind two photographs, a row a method: no result was chosen.</p>
<img src="{target}-pictures.png" alt="Results of each method" style="max-width:100%">"""
