"""The best of N samples, and how the truth ranks among them, as sections of the page of an evaluation."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dfm_jax.evaluation.best_of import BEST_OF

MEASURES = {"psnr": ("PSNR", ".2f"), "ssim": ("SSIM", ".3f"), "lpips": ("LPIPS", ".3f")}
SIGNIFICANT = 0.001  # a smaller probability is none of chance
CLOSE = 0.03  # of coverage to the intervals' own share
WIDTH, EVEN = 120, 16  # pixels: of a small histogram, and how high its bins are if all are equal


def section(result: Mapping[str, Any]) -> str:
    """HTML; nothing of a model that has one answer."""
    if result["settings"]["num_samples"] < 2 or result["deterministic"]:
        return ""
    return _best_of(result) + _ranks(result["scalars"])


def _best_of(result: Mapping[str, Any]) -> str:
    counts = [count for count in BEST_OF if result.get(f"psnr_best_of_{count}") is not None]
    if counts == [1]:
        return ""
    head = "".join(f"<th>{count}</th>" for count in counts)
    rows = ""
    for name, (title, style) in MEASURES.items():
        values = [result.get(f"{name}_best_of_{count}") for count in counts]
        if None not in values:
            rows += f"<tr><td>{title}</td>" + "".join(f"<td>{value:{style}}</td>" for value in values) + "</tr>"
    return f"""<h2>Best of N samples</h2>
<p>Means over scenes of the best, by each measure, of N of the {result["settings"]["num_samples"]} samples, over all
choices of N.</p>
<div class="scroll"><table><thead><tr><th>N</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>
"""


def _ranks(scalars: Mapping[str, Mapping[str, Any]]) -> str:
    if not scalars:
        return ""
    levels = next(iter(scalars.values()))["levels"]
    head = "".join(f"<th>{level:.0%} interval</th>" for level in levels)
    rows = "".join(_rows(name, found) for name, found in scalars.items())
    return f"""<h2>Does the truth rank among the samples as one of them?</h2>
<p>One number of each scene: among samples of the true posterior, its truth has every rank equally often (ties are
broken at random), and lies in a central interval as often as the interval says, within what so many scenes can
tell. The histogram is of ranks from the lowest to the highest, with a line where all are equal; p is the probability of
one as uneven by chance. Where the odds are known, the samples are also set against all truths that they allow, which
tells more. Where nothing is known to be uncertain, the numbers are the mean red, green and blue of the target view.</p>
<div class="scroll"><table><thead><tr><th></th><th>Scenes</th><th>Ranks</th><th>p</th>{head}<th></th></tr></thead>
<tbody>{rows}</tbody></table></div>
"""


def _rows(name: str, found: Mapping[str, Any]) -> str:
    """Of the scenes' own truths, and of all that the odds allow where these are known."""
    row = _row(name, found["count"], found, found["histogram"])
    if (of_odds := found.get("of_odds")) is None:
        return row
    return row + _row(f"{name}, of all truths", found["count"], of_odds, [100 * share for share in of_odds["ranks"]])


def _row(name: str, count: int, found: Mapping[str, Any], histogram: Sequence[float]) -> str:
    intervals = "".join(
        f"<td>{share:.1%} &plusmn; {spread:.1%}</td>"
        for share, spread in zip(found["coverage"], found["spread"], strict=True)
    )
    p = "" if found["p"] is None else f"{found['p']:.3g}"
    return (
        f"<tr><td>{escape(name)}</td><td>{count}</td><td>{_bars(histogram)}</td>"
        f"<td>{p}</td>{intervals}<td>{_verdict(found)}</td></tr>"
    )


def _bars(histogram: Sequence[float]) -> str:
    """A small picture of a histogram beside a line where all bins would be equal; the numbers are its title."""
    numbers = " ".join(f"{value:.3g}" for value in histogram)
    total = sum(histogram)
    if len(histogram) < 2 or not total:
        return numbers
    side, bars = WIDTH / len(histogram), ""
    for i, value in enumerate(histogram):
        height = min(2 * EVEN, EVEN * value * len(histogram) / total)
        bars += (
            f'<rect x="{i * side + 1:.2f}" y="{2 * EVEN - height:.2f}" width="{side - 2:.2f}" height="{height:.2f}"/>'
        )
    size = f'viewBox="0 0 {WIDTH} {2 * EVEN}" width="{WIDTH}" height="{2 * EVEN}"'
    line = f'<line x1="0" x2="{WIDTH}" y1="{EVEN}" y2="{EVEN}"/>'
    return f'<svg class="ranks" {size} role="img" aria-label="{numbers}"><title>{numbers}</title>{bars}{line}</svg>'


def _verdict(found: Mapping[str, Any]) -> str:
    if found["p"] is None:
        return "too few scenes"
    if found["p"] < SIGNIFICANT:
        return "not calibrated"
    off = max(abs(share - level) for share, level in zip(found["coverage"], found["levels"], strict=True))
    return f"within {CLOSE:.0%}" if off <= CLOSE else "no deviation found"
