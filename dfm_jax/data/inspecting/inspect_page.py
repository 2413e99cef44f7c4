"""The page of `inspect`, one file with everything in it."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape

from dfm_jax.data.inspecting.inspect_scene import Panel, SceneReport
from dfm_jax.data.inspecting.inspect_style import CSS, SCRIPT
from dfm_jax.data.preparing import pose_conventions

MAX_REASONS = 12


def render(
    name: str,
    counts: Mapping[str, tuple[int, int]],
    scenes: Sequence[SceneReport],
    rejections: Mapping[str, int],
) -> str:
    """HTML.

    Args:
      counts: scenes and frames of each split.
      rejections: how often each reason is in the quarantine file.
    """
    sections = [_scene(i, scene) for i, scene in enumerate(scenes)]
    # Between script tags only '<' can end them.
    data = json.dumps([scene.viewer for scene in scenes]).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)}: cameras and pictures</title>
<style>{CSS}</style>
</head>
<body>
<main>
{_opening(name, counts, scenes)}
{"".join(sections)}
{_rejections(rejections)}
</main>
<script type="application/json" id="scenes">{data}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _opening(name: str, counts: Mapping[str, tuple[int, int]], scenes: Sequence[SceneReport]) -> str:
    splits = "; ".join(
        f"{escape(split)}: {_count(number, 'scene')}, {_count(frames, 'frame')}"
        for split, (number, frames) in counts.items()
    )
    rows = "".join(
        f'<tr><td><a href="#scene-{i}">{escape(scene.name)}</a></td><td>{escape(scene.split)}</td>'
        f"<td>{scene.num_frames}</td><td>{_pixels(scene.error_pixels)}</td><td>{len(scene.warnings)}</td>"
        f"<td>{_judgement(scene)}</td></tr>"
        for i, scene in enumerate(scenes)
    )
    total = sum(number for number, _ in counts.values())
    shown = ""
    if len(scenes) < total:
        shown = f" {_count(len(scenes), 'scene')} of {total} are shown; --scene=NAME shows others."
    return f"""<h1>{escape(name)}</h1>
<p class="soft">{splits}.{shown}</p>
<p>What to look for: frusta that point at the coloured points, with the small triangle on their upper side; and rings
that lie on lines of their own colour.</p>
<div class="scroll"><table><thead><tr><th>Scene</th><th>Split</th><th>Frames</th><th>Epipolar error</th>
<th>Warnings</th><th></th></tr></thead><tbody>{rows}</tbody></table></div>"""


def _judgement(scene: SceneReport) -> str:
    if scene.verdict.mistake:
        return '<span class="pill bad">poses are wrong</span>'
    if math.isnan(scene.verdict.error):
        return '<span class="pill unsure">too little could be matched</span>'
    if not scene.verdict.right:
        return '<span class="pill bad">cameras and pictures disagree</span>'
    if scene.verdict.error > pose_conventions.GOOD:
        return '<span class="pill unsure">cameras are inexact</span>'
    return '<span class="pill good">cameras agree with the pictures</span>'


def _scene(index: int, scene: SceneReport) -> str:
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in scene.warnings)
    return f"""<section class="scene" id="scene-{index}" data-scene="{index}">
<h2>{escape(scene.name)} <span class="soft">{escape(scene.split)}</span> {_judgement(scene)}</h2>
{f'<ul class="warnings">{warnings}</ul>' if warnings else ""}
{_facts(scene)}
<div class="space"><div class="view"><canvas></canvas><small>drag to turn, wheel to zoom, click a camera</small></div>
<figure class="chosen"><img alt=""><figcaption></figcaption></figure></div>
<div class="thumbnails"></div>
<h3>Points and their epipolar lines <span class="soft">the same point must lie on the line of its colour</span></h3>
{"".join(map(_panel, scene.panels))}
{_more(scene)}
</section>"""


def _facts(scene: SceneReport) -> str:
    bounded = math.isfinite(scene.near) and math.isfinite(scene.far)
    focused = math.isfinite(scene.focus_distance)
    facts = [
        (_pixels(scene.error_pixels), "median epipolar error"),
        (str(scene.num_frames), f"frames of {scene.size}x{scene.size} pixels"),
        (str(len(scene.holes)) if scene.knows_numbers else "unknown", "frames of the source that were quarantined"),
        (f"{scene.near:.3g} to {scene.far:.3g}" if bounded else "not stored", "near and far"),
        (f"{scene.focus_distance:.3g}" if focused else "no one place", "distance to what the cameras look at"),
        (f"{scene.scale:.3g}", "scale: stored units per unit of the source"),
    ]
    return '<ul class="facts">' + "".join(f"<li><b>{value}</b>{text}</li>" for value, text in facts) + "</ul>"


def _panel(panel: Panel) -> str:
    figures = "".join(
        f'<figure><img src="{uri}" alt=""><figcaption>{escape(caption)}</figcaption></figure>'
        for uri, caption in panel.pictures
    )
    return f'<div class="panel">{figures}</div>'


def _more(scene: SceneReport) -> str:
    pairs = "".join(
        f"<tr><td>{escape(pair.first)}</td><td>{escape(pair.second)}</td><td>{pair.matches}</td>"
        f"<td>{_pixels(pair.error_pixels)}</td></tr>"
        for pair in scene.pairs
    )
    holes = "".join(
        f"<tr><td>{hole.number}</td><td>{escape(hole.name)}</td><td>{escape(hole.reason)}</td></tr>"
        for hole in scene.holes
    )
    quarantined = (
        '<div class="scroll"><table><thead><tr><th>Number</th><th>Quarantined frame</th><th>Reason</th></tr></thead>'
        f"<tbody>{holes}</tbody></table></div>"
        if holes
        else ""
    )
    attributes = escape(json.dumps(scene.attributes, indent=1))
    return f"""<details><summary>All pairs, and what the source says</summary>
<div class="scroll"><table><thead><tr><th>View</th><th>Other view</th><th>Points</th><th>Median error</th></tr></thead>
<tbody>{pairs}</tbody></table></div>{quarantined}<pre>{attributes}</pre></details>"""


def _rejections(rejections: Mapping[str, int]) -> str:
    if not rejections:
        return ""
    usual = sorted(rejections.items(), key=lambda entry: -entry[1])
    rows = "".join(f"<tr><td>{escape(reason)}</td><td>{count}</td></tr>" for reason, count in usual[:MAX_REASONS])
    others = f"<p class='soft'>and {len(usual) - MAX_REASONS} other reasons</p>" if len(usual) > MAX_REASONS else ""
    total = sum(rejections.values())
    return f"""<h2>Not in the data set</h2>
<p>When the source was prepared, {_count(total, "scene or frame", "scenes and frames")} of it did not pass:</p>
<div class="scroll"><table><tbody>{rows}</tbody></table></div>{others}"""


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _pixels(value: float) -> str:
    return f"{value:.2f}&nbsp;px" if math.isfinite(value) else "&ndash;"
