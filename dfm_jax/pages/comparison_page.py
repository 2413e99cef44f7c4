"""`index.html` of runs side by side: their evaluations, whether these differ, and what they sampled."""

import re
from collections.abc import Mapping, Sequence
from html import escape

from dfm_jax.evaluation.paired_bootstrap import LEVEL, Difference
from dfm_jax.evaluation.summary import MORE_IS_BETTER
from dfm_jax.pages.explained_measures import EXPLAINED
from dfm_jax.pages.html import formatted, table

PARTS = {"all": "all pixels", "visible": "what the context shows", "hidden": "what it hides"}
SAMPLE_COLUMNS = (("psnr", "PSNR", ".2f"), ("ssim", "SSIM", ".3f"), ("lpips", "LPIPS", ".3f"))
STYLE = """<style>
.interval { position: relative; display: inline-block; width: 9rem; height: 1rem; vertical-align: middle;
  background: linear-gradient(var(--line), var(--line)) center / 1px 100% no-repeat; }
.interval i { position: absolute; top: .4rem; height: .2rem; background: var(--soft); }
.interval b { position: absolute; top: .2rem; width: .6rem; height: .6rem; margin-left: -.3rem; border-radius: 50%;
  background: var(--soft); }
.better i, .better b { background: #009e73; } .worse i, .worse b { background: #d55e00; }
</style>
"""


def opening(names: Sequence[str], made: Sequence[str], notes: Sequence[str]) -> str:
    """`made`: what there is of each run, a sentence each; `notes`: what must be known to read the numbers."""
    told = f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>" if notes else ""
    return f"""{STYLE}<h1>{escape(" and ".join(names))}</h1>
<p class="lead">{escape(" ".join(made))}</p>
{told}"""


def evaluations(names: Sequence[str], rows: Sequence[tuple[str, Sequence[str], str]], num_examples: int) -> str:
    """`rows`: what is called how, its value in each run, and what it means."""
    cells = [[escape(title), *values, escape(text)] for title, values, text in rows]
    heads = ["", *map(escape, names), "What it is"]
    return f"""<h2>Evaluations <span class="soft">of the same {num_examples} examples</span></h2>
<p>A model that must give one answer mixes all that could be there: its PSNR against the truth is high, and no scene
looks like that. A sample commits itself, often to something else than the truth, which PSNR punishes. What tells the
two apart is whether the best of some samples meets the truth, FID and KID, and, where odds are known, whether a sample
shows one of the cases that can be (purity), and each in its share of the samples (total variation).</p>
{table(cells, heads, text=(len(names) + 1,))}
"""


def differences(first: str, found: Mapping[str, Mapping[str, Difference]]) -> str:
    """Of each run from the first, by measure."""
    sections = [
        f"<h3>{escape(name)} against {escape(first)}</h3>\n"
        + table(
            [_difference(measure, each) for measure, each in of_run.items()],
            ("", "Difference", f"{LEVEL:.0%} interval", "", "p", "Scenes", ""),
            text=(6,),
        )
        for name, of_run in found.items()
    ]
    return f"""<h2>Are the differences real?</h2>
<p>Means over the examples of the difference on each. The interval is that of a paired bootstrap: scenes are drawn anew
with replacement, each with all its examples, so that it says how the difference would vary over other scenes of their
kind; <i>p</i> is how likely one at least as large would be if there were none. An interval that leaves out 0 is a
difference that is not due to the choice of the scenes. It says nothing of another training of the same model, and among
twenty measures without any difference one looks like one. Numbers of all scenes together (FID, KID, total variation)
have no difference on a scene.</p>
{"".join(sections)}
"""


def _difference(measure: str, found: Difference) -> list[str]:
    name = measure.removesuffix("_best")
    title, style = next((title, style) for each, title, style, _ in EXPLAINED if each == name)
    title += ", best sample" if measure != name else ""
    signed = "+" + re.sub(r"\.(\d)", lambda digits: f".{int(digits[1]) + 1}", style)  # differences are small
    if found.low is None:
        return [escape(title), formatted(found.mean, signed), "", "", "", f"{found.num_scenes}", "too few scenes"]
    better = MORE_IS_BETTER.get(name)
    verdict = "not told apart"
    if found.is_real:
        verdict = "more" if found.mean > 0 else "less"
        if better is not None:
            verdict = "better" if (found.mean > 0) == better else "worse"
    interval = f"{formatted(found.low, signed)} to {formatted(found.high, signed)}"
    p = f"{found.p:.4f}" if found.p >= 1e-3 else "&lt; 0.001"
    drawn = _interval(found, verdict)
    return [escape(title), formatted(found.mean, signed), interval, drawn, p, f"{found.num_scenes}", verdict]


def _interval(found: Difference, verdict: str) -> str:
    """The interval around its mean, on a scale of its own whose middle is 0."""
    farthest = max(abs(found.low), abs(found.high)) or 1.0
    place = lambda value: 50 + 48 * value / farthest
    low, high, mean = place(found.low), place(found.high), place(found.mean)
    return (
        f'<span class="interval {verdict if verdict in ("better", "worse") else ""}">'
        f'<i style="left:{low:.1f}%;width:{max(high - low, 0.5):.1f}%"></i><b style="left:{mean:.1f}%"></b></span>'
    )


def samples(numbers: Mapping[str, Mapping[str, Mapping[str, float]]], num_scenes: int) -> str:
    """Of each run, of each part of the target view, by measure."""
    first = next(iter(numbers.values()))
    shown = [column for column in SAMPLE_COLUMNS if column[0] in first["all"]]
    rows = [
        [escape(PARTS[part]), escape(run)]
        + [format(parts[part][name + kind], style) for name, _, style in shown for kind in ("", "_best")]
        for part in first
        for run, parts in numbers.items()
    ]
    heads = ["Of the target view", "", *(head for _, title, _ in shown for head in (title, "best"))]
    return f"""<h2>Samples <span class="soft">behind the same {num_scenes} images</span></h2>
<p>Against the truth at the target view: of a single sample, on average, and of the best one of each scene.</p>
{table(rows, heads, text=(1,))}
"""


def picture(file: str, width: int, text: str) -> str:
    return f"""<p>{escape(text)}</p>
<img src="{file}" alt="{escape(text)}" style="max-width:100%;width:{width}px">
"""
