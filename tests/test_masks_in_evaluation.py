"""Masks from the source to the numbers of an evaluation: they are stored beside whole pictures, and what is outside of
them changes nothing."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dfm_jax.commands import evaluated_scenes, evaluated_views, foreground, measured_scenes
from dfm_jax.data import prepare
from dfm_jax.data.loading import dataset
from dfm_jax.errors import UserError
from dfm_jax.evaluation.scene_store import SceneStore
from dfm_jax.evaluation.scores import Foreground, measure
from dfm_jax.pages import evaluation_page
from tests import captures_source
from tests.test_protocols import Repeating, config_for, write_json
from tests.test_scores import MeanDifference, exact_samples, toy_example, with_rgb

# --- what is measured


def test_what_is_outside_changes_nothing():
    """Other pictures outside of the masks have the same numbers against the truth, and other ones of the rest."""
    example, depth = toy_example()
    rng = np.random.default_rng(0)
    inside = Foreground(rng.random((1, 24, 24)) < 0.5, rng.random((2, 24, 24)) < 0.5)
    samples = exact_samples(example, depth, count=3)
    noisy = with_rgb(samples, samples.views.rgb + rng.uniform(-0.1, 0.1, samples.views.rgb.shape).astype(np.float32))
    masks = np.concatenate([inside.context, inside.target, np.ones((1, 24, 24), bool)])  # and a padding view
    spoilt = with_rgb(noisy, np.where(masks[..., None], noisy.views.rgb, 0.3))
    estimate = samples.estimate + np.where(inside.target[0], 0.0, 0.2)[..., None]
    spoilt = spoilt.replace(estimate=estimate.astype(np.float32))
    one, other = (
        measure("a", example, each, grid="centres", lpips_fn=MeanDifference(), foreground=inside)
        for each in (noisy, spoilt)
    )
    for name in (
        "psnr",
        "ssim",
        "lpips",
        "context_psnr",
        "estimate_psnr",
        "mean_sample_psnr",
        "ause",
        "aurc",
        "coverage",
    ):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.estimate_psnr == 99 and one.variance != other.variance
    whole = measure("a", example, noisy, grid="centres", lpips_fn=MeanDifference())
    assert whole.psnr != one.psnr and whole.ssim != one.ssim and whole.lpips != one.lpips


def test_psnr_is_that_of_the_pixels_inside():
    example, depth = toy_example()
    samples = exact_samples(example, depth)
    error = np.where(np.arange(24) < 6, 0.2, 0.05)[None, :, None] * np.ones((24, 24, 3))
    worse = with_rgb(samples, (samples.views.rgb + error).astype(np.float32))
    inside = Foreground(*(np.tile(np.arange(24) < 12, (count, 24, 1)) for count in (1, 2)))
    found = measure("a", example, worse, grid="centres", lpips_fn=None, foreground=inside).psnr
    # dB: images are float32.
    np.testing.assert_allclose(found, -10 * np.log10((0.2**2 + 0.05**2) / 2), atol=1e-3)


def test_everything_inside_is_no_mask():
    example, depth = toy_example()
    samples = exact_samples(example, depth)
    all_of_it = Foreground(np.ones((1, 24, 24), bool), np.ones((2, 24, 24), bool))
    settings = {"grid": "centres", "lpips_fn": None, "depth": depth}
    masked = measure("a", example, samples, foreground=all_of_it, **settings)
    assert masked == measure("a", example, samples, **settings)


def test_views_without_foreground_do_not_count():
    example, depth = toy_example()
    target = np.ones((2, 24, 24), bool)
    target[1] = False
    samples = exact_samples(example, depth)
    settings = {"grid": "centres", "lpips_fn": None}
    found = measure("a", example, samples, foreground=Foreground(np.ones((1, 24, 24), bool), target), **settings)
    assert found.psnr == [[99.0, None]] * 2 and found.mean_sample_psnr == [99.0, None]
    assert [[x is None for x in row] for row in found.ssim] == [[False, True]] * 2
    nothing = Foreground(np.zeros((1, 24, 24), bool), 0 * target > 0)
    found = measure("a", example, samples, foreground=nothing, **settings)
    assert (found.context_psnr, found.estimate_psnr, found.ause, found.coverage) == ([None] * 2, None, None, None)


# --- from the source


def masked_capture(root, missing=()):
    """A capture whose masks exclude the right half, with noise there."""
    folder = root / "source" / "a"
    captures_source.write_transforms(folder)
    content = json.loads((folder / "transforms.json").read_text())
    for i, frame in enumerate(content["frames"]):
        path = next(folder.glob(f"{frame['file_path']}*"))
        size = Image.open(path).size
        mask = Image.new("L", size)
        mask.paste(255, (0, 0, size[0] // 2, size[1]))
        if i not in missing:
            (folder / "masks").mkdir(exist_ok=True)
            mask.save(folder / "masks" / f"{i}.png")
        frame["mask_path"] = f"masks/{i}.png"
    (folder / "transforms.json").write_text(json.dumps(content))


def prepared(capsys, root, name, *options):
    source = root / "source"
    arguments = ["--format=transforms", f"--source={source}", f"--data_dir={root}", f"--name={name}", "--num_workers=1"]
    assert prepare.main([*arguments, *options]) == 0
    capsys.readouterr()
    return dataset.open_dataset(root, name, "train")


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    root = tmp_path_factory.mktemp("masked")
    masked_capture(root)
    return root


def test_masks_are_stored_beside_whole_pictures(capture, capsys):
    with_masks, without = prepared(capsys, capture, "left", "--masks=leave"), prepared(capsys, capture, "plain")
    scene, plain = with_masks.scene(0), without.scene(0)
    assert scene.attributes["masks"] == "stored" and "masks" not in plain.attributes
    for frame in range(scene.num_frames):
        assert with_masks.encoded_image(scene, frame) == without.encoded_image(plain, frame)
        size = with_masks.stored_size(scene)
        mask = with_masks.mask(scene, frame, size)
        assert mask.shape == (size, size)
        assert (mask[:, : size // 2 - 1] == 1).all() and (mask[:, size // 2 + 1 :] == 0).all()
        assert without.mask(plain, frame, size) is None


def test_a_missing_mask_costs_no_picture(tmp_path, capsys):
    masked_capture(tmp_path, missing=(1,))
    data = prepared(capsys, tmp_path, "left", "--masks=leave")
    scene = data.scene(0)
    assert scene.attributes["masks"] == f"stored of {scene.num_frames - 1} of {scene.num_frames} frames"
    assert data.mask(scene, 1, 8) is None and data.mask(scene, 2, 8) is not None


def test_transparency_is_a_mask(tmp_path, capsys):
    poses = captures_source.arc()
    folder = tmp_path / "source" / "a"
    captures_source.write_transforms(folder)
    captures_source.write_photographs(folder / "images", poses, mode="RGBA")
    data = prepared(capsys, tmp_path, "left", "--masks=leave")
    scene, size = data.scene(0), captures_source.HEIGHT
    assert scene.attributes["masks"] == "stored"
    opacity = np.asarray(captures_source.photograph(poses[1], mode="RGBA").getchannel("A"), np.float32) / 255
    middle = (captures_source.WIDTH - size) // 2
    np.testing.assert_array_equal(data.mask(scene, 1, size), opacity[:, middle : middle + size])


def evaluated(root, name, masks, index, **settings):
    config = config_for(root, name, "seva", index, num_samples=2, masks=masks, **settings)
    data = evaluated_views.open_data(config)
    chosen = evaluated_views.choose_views(config, data)
    foreground.check_masks(config, data, chosen.views)
    return SimpleNamespace(config=config, data=data, views=chosen.views)


def test_an_evaluation_respects_them(capture, tmp_path, capsys, monkeypatch):
    """Against a computation by hand from the pictures and masks that the data set holds."""
    prepared(capsys, capture, "seen", "--masks=leave")
    index = write_json(tmp_path / "index.json", {"a": {"context": [2], "target": [4, 5]}})
    monkeypatch.setattr(evaluated_scenes, "_Sampling", Repeating)
    monkeypatch.setattr(Repeating, "at_once", 1)
    networks = measured_scenes.Networks(None, None, None, {})
    for masks in ("none", "respect"):
        run = evaluated(capture, "seen", masks, index)
        store = SceneStore(tmp_path / masks, {})
        evaluated_scenes.evaluate_scenes(run.config, {}, run.data, run.views, [0], store, networks)
        scene, size = run.data.scene(0), run.config.image_size
        context = run.data.image(scene, 2, size)
        for k, frame in enumerate((4, 5)):
            error = (context - run.data.image(scene, frame, size)) ** 2
            mask = run.data.mask(scene, frame, size) >= 0.5 if masks == "respect" else np.ones((size, size), bool)
            assert store.scores(0).psnr[0][k] == pytest.approx(-10 * np.log10(error[mask].mean()), abs=1e-3)  # float32


def test_data_without_masks_is_one_clear_error(capture, tmp_path, capsys):
    prepared(capsys, capture, "bare")
    index = write_json(tmp_path / "index.json", {"a": {"context": [2], "target": [4]}})
    with pytest.raises(UserError, match=r"masks=respect, and frame .* of scene a of .* has no mask: prepare it with"):
        evaluated(capture, "bare", "respect", index)
    evaluated(capture, "bare", "none", index)


def test_the_page_and_the_settings_say_what_was_compared():
    page = lambda masks: evaluation_page._foreground({"settings": {"masks": masks}})
    assert "the foreground alone counts" in page("respect") and page("none") == ""
    assert evaluation_page._foreground({"settings": {}}) == ""  # of an earlier version
