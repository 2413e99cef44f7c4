"""Whether samples have the odds that are known of what the context hides, as a section of the page of an evaluation."""

from collections.abc import Mapping
from html import escape
from typing import Any

COLOURS = {"red", "green", "blue"}  # values that are their own colour; others are grey


def section(result: Mapping[str, Any]) -> str:
    """HTML, of an evaluation whose samples show what is hidden."""
    attributes, count = result["attributes"], result["num_colours_read"]
    unread = result["num_samples"] - count
    others = f" Of {unread} samples the target view shows too little of it: they do not count." if unread else ""
    bars = "".join(_bars(name, found) for name, found in attributes.items())
    what = " and ".join([", ".join(list(attributes)[:-1]), list(attributes)[-1]]) if len(attributes) > 1 else ""
    together = f", of {what} together," if what else ""
    return f"""<h2>Are the odds right?</h2>
<p>What the context view hides is random, with known odds. Samples of a calibrated model have these odds, and each shows
one of the cases. <b>{escape(verdict(result))}</b></p>
<ul class="facts">
<li><b>{result["total_variation"]:.3f}</b>total variation{together} between the samples and the true odds; as many
samples of the true odds differ by {result["total_variation_of_honest_draws"]:.3f} on average</li>
<li><b>{_percent(result["mode_purity"])}</b>of the samples show one case and no mixture: in nine tenths of the hidden
pixels or more</li>
<li><b>{_percent(result["novel_view_agreement"])}</b>of {result["num_novel_views"]} novel views of the samples show what
the target view shows</li>
</ul>
{bars}
<p class="soft">Bars: what each sample's hidden part is nearest to. Marks: the true odds.{others}</p>
"""


def verdict(result: Mapping[str, Any]) -> str:
    """What the samples say of the model."""
    if result["deterministic"]:
        return "This model has one answer, the mean of all cases: what it shows of the hidden part is none of them."
    wrong = {name: x for name, x in result["attributes"].items() if x["total_variation"] > x["limit"]}
    together = result["total_variation_limit"]
    if wrong:
        return "The odds are wrong: " + " ".join(_wrong(name, found) for name, found in wrong.items())
    if result["total_variation"] > together:
        return (
            "The odds are wrong: each attribute alone has its own, but not all together; of as many samples of the "
            f"true odds, only one set in twenty differs by more than {together:.3f}."
        )
    limits = ", ".join(f"{found['limit']:.3f}" for found in result["attributes"].values())
    return (
        f"As far as {result['num_colours_read']} samples can tell, the odds are right: of as many samples of the "
        f"true odds, one set in twenty differs by more than {limits}."
    )


def _wrong(name: str, found: Mapping[str, Any]) -> str:
    excess = [share - odds for share, odds in zip(found["shares"], found["odds"], strict=True)]
    most = found["values"][excess.index(max(excess))]
    return (
        f"of as many samples of the true odds, only one set in twenty differs by more than {found['limit']:.3f} in the "
        f"{name}. {most.capitalize()} is sampled too often."
    )


def _bars(name: str, found: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<span><span class="swatch" style="background:{_colour(value)}"></span>{escape(value)}</span>'
        f'<span class="bar"><i style="width:{100 * share:.1f}%;background:{_colour(value)}"></i>'
        f'<u style="left:{100 * odds:.1f}%"></u>'
        f"<span>{share:.1%} of {found['num_samples']}, true odds {odds:.1%}</span></span>"
        for value, share, odds in zip(found["values"], found["shares"], found["odds"], strict=True)
    )
    return f"""<h3>{escape(name.capitalize())}: total variation {found["total_variation"]:.3f}, honest draws
{found["of_honest_draws"]:.3f}</h3>
<div class="bars">{rows}</div>
"""


def _colour(value: str) -> str:
    return value if value in COLOURS else "#8a93a0"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
