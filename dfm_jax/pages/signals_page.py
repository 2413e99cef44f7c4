"""The page of models whose signals are no scenes: numbers, and pictures of sampled observations."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfm_jax.pages.style import CSS

# A sheet of plots is no square picture of few pixels, as those of scenes are.
AS_IT_IS = "width:auto; max-width:100%; aspect-ratio:auto; image-rendering:auto; background:none"


def write_page(folder: Path, title: str, numbers: Mapping[str, Any], pictures: Sequence[str]) -> None:
    """`index.html` in `folder`, with pictures that lie there."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{value:.4g}</td></tr>"
        for name, value in numbers.items()
        if isinstance(value, int | float)
    )
    images = "".join(f'<figure><img src="{html.escape(name)}" style="{AS_IT_IS}" alt=""></figure>' for name in pictures)
    body = f"<h1>{html.escape(title)}</h1><table>{rows}</table><h2>Samples of the target</h2>{images}"
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{CSS}</style>'
    (folder / "index.html").write_text(f"<!doctype html><html>{head}<body><main>{body}</main></body></html>\n")
