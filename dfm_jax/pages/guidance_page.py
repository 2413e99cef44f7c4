"""`guidance/index.html`: what guidance does, and which cure to take, for a person. It needs no network."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dfm_jax.pages.evaluation_page import page
from dfm_jax.pages.html import formatted

Measured = Mapping[str, Sequence[Mapping[str, float]]]  # points over the scale of each cure

COLUMNS = (
    ("saturation", ".3f"),
    ("contrast", ".3f"),
    ("diversity", ".3f"),
    ("context_psnr", ".1f dB"),
    ("scene_psnr", ".1f dB"),
    ("distance", ".3f"),
)


def distance(point: Mapping[str, float], wanted: Mapping[str, float]) -> float:
    """How far saturation, contrast and diversity are from what is wanted, on average: 0.1 is a tenth too much or too
    little of each."""
    return sum(abs(math.log(max(point[name], 1e-6) / max(x, 1e-6))) for name, x in wanted.items()) / len(wanted)


def ranking(measured: Measured, truth: Mapping[str, float]) -> list[dict[str, Any]]:
    """At each scale above 1 the cures by their distance, the best first.

    Wanted are saturation and contrast of the true images, and the diversity of samples without guidance.
    """
    unguided = next(point for points in measured.values() for point in points if point["scale"] == 1)
    wanted = {**truth, "diversity": unguided["diversity"]}
    scales = [point["scale"] for point in next(iter(measured.values())) if point["scale"] != 1]
    ranks = []
    for scale in scales:
        points = {cure: next(p for p in points if p["scale"] == scale) for cure, points in measured.items()}
        distances = {cure: distance(point, wanted) for cure, point in points.items()}
        order = sorted(distances, key=distances.__getitem__)
        ranks.append({"scale": scale, "best": order[0], "distance": {cure: distances[cure] for cure in order}})
    return ranks


def advice(ranks: Sequence[Mapping[str, Any]], cures: Mapping[str, Mapping[str, float]]) -> str:
    """The cure to take, as a sentence: of all the one with the smallest mean distance over the scales."""
    means = {cure: sum(rank["distance"][cure] for rank in ranks) / len(ranks) for cure in cures}
    best, plain = min(means, key=means.__getitem__), means["none"]
    if best == "none":
        return f"Take none: without a cure samples stay nearest to true images (distance {plain:.3f} on average)."
    flags = " ".join(f"--config.sample.{name}={value:g}" for name, value in cures[best].items())
    return f"Take {best} ({flags}): its distance is {means[best]:.3f} on average, without a cure {plain:.3f}."


def write_page(folder: Path, result: Mapping[str, Any]) -> Path:
    """Writes the page beside the plots that it shows."""
    gain = "".join(
        f"<tr><td>{rank['scale']:g}</td><td>{escape(rank['best'])}</td>"
        + "".join(f"<td>{rank['distance'][cure]:.3f}</td>" for cure in result["cures"])
        + "</tr>"
        for rank in result["ranking"]
    )
    heads = "".join(f"<th>{escape(cure)}</th>" for cure in result["cures"])
    body = f"""<h1>What guidance does, and which cure to take</h1>
<p class="lead">{escape(result["advice"])}</p>
<p>Guidance makes samples follow the context view more strongly than training taught. What it costs is seen in colours
(saturation and contrast beyond those of true images) and in variety (samples of one image become alike, though the
image leaves them open). {result["num_samples"]} samples behind each of {result["num_scenes"]} images, all from the same
noise, by the model after {result["step"]} training steps. All numbers: <a href="guidance.json">guidance.json</a>.</p>
<img src="guidance.png" alt="Measures over the scale of guidance" style="max-width:100%">
<h2>How far from true images?</h2>
<p>Distance: saturation and contrast against true images, and diversity against samples without guidance, as the mean
size of the logarithm of their ratios; 0.1 is a tenth too much or too little of each.</p>
<div class="scroll"><table><thead><tr><th>Scale</th><th>Best</th>{heads}</tr></thead><tbody>{gain}</tbody></table></div>
<h2>Samples</h2>
<p>Behind one image, from the same noise: a row a cure, the scale grows to the right.</p>
<img src="guidance_samples.png" alt="Samples of each cure at each scale" style="max-width:100%">
{_every_number(result)}"""
    path = folder / "index.html"
    path.write_text(page("Guidance", body), encoding="utf-8")
    return path


def _every_number(result: Mapping[str, Any]) -> str:
    distances = {rank["scale"]: rank["distance"] for rank in result["ranking"]}
    rows = ""
    for cure, points in result["measured"].items():
        for point in points:
            known = {**point, "distance": distances.get(point["scale"], {}).get(cure)}
            cells = "".join(f"<td>{formatted(known[name], style)}</td>" for name, style in COLUMNS)
            rows += f"<tr><td>{escape(cure)}</td><td>{point['scale']:g}</td>{cells}</tr>"
    names = "".join(f"<th>{name.replace('_', ' ')}</th>" for name, _ in COLUMNS)
    truth = " and ".join(f"{name} {value:.3f}" for name, value in result["truth"].items())
    return f"""<details><summary>Every number</summary><p>True images: {truth}.</p>
<div class="scroll"><table><thead><tr><th>Cure</th><th>Scale</th>{names}</tr></thead><tbody>{rows}</tbody></table></div>
</details>
"""
