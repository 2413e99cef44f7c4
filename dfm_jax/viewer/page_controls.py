"""Buttons on a page that viser's client draws: which sample is shown, in which colours, and from where.

The script says what it wants in the messages that viser's server would send. The client takes them from the queue that
it offers to its own tests (`__viserMutable`): a test in a browser notices if another version does not.
"""

import json
from collections.abc import Sequence
from typing import Any

from dfm_jax.viewer.page_style import CSS, SCRIPT, WORKERS


def with_controls(
    html: str, num_samples: int, path: Sequence[dict[str, Any]], milliseconds: int, **cameras: dict[str, Any]
) -> str:
    """The client's page with buttons below the picture.

    Args:
      path: the cameras to play.
      milliseconds: between two of them.
      cameras: the `photograph`'s, and the one to `start` with.
    """
    numbers = "".join(f'<button data-sample="{i}">{i}</button>' for i in range(1, num_samples + 1))
    samples = f'<span class="group" role="group" aria-label="Sample"><span>Sample</span>{numbers}</span>'
    colours = (
        '<span class="group" role="group" aria-label="Colours"><button data-kind="colours">Colours</button>'
        '<button data-kind="uncertainty" title="glowing: samples differ; grey: the photograph decides">'
        "Uncertainty</button></span>"
        if num_samples > 1
        else ""
    )
    bar = f"""<div id="dfm-bar">{samples}{colours}<span class="group">
<button id="dfm-play">Play</button><button id="dfm-photograph">From the photograph</button>
<button id="dfm-cameras" aria-pressed="true">Cameras</button></span>
<span id="dfm-hint">drag to turn, right button to move, wheel to zoom</span></div>"""
    data = json.dumps({"samples": num_samples, "path": list(path), "milliseconds": milliseconds, **cameras})
    page = html.replace("<title>Viser</title>", "<title>Sampled scenes in 3D</title>", 1)
    page = page.replace("<head>", f"<head><script>{WORKERS}</script>", 1)
    end = page.rindex("</body>")
    return f"{page[:end]}<style>{CSS}</style>{bar}<script>const DFM = {data};{SCRIPT}</script>{page[end:]}"
