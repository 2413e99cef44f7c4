"""Protocols of other people's evaluations: their index files, and what is said of an evaluation by them."""

import dataclasses
import json
import pathlib
import shutil
import types

import numpy as np
import pytest
from PIL import Image

from dfm_jax.commands import evaluated_scenes, evaluated_views, measured_scenes
from dfm_jax.config.reading import from_dict
from dfm_jax.config.sampling import PROTOCOLS as NAMES
from dfm_jax.data.builders.co3d import CO3DSource
from dfm_jax.data.builders.realestate10k import RealEstate10KSource
from dfm_jax.data.builders.transforms_json import TransformsSource
from dfm_jax.data.loading import dataset
from dfm_jax.data.preparing import building, posed_scenes
from dfm_jax.errors import UserError
from dfm_jax.evaluation import evaluation_index, index_layouts, scores, summary
from dfm_jax.evaluation.evaluation_index import Entry
from dfm_jax.evaluation.extent import Extent
from dfm_jax.evaluation.protocols import __main__ as table_command
from dfm_jax.evaluation.protocols.comparison import Circumstances, compare
from dfm_jax.evaluation.protocols.table import PROTOCOLS
from dfm_jax.evaluation.scene_store import SceneStore
from dfm_jax.evaluation.scores import SceneSamples
from dfm_jax.pages import evaluation_page, protocol_section
from dfm_jax.structs import RenderedViews
from tests import captures_source, co3d_source
from tests.realestate10k_source import write_clip
from tests.test_sample import tiny_config

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
OPTIONS = posed_scenes.StoreOptions(image_size=0, min_frames=3)

# Of the files as published: scenes, examples, scenes without one (null or an empty list), examples of which a target is
# a context frame, and examples that are refused where every frame is there.
PUBLISHED = {
    "pixelsplat_re10k": (7194, 6474, 720, 575, 0),
    "latentsplat_re10k_extra": (7194, 6424, 770, 0, 0),
    "latentsplat_re10k_intra": (7194, 6474, 720, 598, 0),
    "latentsplat_co3d_hydrant_extra": (14, 280, 0, 13, 0),
    "latentsplat_co3d_hydrant_intra": (14, 280, 0, 71, 0),
    "latentsplat_co3d_hydrant_360": (4, 24, 0, 8, 0),
    "latentsplat_co3d_teddybear_extra": (24, 480, 0, 13, 0),
}


@pytest.mark.skipif(not (SHARED / "protocols").is_dir(), reason="../shared/data/protocols is not here")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_index_files_are_read_whole(name):
    entries, without = evaluation_index.read(SHARED / "protocols" / f"{name}.json")
    scenes = {entry.scene for entry in entries} | {skip.scene for skip in without}
    both = sum(bool({*entry.context} & {*entry.target}) for entry in entries)
    last = max(max(entry.context + entry.target) for entry in entries)
    frames = {"frame_names": tuple(f"n{i}" for i in range(last + 1)), "numbers": np.arange(last + 1), "holes": ()}
    scene = made_up_scene(num_frames=last + 1, **frames)
    draws = [evaluation_index._draw(entry, scene) for entry in entries]
    refused = [draw for draw in draws if isinstance(draw, index_layouts.Skipped)]
    assert (len(scenes), len(entries), len(without), both, len(refused)) == PUBLISHED[name]
    assert {skip.kind for skip in without} <= {index_layouts.NONE_LISTED}
    for entry, draw in zip(entries, draws, strict=True):
        assert (tuple(draw.context), tuple(draw.target)) == (entry.context, entry.target)
    single = PROTOCOLS["pixelsplat-single"].used(entries)
    assert [(e.context, e.target) for e in single] == [(e.context[:1], e.target) for e in entries]


def made_up_scene(num_frames, **fields):
    missing = {field.name: None for field in dataclasses.fields(dataset.SceneRecord)} | fields
    return dataset.SceneRecord(**(missing | {"name": "a", "camera_to_world": np.zeros((num_frames, 4, 4))}))


# --- layouts, made up


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_lists_of_a_scene_are_read_and_empty_ones_are_none(tmp_path):
    two = [{"context": [1, 9], "target": [9]}, {"context": [2, 8], "target": [4, 5]}]
    path = write_json(tmp_path / "index.json", {"a": two, "b": [], "c": None, "d": two[0]})
    entries, without = evaluation_index.read(path)
    assert entries == [Entry("a", (1, 9), (9,)), Entry("a", (2, 8), (4, 5)), Entry("d", (1, 9), (9,))]
    assert [(skip.scene, skip.kind) for skip in without] == [("b", "none listed"), ("c", "none listed")]


def write_splits(root):
    for scene in ("a", "b"):
        write_json(root / scene / "train_test_split_1.json", {"train_ids": [2], "test_ids": [4, 0]})
    return write_json(root / "b" / "train_test_split_2.json", {"train_ids": [2, 3], "test_ids": [4]})


def test_sevas_split_files_are_read_one_or_many(tmp_path):
    two = write_splits(tmp_path)
    assert evaluation_index.read(two) == ([Entry("b", (2, 3), (4,))], [])
    both = [Entry("a", (2,), (4, 0)), Entry("b", (2,), (4, 0))]
    assert evaluation_index.read(f"{tmp_path}/*/train_test_split_1.json") == (both, [])
    with pytest.raises(UserError, match=r"splits of several sizes; choose one, such as --index=.*_1\.json"):
        evaluation_index.read(tmp_path)
    two.unlink()
    assert evaluation_index.read(tmp_path) == (both, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train_ids": [2]}, "has no test_ids"),
        ({"train_ids": [2, 3], "test_ids": [4]}, "has 2 train_ids, and its name says 1"),
        ({"train_ids": [2], "test_ids": []}, "'target' must be a list of frames"),
        ([3], "must hold an object"),
    ],
)
def test_a_split_file_of_another_form_is_one_clear_error(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        evaluation_index.read(write_json(tmp_path / "a" / "train_test_split_1.json", content))


def test_folders_and_patterns_that_name_no_index_are_clear_errors(tmp_path):
    with pytest.raises(UserError, match=r"is a folder, and no scene in it has a train_test_split_N\.json"):
        evaluation_index.read(tmp_path)
    with pytest.raises(UserError, match="no file is called like"):
        evaluation_index.read(tmp_path / "*.json")
    for name in "ab":
        write_json(tmp_path / f"{name}.json", {})
    with pytest.raises(UserError, match="names 2 files: one index file is read"):
        evaluation_index.read(tmp_path / "*.json")


# --- every protocol, on made-up data in the layout of the data that it is for

INDEX = {
    "pixelsplat": {"clip": {"context": [58, 133], "target": [84, 133]}, "gone": None},
    "pixelsplat-single": {"clip": {"context": [58, 133], "target": [84, 133]}, "gone": None},
    "latentsplat-extra": {"clip": [{"context": [58, 133], "target": [13, 141]}], "gone": []},
    "latentsplat-intra": {"clip": [{"context": [58, 133], "target": [84]}] * 2},
    "latentsplat-360": {"a": [{"context": [16, 40], "target": [*range(16, 36)]}]},
    "viewset": {"examples": [{"scene": "clip", "context": [3], "target": [4]}]},
}
# Frames of the examples, as their sources number them.
EXPECTED = {
    "pixelsplat": [([58, 133], [84, 133])],
    "pixelsplat-single": [([58], [84, 133])],
    "latentsplat-extra": [([58, 133], [13, 141])],
    "latentsplat-intra": [([58, 133], [84])] * 2,
    "latentsplat-360": [([16, 40], [*range(16, 36)])],
    "seva": [([2], [4, 0])] * 2,
    "viewset": [([3], [4])],
    "dfm-realestate10k": [([0], [150])],
    "dfm-co3d": [([0], [100, 20, 40, 60, 80])],
    "pixelnerf-srn": [([64], [i for i in range(151) if i != 64])],
}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A folder with data sets in the layouts of RealEstate10K, CO3D and SEVA's benchmark."""
    root = tmp_path_factory.mktemp("made_up")
    write_clip(root / "clips", "clip", 151, split="test")
    building.prepare(RealEstate10KSource(root / "clips"), root, "realestate10k", OPTIONS)
    co3d_source.write_category(root / "co3d_source", "hydrant", ["a"], num_frames=102)
    building.prepare(CO3DSource(root / "co3d_source"), root, "co3d", OPTIONS)
    for scene in ("a", "b"):
        captures_source.write_transforms(root / "seva" / scene, captures_source.arc(6))
    write_splits(root / "seva").unlink()
    building.prepare(TransformsSource(root / "seva", (0, 0, 0)), root, "captures", OPTIONS)
    return root


def data_of(protocol):
    return {"seva": "captures", "latentsplat-360": "co3d", "dfm-co3d": "co3d"}.get(protocol, "realestate10k")


def config_for(root, name, protocol="", index="", **evaluate):
    values = tiny_config(root, guidance=1.0)
    split = dataset.open_splits(root, name)[0].split
    values.data.update(dir=str(root), name=name, split=split, eval_split=split)
    values.evaluate.update(protocol_name=protocol, index=str(index), sweep_samples=0, **evaluate)
    return from_dict(values)


def chosen_by(protocol, made_up, tmp_path):
    """The config, the data and the views of a protocol."""
    index = made_up / "seva" if protocol == "seva" else ""
    if protocol in INDEX:
        index = write_json(tmp_path / "index.json", INDEX[protocol])
    config = config_for(made_up, data_of(protocol), protocol, index, num_samples=2)
    data = evaluated_views.open_data(config)
    return config, data, evaluated_views.choose_views(config, data)


@pytest.mark.parametrize("protocol", NAMES)
def test_every_protocol_gives_the_frames_that_its_rule_names(protocol, made_up, tmp_path):
    _, data, chosen = chosen_by(protocol, made_up, tmp_path)
    numbers = lambda number, indices: [f["number"] for f in evaluation_index.frames_of(data.scene(number), indices)]
    found = [(numbers(i, draw.context.tolist()), numbers(i, draw.target.tolist())) for i, draw in chosen.views]
    assert found == EXPECTED[protocol] and not chosen.extent.has_holes
    assert chosen.extent.scenes_without_example == ("gone" in INDEX.get(protocol, ()))
    assert chosen.extent.targets_in_context == (protocol in ("pixelsplat", "latentsplat-360"))


def test_the_table_has_the_names_of_the_setting_and_is_printed(capsys):
    assert tuple(PROTOCOLS) == NAMES
    assert table_command.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{name}\n" in f"\n{printed}" for name in NAMES)
    assert "psnr 21.26, ssim 0.672, lpips 0.257 (its README, 6474 scenes)" in printed
    assert table_command.main(["list", "lvsm"]) == 1
    assert "there is no protocol 'lvsm': these are pixelsplat, " in capsys.readouterr().err


def test_a_protocol_without_its_index_file_is_one_clear_error(made_up):
    config = config_for(made_up, "realestate10k", "pixelsplat")
    with pytest.raises(UserError, match=r"pixelsplat is evaluated by an index file, .*: name it with --index=FILE"):
        evaluated_views.choose_views(config, evaluated_views.open_data(config))


# --- what is said of an evaluation

WHOLE = Extent(6474, 6474, 6474, 6474, 720, 0, 0, 0, 575)
ALIKE = Circumstances(256, 256, 2, 1, 1, 0, {})
NUMBERS = {"psnr": 20.0, "ssim": 0.7, "lpips": 0.3}


def test_nothing_differs_where_all_is_as_published():
    found = compare(PROTOCOLS["pixelsplat-single"], NUMBERS, WHOLE, ALIKE)
    assert found["differences"] == [] and found["ours"] == NUMBERS
    assert "Nothing that is known of it" in protocol_section.section(found)


@pytest.mark.parametrize(
    ("numbers", "extent", "circumstances", "said"),
    [
        ({}, {}, {"image_size": 64}, "resolution: 64 x 64 pixels here, 256 x 256 in the protocol"),
        ({}, {}, {"stored_size": 144}, "pictures have 144 pixels a side, and are enlarged to 256"),
        ({}, {"examples": 6470, "scenes_missing": 3, "frames_missing": 1}, {}, "holes: 6470 of 6474 examples"),
        ({}, {"examples": 6470, "scenes_missing": 4}, {}, "means over 6474 scenes; here 6470 examples"),
        ({}, {}, {"used_context": 3}, "3 context views are given; the model was trained with at most 2"),
        ({}, {}, {"num_samples": 4}, "means over 4 samples"),
        ({}, {}, {"num_scales": 20}, "of 20 scales of the cameras, the best"),
        ({"lpips": None}, {}, {"left_out": {"lpips": "no weights"}}, "lpips is not measured: no weights"),
    ],
)
def test_what_differs_is_said(numbers, extent, circumstances, said):
    extent, circumstances = dataclasses.replace(WHOLE, **extent), dataclasses.replace(ALIKE, **circumstances)
    found = compare(PROTOCOLS["pixelsplat-single"], NUMBERS | numbers, extent, circumstances)
    assert any(said in line for line in found["differences"])
    assert said in protocol_section.section(found)


# --- the right frames, against the source itself


def repeating_context(example, num_samples):
    """In the place of a model: whatever is asked for looks like context view 0, brighter with every sample."""
    scenes = []
    for context, target in zip(example.context.images, example.target.images, strict=True):
        bright = np.linspace(0, 0.1, num_samples, dtype=np.float32)[:, None, None, None, None]
        rgb = np.repeat(context[None, :1], len(context) + len(target), axis=1) + bright
        views = RenderedViews(rgb, np.ones(rgb.shape[:-1], np.float32), np.ones(rgb.shape[:-1], np.float32))
        scenes.append(SceneSamples(views, rgb[:, 0], context[0]))
    return scenes


class Repeating:
    at_once = 2

    @classmethod
    def start(cls, config, params, num_scenes):
        cls.num_samples = config.evaluate.num_samples
        return cls()

    def __call__(self, example):
        return repeating_context(example, self.num_samples)


@pytest.mark.parametrize("protocol", NAMES)
def test_every_protocol_is_evaluated_and_set_beside_what_was_published(protocol, made_up, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluated_scenes, "_Sampling", Repeating)
    unknown = types.SimpleNamespace(**dict.fromkeys(("reprojection", "colour", "contradicted"), np.full(2, np.nan)))
    monkeypatch.setattr(scores, "_reproject", lambda *_, **__: unknown)  # a program for each number of views
    config, data, chosen = chosen_by(protocol, made_up, tmp_path)
    networks = measured_scenes.Networks(None, None, None, {"lpips": "no weights", "fid, kid": "none", "dists": "none"})
    store = SceneStore(tmp_path / "evaluation", {})
    evaluated_scenes.evaluate_scenes(config, {}, data, chosen.views, [*range(len(chosen.views))], store, networks)
    stored = [store.scores(i) for i in range(len(chosen.views))]
    frames = [([f["number"] for f in s.context_frames], [f["number"] for f in s.target_frames]) for s in stored]
    assert frames == EXPECTED[protocol]
    numbers = summary.summarise(stored)
    assert numbers["psnr"] == pytest.approx(np.mean([np.mean(s.psnr) for s in stored]))
    found = evaluated_views.compared(config, data, chosen, numbers | {"left_out": networks.left_out})
    assert found["published"] == [
        {"by": row.by, "numbers": dict(row.numbers), "source": row.source, "scenes": row.scenes}
        for row in PROTOCOLS[protocol].published
    ]
    measured = {name for name, value in found["ours"].items() if value is not None}
    assert measured and measured <= {"psnr", "ssim", "ssim_best", "mean_sample_psnr", "psnr_best_of_1"}
    text, missing = "\n".join(found["differences"]), {"lpips", "dists", "fid", "kid"} & set(found["metrics"])
    assert all(f"{name} is not measured: no" in text for name in missing)
    assert (f"{PROTOCOLS[protocol].resolution} in the protocol" in text) == (PROTOCOLS[protocol].resolution is not None)
    page = protocol_section.section(found)
    assert all(row.by in page for row in PROTOCOLS[protocol].published) and "this evaluation" in page


def source_picture(root, scene, number):
    """Read from the source itself: the line of the camera file, the picture of that time, its middle square."""
    cameras = next(root.glob(f"RealEstate10K/*/{scene}.txt")).read_text().splitlines()
    timestamp = cameras[1 + number].split()[0]
    with Image.open(next(root.glob(f"*/{scene}/{timestamp}.jpg"))) as image:
        side, left = image.height, (image.width - image.height) // 2
        return np.asarray(image.convert("RGB").crop((left, 0, left + side, side)), np.float64) / 255


@pytest.mark.skipif(not (SHARED / "realestate10k").is_dir(), reason="../shared/data/realestate10k is not here")
def test_the_numbers_are_those_of_the_right_frames_where_the_source_has_holes(tmp_path, monkeypatch):
    root = tmp_path / "source"
    shutil.copytree(SHARED / "realestate10k", root, ignore=shutil.ignore_patterns("videos"))
    names = sorted(path.stem for path in root.glob("RealEstate10K/test/*.txt"))
    index = {name: {"context": [2 + i, 14], "target": [3 + i, 9, 14]} for i, name in enumerate(names)}
    index |= {"not-here": {"context": [0, 9], "target": [4]}, "none": None}
    for name, number in ((names[0], 0), (names[0], 1), (names[1], 1), (names[2], 9)):  # the last one is asked for
        cameras = (root / "RealEstate10K" / "test" / f"{name}.txt").read_text().splitlines()
        (root / "test" / name / f"{cameras[1 + number].split()[0]}.jpg").unlink()
    building.prepare(RealEstate10KSource(root), tmp_path, "realestate10k", OPTIONS)
    path = write_json(tmp_path / "index.json", index)
    config = config_for(tmp_path, "realestate10k", "pixelsplat-single", path, num_samples=2)
    config = dataclasses.replace(config, image_size=144)
    data = evaluated_views.open_data(config)
    chosen = evaluated_views.choose_views(config, data)
    assert chosen.extent == Extent(5, 7, 5, 7, 1, 1, 1, 0, 0)
    assert chosen.extent.headline().startswith("5 of 7 examples, 5 of 7 scenes (1 with no such scene, 1 with a frame")
    monkeypatch.setattr(evaluated_scenes, "_Sampling", Repeating)
    store = SceneStore(tmp_path / "evaluation", {})
    networks = measured_scenes.Networks(None, None, None, {})
    evaluated_scenes.evaluate_scenes(config, {}, data, chosen.views, [*range(5)], store, networks)
    left = [name for name in names if name != names[2]]
    for i, name in enumerate(left):
        found = store.scores(i)
        assert found.name == name
        assert [f["number"] for f in found.context_frames] == [index[name]["context"][0]]
        assert [f["number"] for f in found.target_frames] == index[name]["target"]
        given = source_picture(root, name, index[name]["context"][0])
        for j, brighter in enumerate((0.0, 0.1)):
            errors = [np.mean((given + brighter - source_picture(root, name, n)) ** 2) for n in index[name]["target"]]
            # dB: the data set keeps pictures as JPEG.
            np.testing.assert_allclose(found.psnr[j], -10 * np.log10(errors), atol=0.3)


def test_of_scales_of_the_cameras_the_best_by_psnr_is_kept(made_up, tmp_path, monkeypatch):
    """A stand-in whose samples are right at the scale 1 alone, as a model of scenes of that scale would have it."""
    index = write_json(tmp_path / "index.json", {"a": {"context": [2], "target": [4]}})
    config = config_for(made_up, "captures", "seva", index, num_samples=2, num_scales=4)
    data = evaluated_views.open_data(config)
    chosen = evaluated_views.choose_views(config, data)
    unscaled = np.linalg.norm(data.scene(0).camera_to_world[4, :3, 3])

    class RightAtOne(Repeating):
        def __call__(self, example):
            factor = np.linalg.norm(example.target.absolute_pose[0, 0, :, 3]) / unscaled
            scenes = repeating_context(example, self.num_samples)
            rgb = scenes[0].views.rgb.copy()
            rgb[:, 1:] = example.target.images[:1] + 0.1 * (factor - 1)
            return [scene.replace(views=scene.views.replace(rgb=rgb)) for scene in scenes]

    monkeypatch.setattr(RightAtOne, "at_once", 1)
    monkeypatch.setattr(evaluated_scenes, "_Sampling", RightAtOne)
    store = SceneStore(tmp_path / "evaluation", {})
    networks = measured_scenes.Networks(None, None, None, {})
    evaluated_scenes.evaluate_scenes(config, {}, data, chosen.views, [0], store, networks)
    assert store.scores(0).scale == 1.0 and store.scores(0).psnr[0][0] > 60


def test_scenes_that_an_index_file_lists_without_an_example_are_not_among_what_was_skipped():
    skipped = [index_layouts.Skipped(f"none-{i}", "the index file has no views of it", "none listed") for i in range(3)]
    skipped.append(index_layouts.Skipped("gone", "split 'test' has no such scene", "scene missing"))
    page = evaluation_page._missing({"skipped": [dataclasses.asdict(skip) for skip in skipped], "left_out": {}})
    assert "1 example of the index file was skipped" in page and "no example of 3 of its scenes" in page
    assert "scene gone" in page and "none-0" not in page
