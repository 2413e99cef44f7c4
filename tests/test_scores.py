"""What is measured of a scene, and of all: exact samples score perfectly, and numbers are pooled as documented."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from dfm_jax.data.loading import toy_scenes
from dfm_jax.errors import UserError
from dfm_jax.evaluation import scene_store, summary
from dfm_jax.evaluation.calibration import honest_draws, toy_modes
from dfm_jax.evaluation.calibration.known_odds import SHAPES, TOY
from dfm_jax.evaluation.scores import SceneSamples, SceneScores, measure
from dfm_jax.pages import odds_section
from dfm_jax.structs import Camera, Example, RenderedViews, Views
from tests.test_consistency import BOX

ODDS = toy_scenes.HIDDEN_PROBABILITIES

# --- one scene


def toy_example(size: int = 24, num_target: int = 2) -> tuple[Example, np.ndarray]:
    """A toy scene seen from its front and, as targets and one padding view, from elsewhere; and its true depths."""
    poses = toy_scenes.orbit_pose(np.linspace(0, 2, num_target + 2))
    looks = [toy_scenes.render_view(BOX, pose, toy_scenes.intrinsics(), size) for pose in poses]
    images, depth = (np.stack([look[i] for look in looks]).astype(np.float32) for i in (0, 1))
    matrices = np.tile(toy_scenes.intrinsics(), (len(poses), 1, 1))
    views = Views(images, Camera(poses, matrices), poses[:, :3], np.arange(len(poses)) < num_target + 1)
    views = jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, views)
    context, target = (jax.tree.map(lambda x, s=s: x[s], views) for s in (slice(1), slice(1, None)))
    example = Example(context, target, np.float32(toy_scenes.NEAR), np.float32(toy_scenes.FAR), np.int32(0))
    return example, depth[1:]


def exact_samples(example: Example, depth: np.ndarray, count: int = 2) -> SceneSamples:
    """As if every sample were the truth; nothing is known of the context's depth."""
    images = np.concatenate([example.context.images, example.target.images])
    distance = np.concatenate([np.zeros_like(depth[:1]), np.where(np.isfinite(depth), depth, 0)])
    opacity = (distance > 0).astype(np.float32)
    repeat = lambda x: np.repeat(x[None], count, axis=0)
    views = RenderedViews(repeat(images), repeat(distance), repeat(opacity))
    return SceneSamples(views, repeat(images[1]), example.target.images[0])


def with_rgb(samples: SceneSamples, rgb: np.ndarray) -> SceneSamples:
    return samples.replace(views=samples.views.replace(rgb=rgb))


def test_samples_that_are_the_truth_score_perfectly():
    example, depth = toy_example()
    scores = measure("a", example, exact_samples(example, depth), grid="centres", lpips_fn=None, depth=depth)
    assert scores.psnr == [[99.0, 99.0]] * 2 and scores.scene_psnr == scores.context_psnr == [99.0, 99.0]
    np.testing.assert_allclose(scores.ssim, 1, rtol=1e-5)
    np.testing.assert_allclose(scores.depth_error, 0, atol=1e-6)
    np.testing.assert_allclose(scores.chamfer, 0, atol=1e-5)  # distances of about 4 are float32
    assert scores.mean_sample_psnr == [99.0, 99.0] and (scores.ause, scores.aurc) == (None, 0.0)
    assert scores.lpips is None and scores.pairwise_lpips is None and scores.variance == 0
    assert max(scores.reprojection) < 0.2 and max(scores.contradicted) < 0.05


def test_each_number_is_of_its_own_view_and_padding_is_left_out():
    example, depth = toy_example()
    exact = exact_samples(example, depth)
    rgb, depth_again = exact.views.rgb.copy(), exact.views.depth.copy()
    rgb[1, 2] += 0.1  # second sample, second target
    rgb[:, 3] = 0.7  # padding
    depth_again[0, 1] += 0.5 * exact.views.opacity[0, 1]
    drawn = exact.replace(views=exact.views.replace(rgb=rgb, depth=depth_again))
    scores = measure("a", example, drawn, grid="centres", lpips_fn=None, depth=depth)
    # dB: images are float32.
    assert scores.psnr[0] == [99.0, 99.0] and scores.psnr[1] == [99.0, pytest.approx(20.0, abs=1e-3)]
    # Distances of about 4 are float32.
    assert scores.depth_error[0] == [pytest.approx(0.5, abs=1e-4), pytest.approx(0, abs=1e-6)]
    other = with_rgb(exact, exact.views.rgb + 0.1 * np.array([0, 1])[:, None, None, None, None])
    assert measure("a", example, other, grid="centres", lpips_fn=None).variance == pytest.approx(0.0025)


def test_cameras_in_the_object_and_away_from_it_score_what_can_be_scored():
    example, depth = toy_example()
    pose = example.target.absolute_pose.copy()
    pose[0, :, 3] = [0, 0, 0.5]  # the middle of the box
    pose[1, :, 3] *= -1  # everything is behind this one
    matrices = example.target.camera.intrinsics
    depth = toy_modes.true_depth(BOX, pose, matrices, 24)
    exact = exact_samples(example, depth)
    modes, clean = toy_modes.read_views(BOX, pose, matrices, exact.views.rgb[:, 1:])
    scores = measure("a", example, exact, grid="centres", lpips_fn=None, depth=depth, modes=modes, clean=clean)
    assert modes[:, :2].tolist() == [[toy_modes.UNSEEN] * 2] * 2 and not np.isfinite(depth[1]).any()
    assert scores.depth_error == [[pytest.approx(0, abs=1e-6), None]] * 2 and scores.psnr == [[99.0, 99.0]] * 2
    numbers = summary.summarise([scores], ODDS)
    json.dumps([dataclasses.asdict(scores), numbers], allow_nan=False)
    assert numbers["num_colours_read"] == 0 and numbers["depth_error"] == pytest.approx(0, abs=1e-6)


def test_small_images_have_no_ssim():
    example, depth = toy_example(size=8)
    scores = measure("a", example, exact_samples(example, depth), grid="centres", lpips_fn=None)
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
    shifted = with_rgb(exact, exact.views.rgb + np.array([0, 0.1, 0.3])[:, None, None, None, None])
    scores = measure("a", example, shifted, grid="centres", lpips_fn=MeanDifference())
    assert scores.pairwise_lpips == pytest.approx((0.1 + 0.3 + 0.2) / 3, abs=1e-5)
    np.testing.assert_allclose(scores.lpips, [[0, 0], [0.1, 0.1], [0.3, 0.3]], atol=1e-5)
    single = measure("a", example, exact_samples(example, depth, 1), grid="centres", lpips_fn=MeanDifference())
    assert single.pairwise_lpips is None


# --- all scenes


def made_scores(psnr, **others) -> SceneScores:
    """Of one scene, from its PSNR [n][t]."""
    count = len(psnr)
    values = {field.name: None for field in dataclasses.fields(SceneScores)}
    values |= {name: [1.0] * count for name in summary.SAMPLE_MEASURES}
    return SceneScores(**(values | {"name": "a", "psnr": psnr, "estimate_psnr": 1.0, "variance": 0.0} | others))


def test_means_and_the_best_of_the_samples_each_scene_counting_once():
    one = made_scores([[10.0, 20.0], [30.0, 20.0]], lpips=[[0.5, 0.7], [0.1, 0.3]])
    two = made_scores([[40.0], [20.0]], lpips=[[0.2], [0.2]])
    numbers = summary.summarise([one, two])
    assert numbers["psnr"] == (20 + 30) / 2 and numbers["psnr_best"] == (25 + 40) / 2
    assert numbers["lpips"] == pytest.approx((0.4 + 0.2) / 2) and numbers["lpips_best"] == pytest.approx(0.2)
    assert numbers["ssim"] is None and numbers["ssim_best"] is None
    assert (numbers["num_scenes"], numbers["num_samples"]) == (2, 4)


def test_numbers_that_are_not_known_do_not_count():
    numbers = summary.summarise([made_scores([[1.0]], reprojection=[None]), made_scores([[1.0]], reprojection=[3.0])])
    assert numbers["reprojection"] == 3.0
    assert summary.summarise([made_scores([[1.0]], reprojection=[None])])["reprojection"] is None


def test_calibration_compares_the_first_view_with_the_odds_and_the_others_with_it():
    # Ten samples with exactly the odds' shares; of five novel views that show the colour, one disagrees.
    first = [0] * 5 + [1] * 3 + [2] * 2
    novel = [0, 0, -1, -1, -1, 1, 2, -1, 2, -1]
    scene = made_scores(
        [[1.0, 1.0]] * 10, modes=[list(pair) for pair in zip(first, novel, strict=True)], clean=[True] * 9 + [False]
    )
    numbers = summary.summarise([scene], ODDS)
    assert numbers["total_variation"] == pytest.approx(0)
    assert numbers["mode_purity"] == pytest.approx(0.9)
    assert numbers["novel_view_agreement"] == pytest.approx(0.8) and numbers["num_novel_views"] == 5
    assert numbers["num_colours_read"] == 10


def test_views_that_do_not_show_the_hidden_side_say_nothing_of_it():
    read = made_scores([[1.0]], modes=[[2]], clean=[True])
    unseen = made_scores([[1.0]] * 2, modes=[[-1], [-1]], clean=[False, False])
    both = summary.summarise([read, unseen], ODDS)
    assert (both["num_colours_read"], both["mode_purity"], both["share_2"]) == (1, 1.0, 1.0)
    none = summary.summarise([unseen], ODDS)
    assert none["num_colours_read"] == 0 and none["total_variation"] is None and none["mode_purity"] is None


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ([0.5, 0.3, 0.2], "the odds are right"),
        ([0.8, 0.2, 0.0], "Red is sampled too often"),
        ([0.3, 0.3, 0.4], "Blue is"),
    ],
)
def test_the_page_says_whether_the_odds_are_right(shares, text):
    shown = np.repeat(np.arange(3), np.rint(200 * np.array(shares)).astype(int))
    scene = made_scores([[1.0]] * 200, modes=[[mode] for mode in shown.tolist()], clean=[True] * 200)
    assert text in odds_section.verdict(numbers_of(scene, TOY))


def numbers_of(scene, known):
    calibration = summary._calibration([scene], known.odds.ravel().tolist())
    return calibration | {"deterministic": False, "attributes": summary.odds_of_attributes([scene], known)}


def test_attributes_that_are_right_alone_and_wrong_together_are_told():
    """A pillar is likelier behind some shapes than behind others; here it is drawn by itself."""
    others = lambda axis: tuple(i for i in range(3) if i != axis)
    side, shape, pillar = (SHAPES.odds.sum(others(axis)) for axis in range(3))
    for odds, text in (
        (SHAPES.odds, "the odds are right"),
        (np.einsum("i,j,k", side, shape, pillar), "not all together"),
    ):
        shown = np.repeat(np.arange(18), np.rint(2000 * odds).astype(int).ravel())
        scene = made_scores([[1.0]] * len(shown), modes=[[mode] for mode in shown.tolist()], clean=[True] * len(shown))
        assert text in odds_section.verdict(numbers_of(scene, SHAPES))


def test_one_set_of_honest_draws_in_twenty_is_beyond_the_limit():
    draws = np.random.default_rng(1).multinomial(120, ODDS, size=4000) / 120
    beyond = 0.5 * np.abs(draws - ODDS).sum(1) > honest_draws.total_variation_limit(120, ODDS)
    assert beyond.mean() == pytest.approx(0.05, abs=0.015)  # four standard deviations of a share of 4000 draws


def test_honest_draws_differ_from_their_odds_as_stated():
    rng = np.random.default_rng(0)
    draws = rng.multinomial(300, ODDS, size=4000) / 300
    expected = 0.5 * np.abs(draws - ODDS).sum(1).mean()
    # A rule of thumb is compared with an average of draws.
    assert honest_draws.expected_total_variation(300, ODDS) == pytest.approx(expected, rel=0.05)


def test_other_settings_start_anew(tmp_path):
    store = scene_store.SceneStore(tmp_path / "evaluation", {"step": 1})
    store.write(0, made_scores([[1.0]], ssim=None), {"truth": np.zeros((1, 2, 2, 3))})
    assert scene_store.SceneStore(tmp_path / "evaluation", {"step": 1}).done() == {0}
    assert store.scores(0).psnr == [[1.0]]
    store.write(1, made_scores([[2.0]], ssim=None), {"truth": np.zeros((1, 2, 2, 3))})
    (tmp_path / "evaluation" / "scenes" / "00000.npz").unlink()  # emptying the folder was interrupted
    assert store.done() == {1}
    assert scene_store.SceneStore(tmp_path / "evaluation", {"step": 2}).done() == set()


def test_scenes_of_another_version_are_measured_again(tmp_path, capsys):
    """As those are that were stored before a measure was added."""
    store = store_one(tmp_path, 1)
    path = tmp_path / "scenes" / "00000.json"
    stored = json.loads(path.read_text())
    for other, told in ((stored | {"sharpness": 1.0}, "with sharpness"), ({**stored, "psnr": ...}, "without psnr")):
        path.write_text(json.dumps({name: value for name, value in other.items() if value is not ...}))
        with pytest.raises(UserError, match=f"of another version of dfm_jax .{told}.: .* --mode=evaluate"):
            store.scores(0)
        assert scene_store.SceneStore(tmp_path, {"step": 1}).done() == set()
        assert f"1 scenes again: they are of another version of dfm_jax ({told})" in capsys.readouterr().err
    path.write_text(json.dumps(stored))
    assert scene_store.SceneStore(tmp_path, {"step": 1}).done() == {0} and not capsys.readouterr().err


def store_one(folder, step):
    """An evaluation of one scene that goes as far as its page."""
    store = scene_store.SceneStore(folder, {"step": step})
    store.write(0, made_scores([[float(step)]], ssim=None), {"truth": np.zeros((1, 2, 2, 3))})
    (store.folder / "metrics.json").write_text(str(step))
    return store


def test_an_evaluation_stays_until_another_is_complete_and_then_lies_beside_it(tmp_path):
    folder = tmp_path / "evaluation"
    store_one(folder, 1).complete()
    store = store_one(folder, 2)
    assert (folder / "metrics.json").read_text() == "1" and [path.name for path in tmp_path.iterdir()] == ["evaluation"]
    assert scene_store.StoredScenes(folder).scores(0).psnr == [[1.0]]
    again = scene_store.SceneStore(folder, {"step": 2})  # it was interrupted
    assert again.done() == {0}
    again.complete()
    assert (folder / "metrics.json").read_text() == "2" and again.scores(0).psnr == [[2.0]]
    assert (tmp_path / "evaluation-old-1" / "metrics.json").read_text() == "1"
    assert not any(path.name.startswith(".") for path in folder.iterdir()), store.folder


def test_an_evaluation_that_was_killed_while_it_took_its_place_is_gone_on_with(tmp_path, monkeypatch):
    folder = tmp_path / "evaluation"
    store_one(folder, 1).complete()
    store = store_one(folder, 2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scene_store.earlier_results.output_folders, "place", interrupt)
        store.complete()
    again = scene_store.SceneStore(folder, {"step": 2})
    assert again.done() == {0}
    again.complete()
    assert (folder / "metrics.json").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation", "evaluation-old-1"]


def interrupt(*_):
    raise KeyboardInterrupt


def test_an_interrupted_evaluation_of_something_else_is_set_aside(tmp_path):
    folder = tmp_path / "evaluation"
    store_one(folder, 1).complete()
    store_one(folder, 2)
    store_one(folder, 3).complete()
    assert (folder / "metrics.json").read_text() == "3"
    kept = sorted((path / "metrics.json").read_text() for path in tmp_path.glob("evaluation-old-*"))
    assert kept == ["1", "2"]
