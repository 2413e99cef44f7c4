"""An evaluation of any number of scenes: what it holds of them at a time, what it keeps for others, and that nothing of
that changes a number."""

import logging
import weakref

import numpy as np
import pytest

from dfm_jax.commands import evaluated_scenes, evaluated_views, measured_scenes
from dfm_jax.data.builders.transforms_json import TransformsSource
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.data.preparing import building
from dfm_jax.evaluation import distribution_metrics, distributions, features, scene_store, summary
from dfm_jax.evaluation.distribution_metrics import frechet_distance, kernel_distance
from dfm_jax.evaluation.feature_files import open_features, write_features
from dfm_jax.pages import evaluation_page
from tests import captures_source
from tests.test_protocols import OPTIONS, Repeating, config_for
from tests.test_scores import made_scores

TRUTH = {"data": {"files": "0123", "index": "4567"}, "frames": [[0, [1]], [1, [1]]], "image_size": 4}


class Channels(features.Extractor):
    """In the place of a network: an image's mean colours are its features."""

    def __init__(self, network="mean"):
        super().__init__("mean_", "mean colours", {}, network)
        object.__setattr__(self, "seen", [])

    def stream(self, parts):
        for images in parts:
            self.seen.append(len(images))
            yield (images.mean((1, 2)) / 255).astype(np.float32)


class Lazy:
    """Gives arrays or scores that are made when they are asked for, and knows how many are alive at a time."""

    def __init__(self, make):
        self.make, self.alive, self.most, self.made = make, [], 0, 0

    def __call__(self, index):
        thing = self.make(index)
        self.alive = [ref for ref in self.alive if ref() is not None] + [weakref.ref(thing)]
        self.made, self.most = self.made + 1, max(self.most, len(self.alive))
        return thing


class Store(scene_store.StoredScenes):
    """Of scenes that are nowhere."""

    def __init__(self, folder):
        super().__init__(folder)
        colour = lambda i: np.full((2, 4, 4, 3), i % 251, np.uint8)
        self.read, self.measured = Lazy(colour), Lazy(lambda i: made_scores([[float(i)], [float(i)]]))

    def images_of_all(self, name, count):
        yield from map(self.read, range(count))

    def scores(self, index):
        return self.measured(index)


def test_one_group_of_scenes_is_sampled_and_measured_at_a_time(tmp_path, monkeypatch):
    """However many groups there are: their pictures are stored, and go."""
    captures_source.write_transforms(tmp_path / "source" / "a", captures_source.arc(6))
    building.prepare(TransformsSource(tmp_path / "source", (0, 0, 0)), tmp_path, "captures", OPTIONS)
    config = config_for(tmp_path, "captures", num_samples=2)
    data = evaluated_views.open_data(config)
    views = [(0, ViewIndices(np.array([i % 3]), np.array([4, 5]))) for i in range(12)]
    alive, most = [], []

    class Counted(Repeating):
        def __call__(self, example):
            scenes = super().__call__(example)
            alive[:] = [ref for ref in alive if ref() is not None] + [weakref.ref(each.views.rgb) for each in scenes]
            most.append(len(alive))
            return scenes

    monkeypatch.setattr(evaluated_scenes, "_Sampling", Counted)
    networks = measured_scenes.Networks(None, None, None, {})
    store = scene_store.SceneStore(tmp_path / "evaluation", {})
    evaluated_scenes.evaluate_scenes(config, {}, data, views, [*range(12)], store, networks)
    assert len(most) == 6 and max(most) <= 2 * Counted.at_once and store.done() == {*range(12)}


@pytest.mark.parametrize("count", [10, 400])
def test_what_is_held_of_scenes_does_not_grow_with_their_number(tmp_path, monkeypatch, count):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Store(tmp_path)
    distributions.distribution_numbers(store, Channels(), count, (2 * count, 2 * count), TRUTH, tmp_path / "data")
    assert store.read.made == 2 * count and store.read.most <= 2  # one in hand, and the next
    scores = scene_store.StoredScores(store, count)
    numbers = summary.summarise(scores)
    assert numbers["num_scenes"] == count and numbers["psnr"] == np.mean(range(count))
    summary.calibration_of_scalars(scores)
    scene_store.write_scene_table(tmp_path / "scenes.csv", scores)
    assert store.measured.made >= 3 * count and store.measured.most <= 4


def test_the_page_shows_a_bounded_number_of_scenes(tmp_path):
    result, pages = {"deterministic": False}, []
    for count in (evaluation_page.SCENES_LISTED, 20 * evaluation_page.SCENES_LISTED):
        store = Store(tmp_path)
        pages.append(evaluation_page._scenes(result, scene_store.StoredScores(store, count)))
        assert store.measured.made == evaluation_page.SCENES_LISTED
    assert "Every scene" in pages[0] and "The first 200 of 4000 scenes" in pages[1] and "scenes.csv" in pages[1]
    assert len(pages[1]) < len(pages[0]) + 200


def test_images_are_taken_from_the_parts_when_they_are_needed(monkeypatch):
    monkeypatch.setattr(features, "_extract", lambda params, images, network: images.mean((1, 2)))
    images = np.random.default_rng(0).integers(0, 256, (5 * features.IMAGES_AT_ONCE, 4, 4, 3), np.uint8)
    taken = []

    def parts():
        for part in np.array_split(images, 11):
            taken.append(len(part))
            yield part

    stream = features.Extractor("", "", {}, "mean").stream(parts())
    first = next(stream)
    assert sum(taken) < 3 * features.IMAGES_AT_ONCE and len(first) == features.IMAGES_AT_ONCE
    joined = np.concatenate([first, *stream])
    np.testing.assert_array_equal(joined, features.Extractor("", "", {}, "mean")(images))  # however they are divided


def test_features_in_files_have_the_distances_of_features_in_memory(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    sets = [rng.normal(shift, 1, (count, 6)).astype(np.float32) for shift, count in ((0.0, 70), (0.5, 55))]
    files = [write_features(tmp_path / f"{i}.npy", np.array_split(x, 4), len(x)) for i, x in enumerate(sets)]
    for x, file in zip(sets, files, strict=True):
        np.testing.assert_array_equal(file, x)
        np.testing.assert_array_equal(file[3:9], x[3:9])
        np.testing.assert_array_equal(file[np.array([7, 2, 2])], x[[7, 2, 2]])
    whole = frechet_distance(*sets)
    assert frechet_distance(*files) == whole
    subsets = {"subsets": 5, "subset_size": 20}
    assert kernel_distance(*files, **subsets) == kernel_distance(*sets, **subsets)
    monkeypatch.setattr(distribution_metrics, "ROWS_AT_ONCE", 7)
    assert frechet_distance(*files) == pytest.approx(whole, rel=1e-12)  # float64, in another order


def test_a_damaged_file_of_features_is_none(tmp_path):
    path = tmp_path / "features.npy"
    write_features(path, [np.ones((3, 2), np.float32)], 3)
    assert open_features(path, 3).shape == (3, 2) and open_features(path, 4) is None
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:-1], b"x" + whole[1:]):
        path.write_bytes(damaged)
        assert open_features(path, 3) is None
    with pytest.raises(ValueError, match="2 features of 3 images"):
        write_features(path, [np.ones((2, 2), np.float32)], 3)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_features_of_true_views_are_computed_once(tmp_path, monkeypatch, caplog):
    """For each network, data set and choice of frames; what is used again is said."""
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    network, images = Channels(), [np.full((2, 4, 4, 3), 7 * i, np.uint8) for i in range(3)]
    keep = lambda truth, network=network: distributions.kept_features(network, lambda: images, 6, truth, tmp_path)
    first = keep(TRUTH)
    assert first.filename.parent == tmp_path / "features" and "are there already" not in caplog.text
    np.testing.assert_array_equal(keep(TRUTH)[:], first[:])
    assert network.seen == [2, 2, 2] and f"are there already: {first.filename}" in caplog.text
    others = [{"frames": [[0, [2]], [1, [1]]]}, {"image_size": 8}, {"data": {"files": "89ab", "index": "4567"}}]
    assert len({keep(TRUTH | other).filename for other in others} | {first.filename}) == 4
    assert keep(TRUTH, Channels("another")).filename != first.filename
    first.filename.write_bytes(b"")  # damaged: computed again
    assert len(keep(TRUTH)[:]) == 6 and len(network.seen) == 3 * 5


def test_features_are_kept_where_that_can_be(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("no folder")
    images, data = [np.zeros((2, 4, 4, 3), np.uint8)], tmp_path / "file"
    found = distributions.kept_features(Channels(), lambda: images, 2, TRUTH, data)
    assert found.filename.parent == tmp_path / "cache" / "dfm_jax" / "features"
    without_checksums = TRUTH | {"data": {"files": None, "index": "4567"}}
    assert distributions.kept_features(Channels(), lambda: images, 2, without_checksums, tmp_path) is None


def test_distances_of_distributions_need_two_true_views(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = scene_store.SceneStore(tmp_path / "evaluation", {})
    truth, rng = np.array([0.2, 0.6])[:, None, None, None] * np.ones((2, 4, 4, 3)), np.random.default_rng(0)
    for i in range(2):
        samples = truth[None, i : i + 1] + rng.uniform(0, 0.1, (3, 1, 4, 4, 3))
        store.write(i, made_scores([[1.0]] * 3, ssim=None), {"samples": samples, "truth": truth[i : i + 1]})
    numbers, missing = distributions.distribution_numbers(store, Channels(), 2, (6, 2), TRUTH, tmp_path / "data")
    assert (numbers["num_drawn_images"], numbers["num_real_images"]) == (6, 2) and missing == {}
    assert numbers["mean_fid"] > 0 and np.isfinite(numbers["mean_kid"])
    assert not list(store.folder.glob(".features*"))
    numbers, missing = distributions.distribution_numbers(store, Channels(), 1, (3, 1), TRUTH, tmp_path / "data")
    assert numbers == {} and "one true view" in missing["fid, kid"]
