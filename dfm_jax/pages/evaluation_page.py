"""`evaluation/index.html`: what an evaluation found, for a person. It needs no network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.evaluation.calibration.honest_draws import expected_total_variation
from dfm_jax.evaluation.extent import Extent
from dfm_jax.evaluation.index_layouts import NONE_LISTED
from dfm_jax.evaluation.scene_store import StoredScenes
from dfm_jax.evaluation.scores import SceneScores
from dfm_jax.evaluation.summary import scene_row
from dfm_jax.pages import odds_section, plots, protocol_section, uncertainty_section
from dfm_jax.pages.explained_measures import EXPLAINED, OF_SAMPLES_ONLY
from dfm_jax.pages.html import formatted
from dfm_jax.pages.style import CSS
from dfm_jax.visualization import pictures

FOREGROUND = """ <b>Against true views the foreground alone counts</b>, by the masks of the data set: PSNR, AUSE, AURC
and coverage are of its pixels; SSIM, LPIPS and DISTS of pictures that are black outside of it, the sampled ones by the
same masks. A view without any foreground does not count. All else, such as FID, consistency and diversity, is of whole
pictures."""
SCENES_SHOWN = 6
SAMPLES_SHOWN = 6

SCENES_LISTED = 200  # with their numbers

SKIPPED_SHOWN = 50
LONGEST_LABEL = 24  # letters of a scene's name beside its pictures


def write_page(folder: Path, store: StoredScenes, result: Mapping[str, Any], scores: Sequence[SceneScores]) -> Path:
    """Writes the page, its pictures and plots to `folder`, where the numbers are."""
    sections = [_opening(result)]
    if result["protocol"]:
        sections.append(protocol_section.section(result["protocol"]))
    if result.get("total_variation") is not None:
        sections.append(odds_section.section(result))
    if result["sweep"]:
        plots.total_variation_over_steps(folder / "sweep.png", result["sweep"], result["odds"])
        sections.append(_sweep(result["sweep"], result["settings"]["sweep_samples"], result["odds"]))
    sections += [_pictures(folder, store, result, scores), _numbers(result)]
    sections += [uncertainty_section.section(result), _scenes(result, scores)]
    sections += [_missing(result), _settings(result)]
    path = folder / "index.html"
    path.write_text(page("Evaluation", "".join(sections)), encoding="utf-8")
    return path


def page(title: str, body: str) -> str:
    """A whole HTML file."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body><main>\n{body}</main></body></html>\n"
    )


def _opening(result: Mapping[str, Any]) -> str:
    count, scenes = result["settings"]["num_samples"], result["num_scenes"]
    if result["deterministic"]:
        lead = f"""One scene behind each of {scenes} images: this is pixelNeRF, without diffusion, which is
deterministic. What the image does not show is the mean of all possibilities."""
    else:
        lead = f"{result['num_samples']} sampled scenes, {count} behind each of {scenes} images."
    if result["extent"] is None and scenes < (asked := result["settings"]["num_scenes"]):
        lead += f" {asked} images were asked for; there are no more."
    facts = [
        (
            result["context_psnr"],
            ".1f dB",
            "agreement of the rendered scenes with the context view",
        )
    ]
    facts.append((result["psnr"], ".1f dB", "agreement with the true target views, from which a sample may differ"))
    if count > 1:
        facts.append(
            (result["psnr_best"], ".1f dB", f"the same for the best of {count} samples: is the truth among them?")
        )
    facts.append((result["reprojection"], ".2f px", "reprojection error between the views of one scene"))
    items = "".join(f"<li><b>{formatted(x, style)}</b>{text}</li>" for x, style, text in facts if x is not None)
    return f"""<h1>Evaluation{_holes(result)}</h1>
<p class="lead">{lead}</p>
<ul class="facts">{items}</ul>
<p class="soft">The model after {result["step"]} training steps, averaged parameters. All numbers:
<a href="metrics.json">metrics.json</a>, <a href="scenes.csv">a row a scene</a>, and a table for each scene below; the
views are those of <a href="protocol.json">protocol.json</a>.</p>
"""


def _holes(result: Mapping[str, Any]) -> str:
    """How the headline goes on where not all of an index file was evaluated."""
    holes = Extent(**result["extent"]).headline() if result["extent"] else ""
    return f" with holes: {escape(holes)}" if holes else ""


def _sweep(records: Sequence[Mapping[str, Any]], asked: int, odds: Sequence[float]) -> str:
    rows = "".join(
        f"<tr><td>{escape(r['sampler'])}</td><td>{escape(r['spacing'])}</td><td>{r['num_steps']}</td><td>{r['total_variation']:.3f}</td>"
        f"<td>{r['mode_purity']:.1%}</td></tr>"
        for r in records
    )
    count = records[0]["num_samples"]
    others = f" (of {asked}; the others show too little of the hidden side)" if count < asked else ""
    honest = expected_total_variation(count, odds)
    return f"""<h2>How many steps do the odds need?</h2>
<p>With few steps DDIM favours the likelier cases, even with a perfect model. {count} samples behind each
point{others}: samples of the true odds would lie at about {honest:.3f}.</p>
<img src="sweep.png" alt="Total variation over sampling steps" style="max-width:100%">
<div class="scroll"><table><thead><tr><th>Sampler</th><th>Spacing</th><th>Steps</th>
<th>Total variation</th><th>Purity</th></tr></thead>
<tbody>{rows}</tbody></table></div>
"""


def _numbers(result: Mapping[str, Any]) -> str:
    count = result["settings"]["num_samples"]
    rows = "".join(
        f"<tr><td>{escape(title)}</td><td>{formatted(result[name], style)}</td>"
        + (f"<td>{formatted(result.get(f'{name}_best'), style)}</td>" if count > 1 else "")
        + f'<td class="text">{escape(text)}</td></tr>'
        for name, title, style, text in _shown(result, result)
    )
    best = f"<th>Best of {count}</th>" if count > 1 else ""
    how = ": of the mean over a scene's samples, and of its best sample by that measure" if count > 1 else ""
    return f"""<h2>Numbers</h2>
<p>Means over scenes{how}.{_registered(result)}{_foreground(result)}</p>
<div class="scroll"><table><thead><tr><th></th><th>Mean</th>{best}<th class="text">What it is</th></tr></thead>
<tbody>{rows}</tbody></table></div>
"""


def _foreground(result: Mapping[str, Any]) -> str:
    """What the numbers are of where masks were respected."""
    return FOREGROUND if result["settings"].get("masks") == "respect" else ""


def _registered(result: Mapping[str, Any]) -> str:
    """Of how many scenes the camera errors are, where they were asked for."""
    if (asked := result.get("num_camera_samples")) is None:
        return ""
    return (
        f" Structure-from-motion registered {result['num_camera_samples_registered']} of {asked} sampled scenes: the "
        "camera errors are of these, and say nothing of the others."
    )


def _shown(result: Mapping[str, Any], numbers: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Measures that are known of `numbers`, and mean something."""
    left_out = OF_SAMPLES_ONLY if result["deterministic"] else ()
    return [row for row in EXPLAINED if numbers.get(row[0]) is not None and row[0] not in left_out]


def _pictures(folder: Path, store: StoredScenes, result: Mapping[str, Any], scores: Sequence[SceneScores]) -> str:
    """The first scenes: context view, truth, samples at the target view and at a novel view, deterministic estimate."""
    rows: list[list[np.ndarray | None]] = []
    labels, shown = [], min(SAMPLES_SHOWN, len(scores[0].psnr))
    for index in range(min(SCENES_SHOWN, len(scores))):
        images = store.images(index)
        for view in range(2):
            shown_here, first = view < len(images["truth"]), view == 0
            cells = [images["context"][0] if first else None, images["truth"][view] if shown_here else None]
            cells += [image[view] if shown_here else None for image in images["samples"][:shown]]
            rows.append(cells if result["deterministic"] else [*cells, images["estimate"] if first else None])
            labels.append(shortened(scores[index].name) if first else "novel view" if shown_here else "")
    which = f"The first {SCENES_SHOWN} of {len(scores)} scenes. " if len(scores) > SCENES_SHOWN else ""
    if shown < len(scores[0].psnr):
        which += f"The first {shown} of {len(scores[0].psnr)} samples. "
    columns = ["context", "truth", *(f"sample {j + 1}" for j in range(shown)), "estimate"]
    if result["deterministic"]:
        columns = ["context", "truth", "answer"]
    sheet = pictures.grid(rows, columns, labels, side=96, rows_together=2)
    pictures.write_png(folder / "samples.png", sheet)
    return f"""<h2>Samples</h2>
<p>{which}Two rows a scene: the target view, and a novel view of the same scenes. A sample may differ from the truth
in what the context view does not show, but not from itself between the two rows.</p>
<img src="samples.png" alt="Samples" style="max-width:100%;width:{sheet.shape[1]}px">
"""


def shortened(name: str) -> str:
    """A scene's name, as a label beside its pictures."""
    return name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 3] + "..."


def _scenes(result: Mapping[str, Any], scores: Sequence[SceneScores]) -> str:
    numbers = [scene_row(scores[i]) for i in range(min(SCENES_LISTED, len(scores)))]
    known = {name: x for row in numbers for name, x in row.items() if x is not None}
    shown = _shown(result, known)
    head = "".join(f"<th>{escape(title)}</th>" for _, title, _, _ in shown)
    rows = "".join(
        f'<tr><td><a href="scenes/{index:05d}.csv">{escape(row["scene"])}</a></td>'
        + "".join(f"<td>{formatted(row[name], style)}</td>" for name, _, style, _ in shown)
        + "</tr>"
        for index, row in enumerate(numbers)
    )
    which = "Every scene"
    if len(numbers) < len(scores):
        which = f'The first {len(numbers)} of {len(scores)} scenes; all are in <a href="scenes.csv">scenes.csv</a>'
    return f"""<details><summary>{which}</summary>
<div class="scroll"><table><thead><tr><th>Scene</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>
"""


def _missing(result: Mapping[str, Any]) -> str:
    skipped = [s for s in result["skipped"] if s["kind"] != NONE_LISTED]
    lines = [f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in result["left_out"].items()]
    lines += [f"<li>scene {escape(s['scene'])}: {escape(s['reason'])}</li>" for s in skipped[:SKIPPED_SHOWN]]
    if len(skipped) > SKIPPED_SHOWN:
        lines.append(f"<li>and {len(skipped) - SKIPPED_SHOWN} more, which metrics.json lists</li>")
    without = len(result["skipped"]) - len(skipped)
    if not lines and not without:
        return "<p>Nothing was skipped or left out.</p>\n"
    counted = (
        "1 example of the index file was" if len(skipped) == 1 else f"{len(skipped)} examples of the index file were"
    )
    count = f"{counted} skipped. " if skipped else ""
    if without:
        count += f"The index file itself has no example of {without} of its scenes, which is no hole."
    count = f"<p>{count}</p>" if count else ""
    listed = f"<ul>{''.join(lines)}</ul>" if lines else ""
    return f"<h2>Skipped and left out</h2>\n{count}{listed}\n"


def _settings(result: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in result["settings"].items())
    return f"""<details><summary>Settings</summary>
<div class="scroll"><table><tbody>{rows}</tbody></table></div></details>
"""
