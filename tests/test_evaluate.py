"""`--mode=evaluate`: what is measured of a scene and of all, and the whole of it on a tiny untrained model."""

import csv
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from PIL import Image

from configs import toy as toy_config
from dfm_jax import main
from dfm_jax.config_reading import from_dict
from dfm_jax.data.builders import toy
from dfm_jax.errors import UserError
from dfm_jax.evaluation import (
    compare_evaluations,
    draw,
    evaluation_page,
    evaluation_results,
    scene_scores,
    steps_sweep,
    toy_modes,
    trained,
)
from dfm_jax.evaluation import evaluate as evaluation
from dfm_jax.evaluation.evaluate import evaluate
from dfm_jax.pixelnerf import make_model
from dfm_jax.structs import Camera, Example, Views
from dfm_jax.training.checkpoints import Checkpoints, Retention
from dfm_jax.training.state import create
from tests.test_consistency import BOX
from tests.test_sample import SIZE, tiny_config

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCENES, TARGETS, SAMPLES = 3, 3, 2


# --- one scene


def toy_example(size: int = 24, num_target: int = 2) -> tuple[Example, np.ndarray]:
    """A toy scene seen from its front and, as targets and one padding view, from elsewhere; and its true depths."""
    poses = toy.orbit_pose(np.linspace(0, 2, num_target + 2))
    looks = [toy.render_view(BOX, pose, toy.intrinsics(), size) for pose in poses]
    images, depth = (np.stack([look[i] for look in looks]).astype(np.float32) for i in (0, 1))
    matrices = np.tile(toy.intrinsics(), (len(poses), 1, 1))
    views = Views(images, Camera(poses, matrices), poses[:, :3], np.arange(len(poses)) < num_target + 1)
    views = jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, views)
    context, target = (jax.tree.map(lambda x, s=s: x[s], views) for s in (slice(1), slice(1, None)))
    example = Example(context, target, np.float32(toy.NEAR), np.float32(toy.FAR), np.int32(0))
    return example, depth[1:]


def exact_samples(example: Example, depth: np.ndarray, count: int = 2) -> scene_scores.SampledViews:
    """As if every sample were the truth; nothing is known of the context's depth."""
    images = np.concatenate([example.context.images, example.target.images])
    distance = np.concatenate([np.full_like(depth[:1], toy.FAR), np.where(np.isfinite(depth), depth, toy.FAR)])
    opacity = (distance < toy.FAR).astype(np.float32)
    repeat = lambda x: np.repeat(x[None], count, axis=0)
    return scene_scores.SampledViews(
        repeat(images), repeat(distance), repeat(opacity), repeat(images[1]), example.target.images[0]
    )


def test_samples_that_are_the_truth_score_perfectly():
    example, depth = toy_example()
    scores = scene_scores.measure(
        "a", example, exact_samples(example, depth), grid="centres", distance=None, depth=depth
    )
    assert scores.psnr == [[99.0, 99.0]] * 2 and scores.scene_psnr == scores.context_psnr == [99.0, 99.0]
    np.testing.assert_allclose(scores.ssim, 1, rtol=1e-5)
    np.testing.assert_allclose(scores.depth_error, 0, atol=1e-6)
    assert scores.lpips is None and scores.pairwise_lpips is None and scores.variance == 0
    assert max(scores.reprojection) < 0.2 and max(scores.contradicted) < 0.05


def test_each_number_is_of_its_own_view_and_padding_is_left_out():
    example, depth = toy_example()
    exact = exact_samples(example, depth)
    rgb, distance = exact.rgb.copy(), exact.distance.copy()
    rgb[1, 2] += 0.1  # second sample, second target
    rgb[:, 3] = 0.7  # padding
    distance[0, 1] += 0.5
    drawn = dataclasses.replace(exact, rgb=rgb, distance=distance)
    scores = scene_scores.measure("a", example, drawn, grid="centres", distance=None, depth=depth)
    assert scores.psnr[0] == [99.0, 99.0] and scores.psnr[1] == [99.0, pytest.approx(20.0, abs=1e-3)]
    assert scores.depth_error[0] == [pytest.approx(0.5, abs=1e-4), pytest.approx(0, abs=1e-6)]
    other = dataclasses.replace(exact, rgb=exact.rgb + 0.1 * np.array([0, 1])[:, None, None, None, None])
    assert scene_scores.measure("a", example, other, grid="centres", distance=None).variance == pytest.approx(0.0025)


def test_cameras_in_the_object_and_away_from_it_score_what_can_be_scored():
    example, depth = toy_example()
    pose = example.target.absolute_pose.copy()
    pose[0, :, 3] = [0, 0, 0.5]  # the middle of the box
    pose[1, :, 3] *= -1  # everything is behind this one
    matrices = example.target.camera.intrinsics
    depth = toy_modes.true_depth(BOX, pose, matrices, 24)
    exact = exact_samples(example, depth)
    modes, clean = toy_modes.read_views(BOX, pose, matrices, exact.rgb[:, 1:])
    scores = scene_scores.measure(
        "a", example, exact, grid="centres", distance=None, depth=depth, modes=modes, clean=clean
    )
    assert modes[:, :2].tolist() == [[toy_modes.UNSEEN] * 2] * 2 and not np.isfinite(depth[1]).any()
    assert scores.depth_error == [[pytest.approx(0, abs=1e-6), None]] * 2 and scores.psnr == [[99.0, 99.0]] * 2
    numbers = evaluation_results.summarise([scores])
    json.dumps([dataclasses.asdict(scores), numbers], allow_nan=False)
    assert numbers["num_colours_read"] == 0 and numbers["depth_error"] == pytest.approx(0, abs=1e-6)


def test_small_images_have_no_ssim():
    example, depth = toy_example(size=8)
    scores = scene_scores.measure("a", example, exact_samples(example, depth), grid="centres", distance=None)
    assert scores.ssim is None and scores.depth_error is None and scores.psnr[0] == [99.0, 99.0]


@struct.dataclass
class MeanDifference:
    """In the place of LPIPS."""

    def features(self, images):
        return [images]

    def between(self, a, b):
        return jnp.abs(a[0] - b[0]).mean((-3, -2, -1))


def test_diversity_is_the_mean_distance_of_all_pairs():
    example, depth = toy_example()
    exact = exact_samples(example, depth, count=3)
    shifted = dataclasses.replace(exact, rgb=exact.rgb + np.array([0, 0.1, 0.3])[:, None, None, None, None])
    scores = scene_scores.measure("a", example, shifted, grid="centres", distance=MeanDifference())
    assert scores.pairwise_lpips == pytest.approx((0.1 + 0.3 + 0.2) / 3, abs=1e-5)
    np.testing.assert_allclose(scores.lpips, [[0, 0], [0.1, 0.1], [0.3, 0.3]], atol=1e-5)
    single = scene_scores.measure(
        "a", example, exact_samples(example, depth, 1), grid="centres", distance=MeanDifference()
    )
    assert single.pairwise_lpips is None


# --- all scenes


def scores(psnr, **others) -> scene_scores.SceneScores:
    """Of one scene, from its PSNR [n][t]."""
    count = len(psnr)
    values = {field.name: None for field in dataclasses.fields(scene_scores.SceneScores)}
    values |= {name: [1.0] * count for name in evaluation_results.SAMPLE_MEASURES}
    return scene_scores.SceneScores(
        **(values | {"name": "a", "psnr": psnr, "estimate_psnr": 1.0, "variance": 0.0} | others)
    )


def test_means_and_the_best_of_the_samples_each_scene_counting_once():
    one = scores([[10.0, 20.0], [30.0, 20.0]], lpips=[[0.5, 0.7], [0.1, 0.3]])
    two = scores([[40.0], [20.0]], lpips=[[0.2], [0.2]])
    numbers = evaluation_results.summarise([one, two])
    assert numbers["psnr"] == (20 + 30) / 2 and numbers["psnr_best"] == (25 + 40) / 2
    assert numbers["lpips"] == pytest.approx((0.4 + 0.2) / 2) and numbers["lpips_best"] == pytest.approx(0.2)
    assert numbers["ssim"] is None and numbers["ssim_best"] is None
    assert (numbers["num_scenes"], numbers["num_samples"]) == (2, 4)


def test_numbers_that_are_not_known_do_not_count():
    numbers = evaluation_results.summarise([scores([[1.0]], reprojection=[None]), scores([[1.0]], reprojection=[3.0])])
    assert numbers["reprojection"] == 3.0
    assert evaluation_results.summarise([scores([[1.0]], reprojection=[None])])["reprojection"] is None


def test_calibration_compares_the_first_view_with_the_odds_and_the_others_with_it():
    # Ten samples with exactly the odds' shares; of five novel views that show the colour, one disagrees.
    first = [0] * 5 + [1] * 3 + [2] * 2
    novel = [0, 0, -1, -1, -1, 1, 2, -1, 2, -1]
    scene = scores(
        [[1.0, 1.0]] * 10, modes=[list(pair) for pair in zip(first, novel, strict=True)], clean=[True] * 9 + [False]
    )
    numbers = evaluation_results.summarise([scene])
    assert numbers["total_variation"] == pytest.approx(0)
    assert numbers["mode_purity"] == pytest.approx(0.9)
    assert numbers["novel_view_agreement"] == pytest.approx(0.8) and numbers["num_novel_views"] == 5
    assert numbers["num_colours_read"] == 10


def test_views_that_do_not_show_the_hidden_side_say_nothing_of_it():
    read = scores([[1.0]], modes=[[2]], clean=[True])
    unseen = scores([[1.0]] * 2, modes=[[-1], [-1]], clean=[False, False])
    both = evaluation_results.summarise([read, unseen])
    assert (both["num_colours_read"], both["mode_purity"], both["share_2"]) == (1, 1.0, 1.0)
    none = evaluation_results.summarise([unseen])
    assert none["num_colours_read"] == 0 and none["total_variation"] is None and none["mode_purity"] is None


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ([0.5, 0.3, 0.2], "the odds are right"),
        ([0.8, 0.2, 0.0], "Red is drawn too often"),
        ([0.3, 0.3, 0.4], "Blue is"),
    ],
)
def test_the_page_says_whether_the_odds_are_right(shares, text):
    difference = 0.5 * sum(abs(a - b) for a, b in zip(shares, toy.HIDDEN_PROBABILITIES, strict=True))
    result = {"deterministic": False, "num_colours_read": 200, "total_variation": difference}
    result |= {f"share_{i}": share for i, share in enumerate(shares)}
    assert text in evaluation_page.verdict(result)


def test_one_set_of_honest_draws_in_twenty_is_beyond_the_limit():
    draws = np.random.default_rng(1).multinomial(120, toy.HIDDEN_PROBABILITIES, size=4000) / 120
    beyond = 0.5 * np.abs(draws - toy.HIDDEN_PROBABILITIES).sum(1) > evaluation_results.honest_limit(120)
    assert beyond.mean() == pytest.approx(0.05, abs=0.015)


class Channels:
    """In the place of a network: an image's mean colours are its features."""

    prefix = "mean_"

    def __call__(self, images):
        return images.mean((1, 2)) / 255


def test_distances_of_distributions_need_two_true_views(tmp_path):
    store = evaluation_results.SceneStore(tmp_path / "evaluation", {})
    truth, rng = np.array([0.2, 0.6])[:, None, None, None] * np.ones((2, 4, 4, 3)), np.random.default_rng(0)
    for i in range(2):
        samples = truth[None, i : i + 1] + rng.uniform(0, 0.1, (3, 1, 4, 4, 3))
        store.write(i, scores([[1.0]] * 3, ssim=None), {"samples": samples, "truth": truth[i : i + 1]})
    numbers, missing = evaluation._distribution_numbers(store, 2, Channels())
    assert (numbers["num_drawn_images"], numbers["num_real_images"]) == (6, 2) and missing == {}
    assert numbers["mean_fid"] > 0 and np.isfinite(numbers["mean_kid"])
    numbers, missing = evaluation._distribution_numbers(store, 1, Channels())
    assert numbers == {} and "one true view" in missing["fid, kid"]


def test_honest_draws_differ_from_their_odds_as_stated():
    rng = np.random.default_rng(0)
    draws = rng.multinomial(300, toy.HIDDEN_PROBABILITIES, size=4000) / 300
    expected = 0.5 * np.abs(draws - toy.HIDDEN_PROBABILITIES).sum(1).mean()
    assert evaluation_results.honest_total_variation(300) == pytest.approx(expected, rel=0.05)


# --- the whole


def save_untrained(config, workdir):
    """A checkpoint of a model with small random parameters."""
    model = make_model(config.model, config.image_size, config.loss)
    shapes, rng = jax.eval_shape(model.init, jax.random.key(0)), np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    with Checkpoints(workdir, keep=Retention(1)) as checkpoints:
        checkpoints.save(7, create(params, optax.sgd(0.1)), config)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with an untrained model, and what its evaluation returned."""
    workdir = tmp_path_factory.mktemp("run")
    values = tiny_config(workdir / "data", guidance=1.0)
    values.evaluate.update(num_scenes=SCENES, num_target=TARGETS, num_samples=SAMPLES, sweep_samples=3)
    config = from_dict(values)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("DFM_JAX_LPIPS", str(workdir / "nowhere.npz"))
    monkeypatch.setattr(draw, "PIXELS_PER_DRAW", 2 * SAMPLES * SIZE**2)  # two scenes at once
    monkeypatch.setattr(evaluation.calibration, "STEPS", (1, 2))
    save_untrained(config, workdir)
    result = evaluate(config, workdir)
    yield SimpleNamespace(workdir=workdir, folder=workdir / "evaluation", config=config, result=result)
    monkeypatch.undo()


def test_everything_is_written_and_says_the_same(run):
    stored = json.loads((run.folder / "metrics.json").read_text())
    assert stored == json.loads(json.dumps(run.result))
    assert (stored["num_scenes"], stored["num_samples"], stored["num_skipped"]) == (SCENES, SCENES * SAMPLES, 0)
    for name in ("total_variation", "mode_purity", "context_psnr", "psnr", "psnr_best", "depth_error"):
        assert np.isfinite(stored[name]), name
    rows = list(csv.DictReader((run.folder / "scenes.csv").open()))
    assert len(rows) == SCENES and np.mean([float(row["psnr"]) for row in rows]) == pytest.approx(stored["psnr"])
    assert len(list(csv.DictReader((run.folder / "scenes" / "00001.csv").open()))) == SAMPLES * TARGETS
    page = (run.folder / "index.html").read_text()
    assert "Are the odds right?" in page and 'src="sweep.png"' in page and (run.folder / "samples.png").is_file()


def test_what_cannot_be_measured_is_said(run):
    assert "there are no LPIPS weights" in run.result["left_out"]["lpips"]
    assert "inception_file" in run.result["left_out"]["fid, kid"]
    assert run.result["lpips"] is None and "fid" not in run.result and "vgg_fid" not in run.result


def test_the_sweep_covers_every_sampler_and_number_of_steps(run):
    records = run.result["sweep"]
    points = [((record["sampler"], record["spacing"]), record["num_steps"]) for record in records]
    assert points == [(setting, steps) for setting in evaluation.calibration.SETTINGS for steps in (1, 2)]
    # One step is the same for every sampler.
    assert records[0]["counts"] == records[2]["counts"] == records[4]["counts"]


def test_few_steps_are_compared_with_many(run, monkeypatch):
    monkeypatch.setattr(steps_sweep, "STEPS", (1, 3))
    monkeypatch.setattr(steps_sweep, "LONG", 6)
    result = steps_sweep.sweep(run.config, run.workdir)
    records = result["records"]
    assert [r["num_steps"] for r in records] == [1] * 4 + [3] * 4 + [6] * 2
    assert len({r["to_uniform"]["psnr"] for r in records[:4]}) == 1  # one step is the same for every sampler
    few, many = records[0], records[4]  # DDIM, uniform
    assert many["to_uniform"]["psnr"] > few["to_uniform"]["psnr"]
    assert records[-1]["to_uniform"]["psnr"] == records[-2]["to_log-snr"]["psnr"]
    written = json.loads((run.workdir / "steps" / "steps.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert (run.workdir / "steps" / "steps.png").stat().st_size > 10_000


def test_an_evaluation_goes_on_where_it_was_interrupted(run):
    scene = run.folder / "scenes" / "00001.json"
    before = json.loads(scene.read_text())
    untouched = run.folder / "scenes" / "00002.json"
    when = untouched.stat().st_mtime_ns
    scene.unlink()
    again = evaluate(run.config, run.workdir)
    assert untouched.stat().st_mtime_ns == when
    after = json.loads(scene.read_text())
    np.testing.assert_allclose(after["psnr"], before["psnr"], atol=1e-3)
    assert again["psnr"] == pytest.approx(run.result["psnr"], abs=1e-3)


def test_an_index_file_decides_and_its_skips_are_counted(run, tmp_path):
    stored = json.loads((run.folder / "protocol.json").read_text())
    wanted = [stored["examples"][1], {"scene": "nowhere", "context": [0], "target": [1]}]
    wanted[1:1] = [stored["examples"][0] | {"target": [99]}]
    index = tmp_path / "index.json"
    index.write_text(json.dumps(stored | {"examples": wanted}))
    settings = dataclasses.replace(run.config.evaluate, protocol=str(index), sweep_samples=0)
    (tmp_path / "checkpoints").symlink_to(run.workdir / "checkpoints")
    result = evaluate(dataclasses.replace(run.config, evaluate=settings), tmp_path)
    assert (result["num_scenes"], result["num_skipped"]) == (1, 2)
    assert [skip["scene"] for skip in result["skipped"]] == [stored["examples"][0]["scene"], "nowhere"]
    page = (tmp_path / "evaluation" / "index.html").read_text()
    assert "2 examples of the index file were skipped" in page and "no such scene" in page


def test_the_command_prints_the_numbers_as_its_last_line(run, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "evaluate", lambda config, workdir: {"psnr": 1.5})
    assert main._dispatch("evaluate", run.config, str(run.workdir)) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"psnr": 1.5}


@pytest.fixture(scope="module")
def pixelnerf(run, tmp_path_factory):
    """The same of an untrained pixelNeRF, on the same views."""
    workdir = tmp_path_factory.mktemp("pixelnerf")
    values = tiny_config(run.workdir / "data", guidance=1.0)
    toy_config.make_deterministic(values)
    values.evaluate.update(num_scenes=SCENES, num_target=TARGETS, sweep_samples=3)
    config = from_dict(values)
    save_untrained(config, workdir)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("DFM_JAX_LPIPS", str(workdir / "nowhere.npz"))
    yield SimpleNamespace(workdir=workdir, folder=workdir / "evaluation", result=evaluate(config, workdir))
    monkeypatch.undo()


def test_pixelnerf_is_evaluated_by_the_same_command(pixelnerf):
    result = pixelnerf.result
    assert result["deterministic"] and result["num_samples"] == SCENES
    assert result["mode_purity"] == 0  # grey noise is of no colour
    assert result["sweep"] == []  # it takes no steps
    assert result["variance"] == 0 and result["pairwise_lpips"] is None
    page = (pixelnerf.folder / "index.html").read_text()
    assert "one answer" in page and "Best of" not in page and "Diversity" not in page and "None" not in page


def test_pixelnerf_and_the_diffusion_model_are_compared_on_the_same_views(run, pixelnerf, tmp_path, capsys):
    arguments = [f"dfm={run.workdir}", f"pixelnerf={pixelnerf.workdir}", f"--out={tmp_path / 'out'}"]
    assert compare_evaluations.main(arguments) == 0
    printed = capsys.readouterr()
    numbers = json.loads(printed.out.splitlines()[-1])
    assert numbers == json.loads((tmp_path / "out" / "comparison.json").read_text())
    for name, evaluated in (("dfm", run), ("pixelnerf", pixelnerf)):
        for key in ("psnr", "psnr_best", "total_variation", "mode_purity", "step"):
            assert numbers[name][key] == evaluated.result[key], (name, key)
    table = {line[:34].strip(): line[34:].split() for line in printed.err.splitlines()}
    assert table["Hidden side: purity"] == [f"{x.result['mode_purity']:.1%}" for x in (run, pixelnerf)]
    assert table["PSNR, best sample"] == [f"{run.result['psnr_best']:.1f}", "dB"]  # one answer has no best
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<th>dfm</th><th>pixelnerf</th>" in page and 'src="comparison.png"' in page
    sheet = np.asarray(Image.open(tmp_path / "out" / "comparison.png"))
    assert sheet.shape[0] > 2 * SCENES * 96


def test_what_cannot_be_compared_is_one_clear_error(run, pixelnerf, tmp_path, capsys):
    assert compare_evaluations.main([f"a={run.workdir}", f"b={tmp_path}", f"--out={tmp_path}"]) == 1
    assert "holds no evaluation: run --mode=evaluate" in capsys.readouterr().err
    assert compare_evaluations.main(["runs/toy", f"--out={tmp_path}"]) == 1
    assert "'runs/toy' is not NAME=WORKDIR" in capsys.readouterr().err
    shutil.copytree(pixelnerf.folder, tmp_path / "evaluation")
    views = tmp_path / "evaluation" / "protocol.json"
    views.write_text(json.dumps(json.loads(views.read_text()) | {"examples": []}))
    assert compare_evaluations.main([f"a={run.workdir}", f"b={tmp_path}", f"--out={tmp_path}"]) == 1
    printed = capsys.readouterr()
    assert "were not evaluated on the same views" in printed.err and not printed.out


FOUR_DEVICES = """
import json, os, sys
from functools import partial
from pathlib import Path
import jax
from dfm_jax.config_reading import from_dict
from dfm_jax.evaluation import evaluate, spread
from tests.test_evaluate import save_untrained
from tests.test_sample import tiny_config

make_mesh, used = spread.make_mesh, []
def mesh_of(count, scenes, rays):
    used.append(make_mesh(scenes, rays, jax.local_devices()[:count]).devices.shape)
    return make_mesh(scenes, rays, jax.local_devices()[:count])

folder = Path(sys.argv[1])
for scenes, samples in ((3, 2), (1, 1)):
    values = tiny_config(folder / "data", guidance=1.0)
    values.evaluate.update(num_scenes=scenes, num_target=2, num_samples=samples, sweep_samples=0)
    config = from_dict(values)
    for devices in (1, 4):
        spread.make_mesh = partial(mesh_of, devices)
        workdir = folder / f"{scenes}-{devices}"
        save_untrained(config, workdir)
        evaluate.evaluate(config, workdir)
print(json.dumps(used))
"""


def test_four_devices_measure_what_one_measures(tmp_path):
    """Scenes and samples side by side on them, or the rays of a single one."""
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    settings = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES, str(tmp_path)],
        env=os.environ | settings | {"DFM_JAX_LPIPS": str(tmp_path / "nowhere.npz")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[1, 1], [4, 1], [1, 1], [1, 4]]
    for scenes in (3, 1):
        one, four = (tmp_path / f"{scenes}-{devices}" / "evaluation" for devices in (1, 4))
        tables = [list(csv.DictReader((folder / "scenes.csv").open())) for folder in (one, four)]
        assert len(tables[0]) == len(tables[1]) == scenes
        for a, b in zip(*tables, strict=True):
            assert a.pop("scene") == b.pop("scene")
            numbers = [[float(x) for x in row.values() if x] for row in (a, b)]
            np.testing.assert_allclose(numbers[1], numbers[0], rtol=1e-3, atol=1e-4)
        numbers = [json.loads((folder / "metrics.json").read_text()) for folder in (one, four)]
        measured = [{name: x for name, x in row.items() if isinstance(x, float)} for row in numbers]
        assert measured[0].keys() == measured[1].keys() >= {"psnr", "total_variation", "context_psnr"}
        for name in measured[0].keys() - {"seconds"}:
            assert measured[1][name] == pytest.approx(measured[0][name], rel=1e-3, abs=1e-4), name


def test_the_numbers_of_a_run_in_a_bucket_are_written_here(run, tmp_path, monkeypatch):
    """As `--mode=sample` does; only what reads the bucket is replaced."""
    asked, restore = [], trained.restore_params

    def restore_params(workdir):
        asked.append(workdir)
        return restore(run.workdir)

    monkeypatch.setattr(trained, "restore_params", restore_params)
    monkeypatch.chdir(tmp_path)
    settings = dataclasses.replace(run.config.evaluate, num_scenes=1, sweep_samples=0)
    evaluate(dataclasses.replace(run.config, evaluate=settings), "gs://bucket/runs/far")
    assert asked == ["gs://bucket/runs/far"] and [path.name for path in tmp_path.iterdir()] == ["far"]
    stored = json.loads((tmp_path / "far" / "evaluation" / "protocol.json").read_text())
    assert stored["about"] == "evaluated in far" and len(stored["examples"]) == 1


def test_other_settings_start_anew(tmp_path):
    store = evaluation_results.SceneStore(tmp_path / "evaluation", {"step": 1})
    store.write(0, scores([[1.0]], ssim=None), {"truth": np.zeros((1, 2, 2, 3))})
    assert evaluation_results.SceneStore(tmp_path / "evaluation", {"step": 1}).done() == {0}
    assert store.scores(0).psnr == [[1.0]]
    store.write(1, scores([[2.0]], ssim=None), {"truth": np.zeros((1, 2, 2, 3))})
    (tmp_path / "evaluation" / "scenes" / "00000.npz").unlink()  # emptying the folder was interrupted
    assert store.done() == {1}
    assert evaluation_results.SceneStore(tmp_path / "evaluation", {"step": 2}).done() == set()


def test_no_checkpoint_and_no_scenes_are_clear_errors(run, tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        evaluate(run.config, tmp_path)
    values = tiny_config(pathlib.Path(run.config.data.dir))
    values.evaluate.num_samples = 0
    with pytest.raises(UserError, match="evaluate: num_scenes, num_samples and num_target must be at least 1"):
        from_dict(values)
