"""The page of models whose signals are no scenes: numbers, sampled observations, and pictures of the signals."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.pages.html import table
from dfm_jax.pages.style import CSS, SYNCHRONISED_VIDEOS
from dfm_jax.visualization import pictures

# A sheet of plots is no square picture of few pixels, as those of scenes are.
AS_IT_IS = "width:auto; max-width:100%; aspect-ratio:auto; image-rendering:auto; background:none"
PICTURES = "pictures"  # the folder of pictures and videos of signals
MOST_PICTURED = 6  # samples of each example

Pictured = Mapping[str, np.ndarray]  # of `PicturedSignals.pictures`


def write_page(folder: Path, title: str, numbers: Mapping[str, Any], sheet: str, pictured: Pictured) -> None:
    """`index.html` in `folder`, with the pictures and videos that it shows, in `folder/pictures`.

    Args:
      sheet: a picture in `folder` of sampled observations.
      pictured: pictures of signals, none if they cannot be looked at.

    Raises:
      UserError: a video cannot be written.
    """
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{value:.4g}</td></tr>"
        for name, value in numbers.items()
        if isinstance(value, int | float)
    )
    body = f"<h1>{html.escape(title)}</h1><table>{rows}</table>{_odds(numbers)}<h2>Samples of the target</h2>"
    body += f'<figure><img src="{html.escape(sheet)}" style="{AS_IT_IS}" alt=""></figure>'
    if pictured:
        (folder / PICTURES).mkdir()
        examples = range(len(next(iter(pictured.values()))))
        body += "<h2>The sampled signals</h2>" + "".join(_example(folder, i, pictured) for i in examples)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{CSS}</style>'
    script = f"<script>{SYNCHRONISED_VIDEOS}</script>" if "<video" in body else ""
    page = f"<!doctype html><html>{head}<body><main>{body}</main>{script}</body></html>\n"
    (folder / "index.html").write_text(page, encoding="utf-8")


def _odds(numbers: Mapping[str, Any]) -> str:
    """A table for each discrete attribute of `numbers`: what share of samples has each value, and how many should."""
    of_odds = {
        name: each for name, each in numbers.items() if isinstance(each, dict) and {"shares", "odds"} <= each.keys()
    }
    tables = ""
    for name, each in of_odds.items():
        percent = lambda value: f"{100 * value:.1f} %"
        rows = [
            (html.escape(value), percent(each["shares"][value]), percent(each["odds"][value])) for value in each["odds"]
        ]
        tables += f"<h2>Odds: {html.escape(name)}</h2>" + table(rows, ("value", "samples", "odds"))
    return tables


def _example(folder: Path, example: int, pictured: Pictured) -> str:
    """What is shown of one example: a row for each caption."""
    rows = ""
    for number, (caption, images) in enumerate(pictured.items()):
        shown = images[example]
        stem = f"{PICTURES}/{example:02d}_{number}"
        one = shown.shape[0] == 1
        figures = [
            _figure(folder, f"{stem}_{j}", image, caption if one else f"{caption} {j + 1}")
            for j, image in enumerate(shown)
        ]
        rows += "".join(figures) if one else f'</div><div class="tiles" style="margin-top:1rem">{"".join(figures)}'
    return f'<section class="scene"><h3>Example {example + 1}</h3><div class="tiles">{rows}</div></section>'


def _figure(folder: Path, stem: str, image: np.ndarray, caption: str) -> str:
    """Writes a picture [h, w, 3] or a video [t, h, w, 3], and shows it; videos are looped."""
    text = html.escape(caption)
    if image.ndim == 4:
        pictures.write_video(folder / f"{stem}.mp4", image)
        shown = f'<video autoplay loop muted playsinline src="{stem}.mp4" aria-label="{text}"></video>'
    else:
        pictures.write_png(folder / f"{stem}.png", pictures.enlarge(image))
        shown = f'<img src="{stem}.png" alt="{text}">'
    return f"<figure>{shown}<figcaption>{text}</figcaption></figure>"
