"""`index.html`: what a sampling run made, for a person to see at a glance.

The page lies in the folder of its pictures and videos, links to them relatively and needs no network.
"""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from dfm_jax.pages.html import swatch, table
from dfm_jax.pages.style import CSS, SCRIPT
from dfm_jax.sampling.assumptions import Assumptions
from dfm_jax.sampling.sample_summary import Familiarity, HiddenColours, SampleResult, SceneResult, Summary

Curve = Sequence[tuple[int, float]]  # (step, value)
MAX_CURVE_POINTS = 400


def write_report(folder: Path, summary: Summary, loss: Curve) -> Path:
    """Writes `folder/index.html` about the files that `summary` names. A loss curve of fewer than two points is left
    out."""
    sections = [
        _opening(summary),
        *(_scene(i, scene, summary.hidden) for i, scene in enumerate(summary.scenes)),
        _familiarity(summary.familiarity) if summary.familiarity else "",
        _assumed(summary.assumptions) if summary.assumptions else "",
        _odds(summary.hidden) if summary.hidden else "",
        _numbers(summary),
        _training(loss) if len(loss) > 1 else "",
        _making(summary),
    ]
    path = folder / "index.html"
    path.write_text(_page("\n".join(section for section in sections if section)), encoding="utf-8")
    return path


def _page(body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sampled scenes</title>
<style>{CSS}</style>
</head>
<body>
<main>
{body}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _opening(summary: Summary) -> str:
    spread = (_percent(summary.spread, 1), "standard deviation of the samples, averaged over the target view")
    facts = [] if summary.spread is None else [spread]
    if summary.context_psnr is not None:
        agreement = (
            "agreement of the sampled scenes, rendered at the context camera, with the context view: an error of"
        )
        error = _percent(10 ** (-summary.context_psnr / 20), 1)
        facts.insert(0, (_decibel(summary.context_psnr), f"{agreement} {error}"))
    if summary.hidden:
        facts.append(
            (
                _percent(summary.hidden.purity),
                "of the samples have one of the colours that the hidden side can have, not a mixture",
            )
        )
    if summary.familiarity and summary.familiarity.unfamiliar:
        facts.insert(0, ("Unlike", "anything that the model was trained on: what it samples here means little"))
    items = "".join(f"<li><b>{value}</b>{text}</li>" for value, text in facts)
    seen = "The model sees one image of a scene, the context view (outlined in blue), and"
    if summary.assumptions:
        seen = "The model sees your photograph (outlined in blue, as it sees it), and"
    if summary.deterministic:
        title = "One image, one answer"
        lead = f"""{seen} answers with one 3D scene, shown from a moving camera: this is pixelNeRF, without diffusion.
What the image does not show is the average of all that it could be, which is a blur."""
    else:
        title = "One image, many possible scenes"
        lead = f"""{seen} samples whole 3D scenes that could be behind it: {len(summary.scenes[0].samples)} for each,
shown from a moving camera. What the image shows is the same in all of them. What it does not show differs from
sample to sample."""
    return f"""<h1>{title}</h1>
<p class="lead">{lead}</p>
<ul class="facts">{items}</ul>
<h2>The scenes <button id="depth-button" type="button">Show depth</button></h2>"""


def _scene(index: int, scene: SceneResult, hidden: HiddenColours | None) -> str:
    captions = [""] * len(scene.samples)
    if hidden:
        captions = [swatch(colour) if colour else "mixed" for colour in hidden.seen[index]]
    contexts = "".join(_picture(path, "Context view", "what the model sees") for path in scene.contexts)
    contexts += "".join(_picture(path, "Photograph", "as it was taken") for path in scene.photographs)
    samples = "".join(
        _video(j, sample, caption) for j, (sample, caption) in enumerate(zip(scene.samples, captions, strict=True))
    )
    if scene.spread is None:
        pictures = _picture(scene.mean, "The sample", "of several, what they agree on would be told")
    else:
        pictures = _picture(scene.mean, "Mean of the samples", "sharp where they agree, blurred where they do not")
        pictures += _picture(scene.uncertainty, "Uncertainty", "grey: the samples agree; glowing: they differ")
    pictures += _picture(scene.estimate, "Deterministic estimate", "a single answer is a mixture of all possible ones")
    if scene.truth:
        pictures += _picture(scene.truth, "True target view", "not shown to the model: one possibility of many")
    inside = f"<p>In {_percent(scene.inside)} of the frames the camera is inside of something opaque.</p>\n"
    inside = inside if scene.inside else ""
    path = f', <a href="{escape(scene.camera_path)}">camera path (nerfstudio)</a>' if scene.camera_path else ""
    in_3d = _in_3d(index, scene) if scene.page_in_3d else ""
    return f"""<section class="scene">
<h3>Scene {index + 1} <span class="soft">{escape(scene.name)}</span></h3>
<div class="turning">
<div class="contexts">{contexts}</div>
<div class="tiles">{samples}</div>
</div>{in_3d}
<h3>What is certain and what is not <span class="soft">at the target view</span></h3>
<div class="tiles wide">{pictures}</div>
{inside}<p class="soft">More: <a href="{escape(scene.contact_sheet)}">contact sheet</a>,
<a href="{escape(scene.variance)}">variance</a>, <a href="{escape(scene.arrays)}">arrays</a>{path}</p>
</section>"""


def _in_3d(index: int, scene: SceneResult) -> str:
    """The page in 3D, which is loaded when it is looked at."""
    page = escape(scene.page_in_3d)
    return f"""
<details class="in-3d" open><summary>In 3D: turn the samples with the mouse <span class="soft">gaussians that look like
the sampled scenes to {_decibel(scene.gaussians_psnr)}; <a href="{page}">on a page of their own</a></span></summary>
<iframe src="{page}" loading="lazy" title="Samples of scene {index + 1} in 3D"></iframe></details>"""


def _video(index: int, sample: SampleResult, caption: str) -> str:
    def tag(kind: str, path: str, poster: str) -> str:
        return (
            f'<video class="{kind}" autoplay loop muted playsinline{poster} src="{escape(path)}" '
            f'aria-label="Sample {index + 1}, {kind}"></video>'
        )

    psnr = sample.context_psnr
    agreement = "" if psnr is None else f"<small>context view: {_decibel(psnr)}</small>"
    return f"""<figure>
{tag("colour", sample.rgb_video, f' poster="{escape(sample.poster)}"')}
{tag("distance", sample.depth_video, "")}
<figcaption>Sample {index + 1} {caption}{agreement}</figcaption>
</figure>"""


def _picture(path: str, title: str, text: str) -> str:
    return (
        f'<figure><img src="{escape(path)}" alt="{escape(title)}">'
        f"<figcaption>{escape(title)}<small>{escape(text)}</small></figcaption></figure>"
    )


def _familiarity(found: Familiarity) -> str:
    """Whether a photograph is like the model's own data, and by what that is told."""
    compared = ""
    if found.score is None:
        verdict = f"This is not known: {escape(found.said)}."
    else:
        compared = f"""Its score, the largest of the deviations, is {found.score:.1f}; above {found.limit:.1f} is none
of {found.held_out} held-out scenes of the model's data. """
        verdict = "<b>It is.</b> "
        if found.unfamiliar:
            verdict = "<b>It is not: what is sampled behind it means little.</b> "
    rows = [
        (
            escape(part.meaning),
            _percent(part.value, 1),
            "" if part.usual is None else _percent(part.usual, 1),
            "" if part.deviations is None else f"{part.deviations:+.1f}",
        )
        for part in found.parts
    ]
    heads = ("Difference (root mean square)", "here", "held-out scenes", "deviations above these")
    return f"""<h2>Is the photograph like what the model was trained on?</h2>
<p>{verdict}{compared}A model that cannot read a photograph samples scenes that do not look like it, or that its own
estimate is far from.</p>
{table(rows, heads)}"""


def _assumed(assumptions: Assumptions) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in assumptions.sentences())
    return f"<h2>What was assumed of the photograph</h2>\n<ul>{items}</ul>"


def _odds(hidden: HiddenColours) -> str:
    """The samples' hidden colours against the odds that the scenes were made with."""
    total = sum(hidden.counts)
    modes = list(zip(hidden.names, hidden.probabilities, hidden.counts, strict=True))
    bars = "".join(
        f'<span>{swatch(name)}</span><span class="bar"><i style="width:{100 * count / total:.1f}%;background:{name}">'
        f'</i><u style="left:{100 * odds:.1f}%"></u><span>{count} of {total}</span></span>'
        for name, odds, count in modes
    )
    odds = ", ".join(f"{name} {_percent(odds)}" for name, odds, _ in modes)
    # E sum |n_k / n - p_k| / 2 of samples of the true odds, each count approximately normal.
    chance = 0.5 * sum(math.sqrt(2 * p * (1 - p) / (math.pi * total)) for p in hidden.probabilities)
    return f"""<h2>Are the odds right?</h2>
<p>In this toy world the sides that the image does not show have a random colour, whatever the front looks like: {odds}.
Bars: how many samples have each colour. Marks: the true odds. They differ by
{_percent(hidden.total_variation)} (total variation); {total} samples of the true odds would differ by about
{_percent(chance)}.</p>
<div class="bars">{bars}</div>
<p>{_percent(hidden.purity)} of the samples are clean: at least nine tenths of the hidden pixels are of one colour. Of
the deterministic estimates, which are mixtures, {_percent(hidden.estimate_purity)} are.</p>"""


def _numbers(summary: Summary) -> str:
    in_colour = summary.context_psnr is not None
    known = in_colour and all(scene.truth for scene in summary.scenes)
    rows = [
        (
            f"{i + 1} {escape(scene.name)}",
            *(_against_context(scene) if in_colour else ()),
            *(_against_truth(scene) if known else ()),
            _percent(scene.spread, 1),
        )
        for i, scene in enumerate(summary.scenes)
    ]
    against = ("Context view",) if in_colour else ()
    against += ("Best sample", "Mean of samples", "Deterministic estimate") if known else ()
    return f"""<h2>Numbers, and how to read them</h2>
{table(rows, ("Scene", *against, "Standard deviation"))}
<dl>
{CONTEXT if in_colour else ""}{TRUTH if known else ""}<dt>Standard deviation</dt>
<dd>Of the samples, averaged over the target view. 0&nbsp;%: only one answer is possible. One sample has none.</dd>
</dl>"""


CONTEXT = """<dt>Context view</dt>
<dd>Each sampled scene is rendered at the context camera and compared with the context view (PSNR: 20&nbsp;dB is an
error of 10&nbsp;%, 30&nbsp;dB of 3&nbsp;%; higher is better). This tells whether samples agree with what is known.</dd>
"""
TRUTH = """<dt>Best sample, mean of samples, deterministic estimate</dt>
<dd>The target view, compared with the truth. A plausible sample that differs from the truth scores <em>low</em> here;
the best of several tells whether the truth is among them. Means and deterministic estimates score well by mixing the
possibilities, though no scene looks like that.</dd>
"""


def _against_context(scene: SceneResult) -> tuple[str]:
    return (_decibel(sum(sample.context_psnr for sample in scene.samples) / len(scene.samples)),)


def _against_truth(scene: SceneResult) -> tuple[str, str, str]:
    best = max(sample.target_psnr for sample in scene.samples)
    return _decibel(best), _decibel(scene.mean_psnr), _decibel(scene.estimate_psnr)


def _training(curve: Curve) -> str:
    """The loss curve as a drawing, on a logarithmic scale where all values are positive."""
    curve = [(step, value) for step, value in curve if math.isfinite(value)]
    curve = curve[:: math.ceil(len(curve) / MAX_CURVE_POINTS)]
    steps, values = zip(*curve, strict=True)
    scale, back = (math.log10, lambda y: 10.0**y) if min(values) > 0 else (float, float)
    low, high = scale(min(values)), scale(max(values))

    def x(step: int) -> float:
        return 60 + 670 * (step - steps[0]) / max(steps[-1] - steps[0], 1)

    def y(height: float) -> float:
        return 20 + 190 * (high - height) / max(high - low, 1e-9)

    points = " ".join(f"{x(step):.1f},{y(scale(value)):.1f}" for step, value in curve)
    lines = "".join(
        f'<line x1="60" x2="730" y1="{y(h):.1f}" y2="{y(h):.1f}"/>'
        f'<text x="52" y="{y(h) + 4:.1f}" text-anchor="end">{back(h):.3g}</text>'
        for h in (low, (low + high) / 2, high)
    )
    return f"""<h2>Training</h2>
<p>The loss over {steps[-1]} training steps{" (logarithmic scale)" if scale is math.log10 else ""}.</p>
<svg class="curve" viewBox="0 0 750 245" role="img" aria-label="Loss curve">{lines}<polyline points="{points}"/>
<text x="60" y="235">step {steps[0]}</text><text x="730" y="235" text-anchor="end">{steps[-1]}</text></svg>"""


def _making(summary: Summary) -> str:
    commands = f"<pre>{escape(chr(10).join(summary.commands))}</pre>" if summary.commands else ""
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in summary.seconds.items())
    settings = [(escape(name), escape(str(value))) for name, value in summary.settings.items()]
    return f"""<h2>How this was made</h2>
{commands}
<p>By the model after {summary.step} training steps (moving average of its parameters); {escape(times)}. All numbers
are in <a href="samples.json">samples.json</a>.</p>
<details><summary>Settings</summary>{table(settings)}</details>"""


def _decibel(value: float | None) -> str:
    return "&ndash;" if value is None else f"{value:.1f}&nbsp;dB"


def _percent(value: float | None, digits: int = 0) -> str:
    return "&ndash;" if value is None else f"{100 * value:.{digits}f}&nbsp;%"
