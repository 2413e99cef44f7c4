"""The best of N samples, and how the truth ranks among them, as sections of the page of an evaluation."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dfm_jax.evaluation.best_of import BEST_OF

MEASURES = {"psnr": ("PSNR", ".2f"), "ssim": ("SSIM", ".3f"), "lpips": ("LPIPS", ".3f")}
SIGNIFICANT = 0.001  # a smaller probability is none of chance


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
tell. The histogram is of ranks from the lowest to the highest; p is the probability of one as uneven by chance. Where
the odds are known, the samples are also set against all truths that they allow, which tells more (shares in per
cent). Where nothing is known to be uncertain, the numbers are the mean red, green and blue of the target view.</p>
<div class="scroll"><table><thead><tr><th></th><th>Scenes</th><th>Ranks</th><th>p</th>{head}<th></th></tr></thead>
<tbody>{rows}</tbody></table></div>
"""


def _rows(name: str, found: Mapping[str, Any]) -> str:
    """Of the scenes' own truths, and of all that the odds allow where these are known."""
    row = _row(name, found["count"], found, found["histogram"])
    if (of_odds := found.get("of_odds")) is None:
        return row
    return row + _row(f"{name}, of all truths", found["count"], of_odds, [f"{100 * x:.1f}" for x in of_odds["ranks"]])


def _row(name: str, count: int, found: Mapping[str, Any], histogram: Sequence[int | str]) -> str:
    intervals = "".join(
        f"<td>{share:.1%} &plusmn; {spread:.1%}</td>"
        for share, spread in zip(found["coverage"], found["spread"], strict=True)
    )
    p = "" if found["p"] is None else f"{found['p']:.3g}"
    return (
        f"<tr><td>{escape(name)}</td><td>{count}</td><td>{' '.join(map(str, histogram))}</td>"
        f"<td>{p}</td>{intervals}<td>{_verdict(found['p'])}</td></tr>"
    )


def _verdict(p: float | None) -> str:
    if p is None:
        return "too few scenes"
    return "not calibrated" if p < SIGNIFICANT else "no deviation found"
