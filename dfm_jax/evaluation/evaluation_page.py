"""`evaluation/index.html`: what an evaluation found, for a person. It needs no network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.data.builders import toy
from dfm_jax.evaluation import plots, visualize
from dfm_jax.evaluation.evaluation_results import SceneStore, honest_total_variation, scene_row
from dfm_jax.evaluation.report_style import CSS
from dfm_jax.evaluation.scene_scores import SceneScores
from dfm_jax.evaluation.toy_modes import NAMES

SCENES_SHOWN = 6
SAMPLES_SHOWN = 6

# Name, what it is called, its format, and what it means.
EXPLAINED = (
    ("context_psnr", "Given view again", ".1f dB", "the sampled scene rendered where the given image was taken"),
    ("psnr", "PSNR", ".1f dB", "against the true views; low for a good sample that differs from the truth"),
    ("ssim", "SSIM", ".3f", "structure, 1 is equal"),
    ("lpips", "LPIPS", ".3f", "perceived difference, 0 is equal"),
    ("estimate_psnr", "Best guess, PSNR", ".1f dB", "the model's deterministic estimate; it scores by being blurred"),
    ("depth_error", "Depth error", ".3f", "mean difference of distances, units of the scene"),
    ("reprojection", "Reprojection error", ".2f px", "a pixel carried to another view by its depth, and back"),
    ("reprojection_colour", "Colour there", ".3f", "root mean square difference of a point's colours in two views"),
    ("contradicted", "Contradicted", ".1%", "points of one view that another one looks through"),
    ("scene_psnr", "Scene against drawn image", ".1f dB", "the sampled scene where diffusion drew an image of it"),
    ("pairwise_lpips", "Diversity, LPIPS", ".3f", "between samples of one scene"),
    ("variance", "Diversity, variance", ".4f", "over samples, mean over pixels"),
    ("fid", "FID", ".1f", "distance of distributions; needs thousands of images to compare with published ones"),
    ("kid", "KID", ".4f", "the same, unbiased for few images"),
    ("vgg_fid", "VGG-FID", ".2f", "as FID with features of VGG16: compares with its like only"),
    ("vgg_kid", "VGG-KID", ".4f", "as KID with features of VGG16: compares with its like only"),
)


def write_page(store: SceneStore, result: Mapping[str, Any], scores: Sequence[SceneScores]) -> Path:
    """Writes the page, its pictures and plots beside the numbers."""
    sections = [_opening(result)]
    if "total_variation" in result:
        sections.append(_odds(result))
    if result["sweep"]:
        plots.total_variation_over_steps(store.folder / "sweep.png", result["sweep"])
        sections.append(_sweep(result["sweep"]))
    sections += [_numbers(result), _pictures(store, scores), _scenes(scores), _missing(result), _settings(result)]
    path = store.folder / "index.html"
    path.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation</title><style>{CSS}</style></head>\n<body><main>\n{''.join(sections)}</main></body></html>\n",
        encoding="utf-8",
    )
    return path


def _opening(result: Mapping[str, Any]) -> str:
    return f"""<h1>Evaluation</h1>
<p class="lead">{result["num_samples"]} sampled scenes, {result["settings"]["num_samples"]} behind each of
{result["num_scenes"]} images, by the model after {result["step"]} training steps. All numbers:
<a href="metrics.json">metrics.json</a>, <a href="scenes.csv">a row a scene</a>, and a table for each scene in
<code>scenes/</code>; the views are those of <a href="protocol.json">protocol.json</a>.</p>
"""


def _odds(result: Mapping[str, Any]) -> str:
    shares = [result[f"share_{i}"] for i in range(len(NAMES))]
    bars = "".join(
        f'<span><span class="swatch" style="background:{name}"></span>{name}</span><span class="bar">'
        f'<i style="width:{100 * share:.1f}%;background:{name}"></i><u style="left:{100 * odds:.1f}%"></u>'
        f"<span>{share:.1%} of {result['num_samples']}, true odds {odds:.0%}</span></span>"
        for name, share, odds in zip(NAMES, shares, toy.HIDDEN_PROBABILITIES, strict=True)
    )
    return f"""<h2>Are the odds right?</h2>
<p>The side that the given image hides is red, green or blue by lot. Samples of a calibrated model follow the lot, and
each decides for one colour.</p>
<ul class="facts">
<li><b>{result["total_variation"]:.3f}</b>total variation between the colours drawn and the true odds; honest draws, as
many, differ by {result["total_variation_of_honest_draws"]:.3f} on average</li>
<li><b>{result["mode_purity"]:.1%}</b>of the samples are of one colour: nine tenths of the hidden pixels or more</li>
<li><b>{_format(result["novel_view_agreement"], ".1%")}</b>of {result["num_novel_views"]} further views of the samples
show the colour that the sampled view shows</li>
</ul>
<div class="bars">{bars}</div>
"""


def _sweep(records: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(r['sampler'])}</td><td>{escape(r['spacing'])}</td><td>{r['num_steps']}</td><td>{r['total_variation']:.3f}</td>"
        f"<td>{r['mode_purity']:.1%}</td></tr>"
        for r in records
    )
    count = records[0]["num_samples"]
    return f"""<h2>How many steps do the odds need?</h2>
<p>With few steps DDIM favours the likelier colours, even with a perfect model. {count} samples behind each point:
honest draws would lie at about {honest_total_variation(count):.3f}.</p>
<img src="sweep.png" alt="Total variation over sampling steps" style="max-width:100%">
<div class="scroll"><table><thead><tr><th>Sampler</th><th>Spacing</th><th>Steps</th>
<th>Total variation</th><th>Purity</th></tr></thead>
<tbody>{rows}</tbody></table></div>
"""


def _numbers(result: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td>{escape(title)}</td><td>{_format(result[name], style)}</td>"
        f"<td>{_format(result.get(f'{name}_best'), style)}</td>"
        f'<td style="text-align:left;white-space:normal">{escape(text)}</td></tr>'
        for name, title, style, text in EXPLAINED
        if result.get(name) is not None
    ]
    return f"""<h2>Numbers</h2>
<p>Means over scenes: of the mean over a scene's samples, and of its best sample by that measure.</p>
<div class="scroll"><table><thead><tr><th></th><th>Mean</th><th>Best of {result["settings"]["num_samples"]}</th>
<th style="text-align:left">What it is</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>
"""


def _pictures(store: SceneStore, scores: Sequence[SceneScores]) -> str:
    """The first scenes: what was given, samples at the sampled view and at another, best guess and truth."""
    rows: list[list[np.ndarray | None]] = []
    shown = min(SAMPLES_SHOWN, len(scores[0].psnr))
    for index in range(min(SCENES_SHOWN, len(scores))):
        images = store.images(index)
        for view in range(min(2, len(images["truth"]))):
            first = view == 0
            samples = list(images["samples"][:shown, view])
            given, guess = (images["context"][0], images["estimate"]) if first else (None, None)
            rows.append([given, *samples, guess, images["truth"][view]])
    columns = ["given", *(f"sample {j + 1}" for j in range(shown)), "best guess", "truth"]
    sheet = visualize.grid(rows, columns, side=96)
    visualize.write_png(store.folder / "samples.png", sheet)
    return f"""<h2>Samples</h2>
<p>Two rows a scene: the view that was sampled, and another view of the same samples.</p>
<img src="samples.png" alt="Samples" style="max-width:100%;width:{sheet.shape[1]}px">
"""


def _scenes(scores: Sequence[SceneScores]) -> str:
    shown = [(name, title, style) for name, title, style, _ in EXPLAINED if hasattr(scores[0], name)]
    shown = [cell for cell in shown if scene_row(scores[0])[cell[0]] is not None]
    head = "".join(f"<th>{escape(title)}</th>" for _, title, _ in shown)
    rows = "".join(
        f"<tr><td>{escape(scene.name)}</td>"
        + "".join(f"<td>{_format(scene_row(scene)[name], style)}</td>" for name, _, style in shown)
        + "</tr>"
        for scene in scores
    )
    return f"""<details><summary>Every scene</summary>
<div class="scroll"><table><thead><tr><th>Scene</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>
"""


def _missing(result: Mapping[str, Any]) -> str:
    lines = [f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in result["left_out"].items()]
    lines += [f"<li>scene {escape(s['scene'])}: {escape(s['reason'])}</li>" for s in result["skipped"]]
    if not lines:
        return "<p>Nothing was skipped or left out.</p>\n"
    return f"""<h2>Skipped and left out</h2>
<p>{len(result["skipped"])} examples of the index file were skipped.</p><ul>{"".join(lines)}</ul>
"""


def _settings(result: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in result["settings"].items())
    return f"""<details><summary>Settings</summary>
<div class="scroll"><table><tbody>{rows}</tbody></table></div></details>
"""


def _format(value: float | None, style: str) -> str:
    """By a format with an optional unit behind a space; nothing for what is not known."""
    number, _, unit = style.partition(" ")
    return "" if value is None else f"{value:{number}}" + (f"&nbsp;{unit}" if unit else "")
