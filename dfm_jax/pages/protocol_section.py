"""An evaluation beside published numbers, as a section of its page."""

from collections.abc import Mapping
from html import escape
from typing import Any

# How numbers of `metrics.json` are called, and their formats.
TITLES = {
    "psnr": ("PSNR", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "ssim_best": ("SSIM, best", ".3f"),
    "lpips": ("LPIPS", ".3f"),
    "dists": ("DISTS", ".3f"),
    "fid": ("FID", ".2f"),
    "kid": ("KID", ".3f"),
    "mean_sample_psnr": ("PSNR of the mean sample", ".2f"),
}
BEST = "psnr_best_of_"


def section(protocol: Mapping[str, Any]) -> str:
    """HTML of what `evaluation.protocols.comparison` found."""
    names = protocol["metrics"]
    head = "".join(f"<th>{escape(_title(name))}</th>" for name in names)
    rows = [_row("this evaluation", protocol["ours"], names)]
    for published in protocol["published"]:
        where = f"{published['by']} ({published['source']})"
        rows.append(_row(where, published["numbers"], names))
    if not protocol["published"]:
        rows.append(f'<tr><td class="text" colspan="{1 + len(names)}">no published number is known here</td></tr>')
    differences = "".join(f"<li>{escape(line)}</li>" for line in protocol["differences"])
    listed = f"<ul>{differences}</ul>" if differences else "<p>Nothing that is known of it.</p>"
    notes = f'<p class="soft">{escape(protocol["notes"])}</p>' if protocol["notes"] else ""
    return f"""<h2>By the protocol {escape(protocol["name"])}</h2>
<p>Context: {escape(protocol["rule"])}. Targets: {escape(protocol["targets"])}.</p>
<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>
<h3>What differs</h3>
{listed}{notes}
"""


def _title(name: str) -> str:
    return f"PSNR, best of {name.removeprefix(BEST)}" if name.startswith(BEST) else TITLES[name][0]


def _row(who: str, numbers: Mapping[str, float | None], names: list[str]) -> str:
    cells = "".join(f"<td>{_number(name, numbers.get(name))}</td>" for name in names)
    return f'<tr><td class="text">{escape(who)}</td>{cells}</tr>'


def _number(name: str, value: float | None) -> str:
    style = TITLES.get(name, ("", ".2f"))[1]
    return "" if value is None else f"{value:{style}}"
