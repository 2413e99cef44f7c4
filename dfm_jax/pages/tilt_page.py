"""`index.html` of photographs that were taken with a tilted camera: models side by side. It needs no network."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from dfm_jax.pages import html
from dfm_jax.pages.evaluation_page import page
from dfm_jax.pages.plots import COLOURS, MARKERS, new_figure, save_figure

TILTED, TURNED_AXES = "tilted", "turned axes"
KINDS = {TILTED: "-", TURNED_AXES: ":"}  # and how their lines are drawn
COLUMNS = (
    ("context_psnr", "Context view, rendered", ".1f dB"),
    ("total_variation", "Total variation to the odds", ".3f"),
    ("purity", "Samples of one colour", ".1%"),
    ("novel_view_agreement", "Novel views that agree", ".1%"),
)


def write_page(folder: Path, result: Mapping[str, Any]) -> Path:
    """Writes the page, and the plot that it shows.

    Args:
      result: of `models` by name, of each of `KINDS` the measures over angles, and the number of samples behind each.
    """
    plot(folder / "tilt.png", result["models"])
    rows = [
        ((name, kind, f"{point['degrees']:g}"), point)
        for name, found in result["models"].items()
        for kind in KINDS
        for point in found[kind]
    ]
    told = "{} with a roll of {:g} degrees, measured with {} samples behind each point"
    about = {name: (found["trained_with_roll"], found["num_samples"]) for name, found in result["models"].items()}
    trained = "; ".join(told.format(name, *each) for name, each in about.items())
    body = f"""<h1>Photographs of a tilted camera</h1>
<p class="lead">Trained: {escape(trained)}.</p>
<img src="tilt.png" alt="Measures over the angle of the tilt" style="max-width:100%">
{html.measures(rows, COLUMNS, ["Model", "Kind", "Degrees"])}
<p>Tilted: the picture shows the tilt. Turned axes: it is upright, and the coordinates of its camera alone are turned.
All numbers: <a href="tilt.json">tilt.json</a>.</p>"""
    path = folder / "index.html"
    path.write_text(page("Tilted cameras", body), encoding="utf-8")
    return path


def plot(path: Path, models: Mapping[str, Mapping[str, Any]]) -> None:
    """A panel a measure, in it two lines a model over the angle."""
    figure, every = new_figure(len(COLUMNS), (15.0, 3.6))
    for axes, (measure, title, _) in zip(every, COLUMNS, strict=True):
        for i, (name, found) in enumerate(models.items()):
            for kind, line in KINDS.items():
                style = {"marker": MARKERS[i % len(MARKERS)], "color": COLOURS[1 + i % (len(COLOURS) - 1)], "ls": line}
                places, values = zip(*((point["degrees"], point[measure]) for point in found[kind]), strict=True)
                axes.plot(places, values, label=f"{name}, {kind}", **style)
        axes.set_title(title, fontsize=11, fontweight="bold", loc="left")
        axes.set_xlabel("tilt, degrees")
        axes.set_ylim(bottom=0)
    every[0].legend(frameon=False, fontsize=8)
    save_figure(figure, path)
