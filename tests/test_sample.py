"""`--mode=sample` from a checkpoint to the page, on a tiny untrained model."""

import dataclasses
import json
import re
import subprocess
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import imageio_ffmpeg
import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import toy as toy_config
from dfm_jax.commands import sample as sampling
from dfm_jax.commands.camera_paths import camera_paths, recorded_cameras
from dfm_jax.commands.coordinates import of_evaluation_examples
from dfm_jax.commands.kept_scenes import find_scenes
from dfm_jax.commands.sample import in_short, sample
from dfm_jax.commands.sample_options import SampleOptions
from dfm_jax.config.reading import from_dict
from dfm_jax.data.loading import pipeline, toy_data
from dfm_jax.errors import UserError
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel
from dfm_jax.runs.checkpoints import Checkpoints, restore_params
from dfm_jax.runs.retention import Retention
from dfm_jax.runs.train_state import create
from dfm_jax.sampling import batches
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.preview import preview
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.visualization import pictures

SIZE, SCENES, SAMPLES, FRAMES, REFERENCE = 8, 2, 3, 5, 8


def tiny_config(data_dir: Path, **sample_settings) -> ConfigDict:
    config = toy_config.get_config("tiny")
    config.image_size = SIZE
    config.data.update(dir=str(data_dir), toy_scenes=4)
    config.model.update(rendered_features=4, estimate_size=SIZE // 2)
    config.model.encoder.update(depth=1, width=16, num_heads=2, features=8)
    config.model.conditioning_field.update(width=8, view_blocks=1, joint_blocks=1)
    config.model.scene_field.update(width=8, view_blocks=1, joint_blocks=1)
    config.model.ray_marching.update(num_coarse=4, num_conditioning=4)
    config.sample.update(num_scenes=SCENES, num_samples=SAMPLES, num_steps=2, guidance=1.5, video_frames=FRAMES)
    config.sample.reference_scenes = REFERENCE
    config.sample.update(sample_settings)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with an untrained model, and what sampling from it returned."""
    workdir = tmp_path_factory.mktemp("run")
    config = from_dict(tiny_config(workdir / "data"))
    # Batches of as many samples as there are scenes: the tests below then share one compilation.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", SCENES * SIZE**2)
    model = RadianceFieldModel.from_config(config)
    shapes, rng = parameter_shapes(model), np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    with Checkpoints(workdir, keep=Retention(1)) as checkpoints:
        checkpoints.save(7, create(params, optax.sgd(0.1)), config)
    (workdir / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 2, "eval": 3}\n'
    )
    (workdir / "samples" / "scene_99").mkdir(parents=True)  # of an earlier run
    summary = sample(config, workdir)
    params, _, _ = restore_params(workdir)  # placed as in `sample`: compiled once
    data = toy_data.find_toy(config.data, SIZE)
    example, names = pipeline.evaluation_examples(data, image_size=SIZE, num_scenes=SCENES)
    yield SimpleNamespace(
        workdir=workdir,
        folder=workdir / "samples",
        config=config,
        model=model,
        params=params,
        summary=summary,
        example=example,
        names=names,
    )
    monkeypatch.undo()


def decode(path: Path) -> np.ndarray:
    """All frames [n, h, w, 3] of a video, read by ffmpeg."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    width, height = map(int, re.search(rb"Video:.*? (\d{2,})x(\d+)", done.stderr).groups())
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "poster")]


def test_page_links_resolve_and_stay_in_the_folder(run):
    links = Links()
    links.feed((run.folder / "index.html").read_text())
    assert len([link for link in links.found if link.endswith(".mp4")]) == 2 * SCENES * SAMPLES
    for link in links.found:
        assert not re.match(r"\w+:|/|\.\.", link), link
        assert (run.folder / link).is_file(), link


def test_page_shows_the_loss_curve_and_the_hidden_colours(run):
    page = (run.folder / "index.html").read_text()
    assert "<polyline" in page and "2 training steps" in page
    assert f"of {SCENES * SAMPLES}</span>" in page


def test_videos_have_all_frames_and_are_large_enough_to_see(run):
    for found in run.summary.scenes[0].samples:
        for video in (found.rgb_video, found.depth_video):
            frames = decode(run.folder / video)
            assert len(frames) == FRAMES and min(frames.shape[1:3]) >= pictures.MIN_SIDE


def psnr_of(images, truth):
    return -10 * np.log10(np.mean((np.asarray(images, np.float64) - truth) ** 2))


def test_numbers_in_the_file_are_those_of_the_images_beside_it(run):
    stored = json.loads((run.folder / "samples.json").read_text())
    for scene in stored["scenes"]:
        arrays = np.load(run.folder / scene["arrays"])
        # In dB: means of float32 images in another order.
        close = partial(pytest.approx, abs=1e-3)
        assert scene["mean_psnr"] == close(psnr_of(arrays["samples"].mean(0), arrays["truth"]))
        for j, found in enumerate(scene["samples"]):
            assert found["target_psnr"] == close(psnr_of(arrays["samples"][j], arrays["truth"]))
            assert found["scene_psnr"] == close(psnr_of(arrays["samples"][j], arrays["x0"][j]))
    for name in ("estimate_psnr", "spread"):
        assert stored[name] == pytest.approx(np.mean([scene[name] for scene in stored["scenes"]]))


def test_numbers_are_finite_and_of_every_sample(run):
    stored = json.loads((run.folder / "samples.json").read_text())
    assert stored["step"] == 7 and len(stored["scenes"]) == SCENES
    for scene in stored["scenes"]:
        assert len(scene["samples"]) == SAMPLES
        for found in scene["samples"]:
            numbers = [found[f"{view}_psnr"] for view in ("context", "target", "novel", "scene")]
            assert np.all(np.isfinite(numbers)) and min(numbers) > 0
    assert sum(stored["hidden"]["counts"]) == SCENES * SAMPLES


def test_mean_and_variance_are_those_of_the_samples(run):
    arrays = np.load(run.folder / run.summary.scenes[1].arrays)
    assert arrays["samples"].shape == (SAMPLES, SIZE, SIZE, 3)
    np.testing.assert_allclose(arrays["mean"], arrays["samples"].mean(0), atol=1e-6)
    np.testing.assert_allclose(arrays["variance"], arrays["samples"].var(0), atol=1e-6)
    assert arrays["variance"].max() > 0  # samples differ
    spread = np.sqrt(arrays["variance"]).mean()
    assert run.summary.scenes[1].spread == pytest.approx(spread, rel=1e-5)


def test_a_sample_depends_on_its_own_numbers_only(run):
    """Not on which samples are drawn at the same time, nor where in the batch it stands."""
    pairs = np.array([(1, 2), (0, 1)])
    sampler, key = DiffusionSampler.from_config(run.config, run.params), jax.random.key(run.config.seed)
    batch = batches.sample_batch(sampler, run.example, key, *pairs.T)
    # The context is clean; the sample is said to have a little noise.
    assert np.array_equal(batch.scene.views.timestep, [[0, 30]] * 2)
    for b, (i, j) in enumerate(pairs):
        arrays = np.load(run.folder / run.summary.scenes[i].arrays)
        # Another batch is another program: float32's rounding through the sampling steps.
        np.testing.assert_allclose(batch.x0[b], arrays["x0"][j], atol=1e-4)
        np.testing.assert_allclose(batch.views.rgb[b, 1], arrays["samples"][j], atol=1e-4)  # as above
        assert np.all(batch.views.depth_before(run.example.far[i])[b] <= run.example.far[i] * 1.001)
        assert (
            np.abs(arrays["x0"] - arrays["x0"][j]).max(axis=(1, 2, 3)).min(where=np.arange(SAMPLES) != j, initial=1)
            > 1e-3
        )


def test_a_sampler_draws_what_the_command_drew(run):
    """The same example, seed and number of samples: the same bits."""
    scenes = restore_trained(run.config, run.workdir).sample(run.example)
    assert len(scenes) == SCENES * SAMPLES and scenes.target_camera.intrinsics.shape == (SCENES * SAMPLES, 3, 3)
    for scene in scenes:
        arrays = np.load(run.folder / run.summary.scenes[scene.source].arrays)
        np.testing.assert_array_equal(scene.image, arrays["x0"][scene.number])
    assert [scene.number for scene in scenes] == list(range(SAMPLES)) * SCENES


def test_sampled_scenes_are_kept_for_exports_and_found_again(run):
    trained = restore_trained(run.config, run.workdir)
    scenes, path = find_scenes(trained, run.workdir, run.workdir / "export")
    assert path == run.folder / "scenes.npz" and len(scenes) == SCENES * SAMPLES
    for scene in scenes:
        arrays = np.load(run.folder / run.summary.scenes[scene.source].arrays)
        np.testing.assert_array_equal(scene.image, arrays["x0"][scene.number])
        seen = scene.render(scene.target_camera).rgb
        # Another program, and cameras by another way: float32's rounding.
        np.testing.assert_allclose(seen, arrays["samples"][scene.number], atol=1e-3)
        assert scene.frame.name == "source" and scene.frame.scale == 1
        pose = scene.context_camera.camera_to_world
        wanted = run.example.context.absolute_pose[scene.source, 0]
        np.testing.assert_allclose(pose[:3], wanted, atol=1e-6)
    steps = dataclasses.replace(run.config.sample, num_steps=3)
    asked = restore_trained(dataclasses.replace(run.config, sample=steps), run.workdir)
    assert find_scenes(asked, run.workdir, run.workdir)[0] is None
    frames = dataclasses.replace(run.config.sample, video_frames=3)
    asked = restore_trained(dataclasses.replace(run.config, sample=frames), run.workdir)
    assert find_scenes(asked, run.workdir, run.workdir)[0] is not None
    retrained = dataclasses.replace(trained, params=jax.tree.map(lambda x: x + 1, trained.params))
    assert find_scenes(retrained, run.workdir, run.workdir)[0] is None


def test_batches_cover_every_sample_once_and_have_one_size(monkeypatch):
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", 4 * SIZE**2)
    assert batches.batches(2, 3, SIZE) == [[(0, 0), (0, 1), (0, 2), (1, 0)], [(1, 1), (1, 2), (1, 2), (1, 2)]]
    assert batches.batches(1, 2, SIZE) == [[(0, 0), (0, 1)]]
    assert batches.batches(1, 2, 100 * SIZE) == [[(0, 0)], [(0, 1)]]


def test_videos_start_at_the_context_camera(run):
    for i, path in enumerate(camera_paths(run.config, run.example, place=None)):
        context = run.example.context.camera.camera_to_world[i, 0]
        np.testing.assert_allclose(path.camera.camera_to_world[path.order[0]], context, atol=1e-6)


def test_recorded_cameras_agree_with_the_examples_own(run):
    there = toy_data.find_toy(run.config.data, SIZE)
    data = pipeline.open_dataset(there.dir, there.name, there.eval_split)
    num_frames = data.scene(0).num_frames
    settings = dataclasses.replace(run.config.sample, video_path="dataset", video_frames=num_frames)
    config = dataclasses.replace(run.config, data=there, sample=settings)
    recorded = partial(recorded_cameras, config, run.names, run.example)
    poses = camera_paths(config, run.example, place=None, recorded=recorded)[0].camera.camera_to_world
    for wanted in run.example.target.camera.camera_to_world[0]:
        assert np.min(np.abs(poses - wanted).max((1, 2))) < 1e-5


def test_a_camera_path_that_was_written_is_followed_again(run):
    """Those of the pages lie where the source's cameras are; read again, they are those of the videos."""
    there = toy_data.find_toy(run.config.data, SIZE)
    place = partial(of_evaluation_examples, there, SCENES)
    wanted = camera_paths(run.config, run.example, place)[1]
    file = str(run.folder / run.summary.scenes[1].camera_path)
    settings = dataclasses.replace(run.config.sample, video_path=file)
    found = camera_paths(dataclasses.replace(run.config, sample=settings), run.example, place)[1]
    np.testing.assert_allclose(found.camera.camera_to_world, wanted.camera.camera_to_world[wanted.order], atol=1e-5)
    np.testing.assert_allclose(found.camera.intrinsics, wanted.camera.intrinsics[wanted.order], atol=1e-6)
    assert found.size == (512, 512) and found.fps == pictures.FRAMES_PER_SECOND


def test_scenes_of_an_earlier_run_are_gone(run):
    assert sorted(path.name for path in run.folder.glob("scene_*")) == ["scene_00", "scene_01"]


def test_samples_of_before_stay_where_new_ones_cannot_be_made(run, tmp_path, monkeypatch):
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch, pytest.raises(UserError, match="ffmpeg does not run"):
        patch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "missing"))
        sample(run.config, run.workdir)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="stays"):
        patch.setattr(sampling, "_sample", interrupted)
        sample(run.config, run.workdir)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_pictures_of_something_else_are_not_replaced(run, tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UserError, match=r"holds index\.html of something else"):
        sample(run.config, run.workdir, tmp_path)


def interrupted(config, workdir, files, options):
    (files.folder / "index.html").write_text("half")
    raise KeyboardInterrupt


def test_no_checkpoint_is_one_clear_error(run, tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        sample(run.config, tmp_path)


def test_checkpoint_of_another_model_is_one_clear_error(run):
    other = tiny_config(run.workdir / "data")
    other.model.encoder.width = 32
    with pytest.raises(UserError, match="width"):
        sample(from_dict(other), run.workdir)


def test_preview_has_a_row_for_each_scene(run):
    sheet = preview(DiffusionSampler.from_config(run.config, run.params), run.example, jax.random.key(0))
    context = np.repeat(np.repeat(pictures.to_uint8(run.example.context.images[1, 0]), 12, 0), 12, 1)
    assert sheet.dtype == np.uint8 and sheet.shape[0] > SCENES * 96 and sheet.shape[1] > 6 * 96
    windows = np.lib.stride_tricks.sliding_window_view(sheet, context.shape)[:, :12, 0]
    assert np.any(np.all(windows == context, axis=(2, 3, 4)))  # the second row begins with the second context


def test_there_must_be_room_for_the_scenes_as_well(run):
    with np.load(run.folder / "scenes.npz") as arrays:
        signals = sum(arrays[name].nbytes for name in arrays.files if name.startswith("signal"))
    images = 3 * SCENES * SAMPLES * SIZE**2 * 3 * 4  # rendered, sampled, and the latter beside the scenes
    assert signals > images and sampling._least_bytes(run.config, SCENES) == signals + images


def test_a_photograph_of_ones_own_is_sampled_as_the_sampler_does(run, tmp_path):
    """The same bits; and the page shows the photograph, what was assumed of it, and no truth."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)).save(tmp_path / "photo.png")
    options = SampleOptions((str(tmp_path / "photo.png"),), fov=60.0)
    summary = sample(run.config, run.workdir, tmp_path / "out", options)
    arrays = np.load(tmp_path / "out" / summary.scenes[0].arrays)
    scenes = restore_trained(run.config, run.workdir).sample(tmp_path / "photo.png", fov=60.0)
    np.testing.assert_array_equal(np.stack([scene.image for scene in scenes]), arrays["x0"])
    assert "truth" not in arrays and summary.scenes[0].truth == "" and summary.estimate_psnr is None
    assert not (tmp_path / "out" / "scene_00" / "truth.png").exists()
    page = (tmp_path / "out" / "index.html").read_text()
    assert "photo.png: field of view: 60.0 degrees across, as given" in page and "True target view" not in page
    links = Links()
    links.feed(page)
    assert all((tmp_path / "out" / link).is_file() for link in links.found) and "photograph_0.jpg" in page
    short = in_short(summary, run.workdir, tmp_path / "out")
    assert json.loads(json.dumps(short))["assumptions"]["photographs"][0]["crop"] == "centre"
    assert short["familiarity"]["held_out"] == REFERENCE and short["familiarity"]["unfamiliar"] in (True, False)
    kept = json.loads((run.workdir / "familiarity" / "reference.json").read_text())
    assert len(kept["values"]) == REFERENCE  # for the next photograph
    assert {part["name"] for part in short["familiarity"]["parts"]} == {"context_error", "estimate_error", "spread"}
    assert Path(short["page"]).is_file() and Path(short["samples"]).is_file()
    assert len(run.summary.scenes) == SCENES  # those of the data set stay where they are
    assert len(json.loads((run.folder / "samples.json").read_text())["scenes"]) == SCENES
