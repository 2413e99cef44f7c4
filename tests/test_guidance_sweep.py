"""The guidance command: its measures, and what it refuses."""

import json
import pathlib

import numpy as np
import pytest

from dfm_jax.pages import guidance_page, plots
from dfm_jax.studies import guidance_sweep

TOY = pathlib.Path(__file__).resolve().parents[1] / "configs" / "toy.py"


def test_saturation_contrast_and_diversity_of_known_images():
    grey = np.full((1, 2, 4, 4, 3), 0.5)
    red = np.zeros_like(grey)
    red[..., 0] = 0.8
    half = grey.copy()
    half[..., :2, :] = 0.0
    measured = [guidance_sweep.measure(images, images) for images in (grey, red, half)]
    assert [m["saturation"] for m in measured] == pytest.approx([0, 1, 0])
    assert [m["contrast"] for m in measured] == pytest.approx([0, 0, 0.25])
    assert [m["diversity"] for m in measured] == pytest.approx([0, 0, 0])
    assert measured[0]["scene_psnr"] == 99.0
    differing = np.concatenate([grey[:, :1], grey[:, 1:] + 0.2], axis=1)
    assert guidance_sweep.measure(differing, differing + 0.1)["diversity"] == pytest.approx(0.1)
    assert guidance_sweep.measure(differing, differing + 0.1)["scene_psnr"] == pytest.approx(20.0)


def test_the_plot_is_written(tmp_path):
    point = {"saturation": 0.5, "contrast": 0.2, "diversity": 0.1, "scene_psnr": 30.0, "context_psnr": 25.0}
    measured = {cure: [{"scale": s} | point for s in guidance_sweep.SCALES] for cure in guidance_sweep.CURES}
    plots.guidance(tmp_path / "guidance.png", measured, {"saturation": 0.4, "contrast": 0.2})
    assert (tmp_path / "guidance.png").stat().st_size > 10_000


def points(**of_scales) -> list[dict[str, float]]:
    """Of (saturation, contrast, diversity) by scale."""
    names = ("saturation", "contrast", "diversity")
    others = {"scene_psnr": 30.0, "context_psnr": 25.0}
    return [
        {"scale": float(scale[1:])} | dict(zip(names, values, strict=True)) | others
        for scale, values in of_scales.items()
    ]


def test_the_cure_that_stays_nearest_to_true_images_is_advised():
    truth = {"saturation": 0.4, "contrast": 0.2}
    same = (0.4, 0.2, 0.1)
    measured = {
        "none": points(_1=same, _2=(0.8, 0.2, 0.1), _8=(0.8, 0.4, 0.05)),
        "rescaling": points(_1=same, _2=(0.4, 0.2, 0.05), _8=(0.4, 0.2, 0.05)),
    }
    ranks = guidance_page.ranking(measured, truth)
    assert [rank["scale"] for rank in ranks] == [2, 8] and [rank["best"] for rank in ranks][1] == "rescaling"
    third = pytest.approx(np.log(2) / 3)  # one of three is off by a factor of 2
    assert ranks[0]["distance"] == {"none": third, "rescaling": third}
    assert ranks[1]["distance"] == {"none": pytest.approx(np.log(2)), "rescaling": third}
    cures = {"none": {}, "rescaling": {"guidance_rescale": 0.7}}
    assert guidance_page.advice(ranks, cures).startswith("Take rescaling (--config.sample.guidance_rescale=0.7)")
    assert guidance_page.advice([{"distance": {"none": 0.1, "rescaling": 0.2}}], cures).startswith("Take none")


def test_the_page_gives_the_advice_and_every_number(tmp_path):
    measured = {"none": points(_1=(0.4, 0.2, 0.1), _2=(0.8, 0.2, 0.1234))}
    ranks = guidance_page.ranking(measured, {"saturation": 0.4, "contrast": 0.2})
    counts = {"step": 7, "num_scenes": 4, "num_samples": 6}
    result = {
        **counts, "advice": "Take <this>", "ranking": ranks, "cures": {"none": {}}, "measured": measured,
        "truth": {"saturation": 0.4, "contrast": 0.2},
    }  # fmt: skip
    page = guidance_page.write_page(tmp_path, result).read_text()
    assert "Take &lt;this&gt;" in page and "0.123" in page and f"{(np.log(2) + np.log(1.234)) / 3:.3f}" in page
    assert 'src="guidance.png"' in page and 'src="guidance_samples.png"' in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"--config={TOY}", "--config.diffusion.guidance_dropout=0.0"], "knows no guidance"),
        ([f"--config={TOY}", "--config.diffusion.guidance_dropout=0.1"], "there is no checkpoint"),
        ([f"--config={TOY}:pixelnerf"], "knows no guidance"),
    ],
)
def test_mistakes_are_one_clear_error(tmp_path, capsys, arguments, message):
    assert guidance_sweep.main([*arguments, f"--workdir={tmp_path / 'run'}"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and message in printed.err and not printed.out


def test_every_cure_can_be_set_in_a_config():
    fields = set(guidance_sweep.PLAIN)
    assert all(set(cure) <= fields for cure in guidance_sweep.CURES.values())
    json.dumps(guidance_sweep.CURES)
