"""The page of `make demo`: the same photographs, answered by a model trained here for two minutes and by one that was
trained for longer."""

import json
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from dfm_jax.errors import UserError
from dfm_jax.pages.html import swatch, table
from dfm_jax.pages.style import CSS, SYNCHRONISED_VIDEOS

SAMPLES_SHOWN = 6


def write_demo_page(folder: Path, runs: Mapping[str, Path]) -> Path:
    """Writes `folder/index.html` about folders of samples, {heading: folder that --mode=sample wrote}; of the same
    scenes, the shortest training first.

    Raises:
      UserError: a folder holds no samples, or those of other scenes.
    """
    sampled = {heading: _read(samples) for heading, samples in runs.items()}
    names = [[scene["name"] for scene in summary["scenes"]] for summary in sampled.values()]
    if any(other != names[0] for other in names):
        raise UserError("the demo's models were sampled on different scenes: sample both with the same data and seed")
    to = {heading: os.path.relpath(samples, folder) for heading, samples in runs.items()}
    scenes = "\n".join(_scene(i, name, sampled, to) for i, name in enumerate(names[0]))
    path = folder / "index.html"
    path.write_text(_page(f"{_opening(sampled)}\n{_three_dimensional(sampled, to)}\n{scenes}\n{_numbers(sampled, to)}"))
    return path


def _read(samples: Path) -> dict[str, Any]:
    path = samples / "samples.json"
    if not path.is_file():
        raise UserError(f"{samples} holds no samples: run --mode=sample with --out={samples} first")
    return json.loads(path.read_text(encoding="utf-8"))


def _page(body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>dfm_jax: the demo</title>
<style>{CSS}
iframe {{ width: 100%; height: 30rem; border: 1px solid var(--line); border-radius: 12px; }}
.side {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1.2rem; }}</style>
</head>
<body>
<main>
{body}
</main>
<script>{SYNCHRONISED_VIDEOS}</script>
</body>
</html>
"""


def _opening(sampled: Mapping[str, dict[str, Any]]) -> str:
    first, *_ = sampled.values()
    trained = " and ".join(f"{escape(heading)} ({summary['step']} steps)" for heading, summary in sampled.items())
    return f"""<h1>One image, many possible scenes</h1>
<p class="lead">A model that only ever saw posed images samples whole 3D scenes from one of them (outlined in blue). The
front of each box is seen; its back is red, green or blue, and the image does not tell. {len(first["scenes"])} images,
each answered by two models: {trained}. After two minutes of training, shapes are there and colours begin to be decided;
longer training makes each sample choose one colour, as often as it occurs, and the pictures sharp.</p>"""


def _three_dimensional(sampled: Mapping[str, dict[str, Any]], to: Mapping[str, str]) -> str:
    """The page in 3D of the first scene that has one, of each run, beside each other."""
    pages = {
        heading: next((scene["page_in_3d"] for scene in summary["scenes"] if scene["page_in_3d"]), "")
        for heading, summary in sampled.items()
    }
    shown = "".join(
        f'<div><h3>{escape(heading)}</h3><iframe src="{escape(to[heading])}/{escape(page)}" '
        f'title="sampled scenes in 3D, {escape(heading)}"></iframe></div>'
        for heading, page in pages.items()
        if page
    )
    if not shown:
        return ""
    return f'<h2>In 3D <span class="soft">turn them with the mouse</span></h2><div class="side">{shown}</div>'


def _scene(index: int, name: str, sampled: Mapping[str, dict[str, Any]], to: Mapping[str, str]) -> str:
    heading, *_ = sampled
    context = f"{to[heading]}/{sampled[heading]['scenes'][index]['contexts'][0]}"
    rows = "".join(
        f"<h3>{escape(heading)}</h3><div class='tiles'>{_tiles(summary, index, to[heading])}</div>"
        for heading, summary in sampled.items()
    )
    return f"""<section class="scene"><h3>Scene {index + 1} <span class="soft">{escape(name)}</span></h3>
<div class="turning"><div class="given"><figure><img src="{escape(context)}" alt="">
<figcaption>Context view<small>what the models see</small></figcaption></figure></div>
<div>{rows}</div></div></section>"""


def _tiles(summary: dict[str, Any], index: int, to: str) -> str:
    samples = summary["scenes"][index]["samples"][:SAMPLES_SHOWN]
    hidden = summary["hidden"]["seen"][index] if summary["hidden"] else [""] * len(samples)
    return "".join(
        f'<figure><video src="{escape(to)}/{escape(sample["rgb_video"])}" '
        f'poster="{escape(to)}/{escape(sample["poster"])}" muted loop autoplay playsinline></video>'
        f"<figcaption>{swatch(colour) if colour else 'mixed'}</figcaption></figure>"
        for sample, colour in zip(samples, hidden, strict=False)
    )


def _numbers(sampled: Mapping[str, dict[str, Any]], to: Mapping[str, str]) -> str:
    header = [
        "",
        "steps",
        "context view again",
        "of the samples decide on one colour",
        "total variation to the odds",
        "",
    ]
    rows = [
        [
            escape(heading),
            f"{summary['step']}",
            f"{summary['context_psnr']:.1f} dB" if summary["context_psnr"] is not None else "",
            f"{summary['hidden']['purity']:.0%}" if summary["hidden"] else "",
            f"{summary['hidden']['total_variation']:.2f}" if summary["hidden"] else "",
            f'<a href="{escape(to[heading])}/index.html">its page</a>',
        ]
        for heading, summary in sampled.items()
    ]
    return f"<h2>What longer training does</h2>{table(rows, header)}"
