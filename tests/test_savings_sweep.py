"""The study of what leaving work out costs: its measures, on scenes that were never sampled, and what it refuses. That
settings change samples as they should is tested with the settings."""

import dataclasses
import pathlib
import types

import jax
import numpy as np
import pytest

from configs import toy
from dfm_jax.config.changes import with_sampling
from dfm_jax.config.reading import from_dict
from dfm_jax.data.loading import toy_scenes
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.errors import UserError
from dfm_jax.pages import plots
from dfm_jax.structs import Camera, Example, Views
from dfm_jax.studies import savings_sweep
from dfm_jax.studies.sampling_quality import SampledScenes, quality
from tests.test_consistency import BOX

TOY = pathlib.Path(__file__).resolve().parents[1] / "configs" / "toy.py"
SIZE = 24


class Boxes(SceneDataset):
    """Two scenes, without a file of them."""

    def __len__(self) -> int:
        return 2

    def scene(self, number: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(attributes=BOX)


def box_scenes(num_samples: int) -> SampledScenes:
    """Two boxes seen from the front; target views from behind and from behind to one side."""
    poses = toy_scenes.orbit_pose(np.array([0.0, np.pi, 0.8 * np.pi]))
    intrinsics = np.tile(toy_scenes.intrinsics(), (2, 3, 1, 1))
    camera = Camera(np.tile(poses, (2, 1, 1, 1)), intrinsics)
    front = toy_scenes.render_view(BOX, poses[0], intrinsics[0, 0], SIZE)[0]
    images = np.tile(front, (2, 3, 1, 1, 1))
    views = Views(images, camera, camera.camera_to_world[..., :3, :], np.ones((2, 3), bool))
    context, target = (jax.tree.map(lambda x, s=s: x[:, s], views) for s in (slice(1), slice(1, None)))
    example = Example(context, target, np.ones(2), np.ones(2), np.arange(2))
    views = [(number, ViewIndices(np.array([0]), np.array([1, 2]))) for number in range(2)]
    return SampledScenes(object.__new__(Boxes), views, example, num_samples)


def rendered(scenes: SampledScenes, hidden: list[int], novel: list[int]) -> np.ndarray:
    """Views [s * n, v + t] of samples of these hidden colours, and of others in the novel view."""
    poses = toy_scenes.orbit_pose(np.array([0.0, np.pi, 0.8 * np.pi]))
    matrix = toy_scenes.intrinsics()
    show = lambda colours: np.stack(
        [toy_scenes.render_view({**BOX, "hidden": k}, p, matrix, SIZE)[0] for p, k in zip(poses, colours, strict=True)]
    )
    return np.stack([show((0, a, b)) for a, b in zip(hidden, novel, strict=True)])


def test_quality_is_that_of_the_colours_and_the_context():
    scenes = box_scenes(5)
    honest = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
    views = rendered(scenes, honest, honest)
    found = quality(scenes, views[:, 1], views)
    assert found["total_variation"] == pytest.approx(0)
    assert found["purity"] == found["purity_of_x0"] == found["novel_view_agreement"] == 1
    biased = rendered(scenes, [0] * 10, [0] * 5 + [1] * 5)
    biased[0, 1] = 0.5 * biased[0, 1] + 0.5 * rendered(scenes, [2], [2])[0, 1]
    biased[:, 0] += 0.1
    found = quality(scenes, views[:, 1], biased)
    assert found["total_variation"] == pytest.approx(0.5)
    assert found["purity"] == 0.9 and found["purity_of_x0"] == 1
    assert found["novel_view_agreement"] == 0.5 and found["context_psnr"] == pytest.approx(20.0)


@pytest.mark.parametrize("variant", ["tiny", "tiny,fine", "tiny,lean", "calibrated"])
def test_all_that_it_tries_is_possible(variant):
    config = from_dict(toy.get_config(variant))
    savings = savings_sweep.possible_savings(config)
    tried = [with_sampling(config, each).sample for each in savings]
    assert len({dataclasses.astuple(sample)[:-2] for sample in tried}) == len(savings) > 5
    assert config.sample not in tried


def test_savings_are_read_from_text():
    read = savings_sweep.parse_savings("coarse_pass=fine kept_samples=0.5; marching_schedule=0:16,0.8:8/2 ;num_steps=5")
    assert read == [
        {"coarse_pass": "fine", "kept_samples": 0.5},
        {"marching_schedule": "0:16,0.8:8/2"},
        {"num_steps": 5},
    ]
    with pytest.raises(UserError, match="NAME=VALUE"):
        savings_sweep.parse_savings("kept_samples")


def test_the_table_and_the_plot_have_every_way(tmp_path):
    numbers = {"psnr": 30.0, "same": 1.0, "context_psnr": 25.0, "total_variation": 0.02, "purity": 0.99}
    numbers["novel_view_agreement"] = 0.9
    names = ["nothing left out", *(f"marching_schedule=0:{n}" for n in range(4, 16))]
    records = [
        {"name": name, "speed": 1.0 + i, "seconds": 1.0, "of_seeds": [numbers, numbers]} | numbers
        for i, name in enumerate(names)
    ]
    result = {"records": records, "num_samples": 720, "total_variation_of_honest_draws": 0.02}
    table = savings_sweep.table(result)
    assert all(name in table for name in names) and "honest draws" in table
    for kept in (
        records,
        [{k: v for k, v in r.items() if k in ("name", "speed", "psnr", "context_psnr", "of_seeds")} for r in records],
    ):
        plots.quality_over_speed(tmp_path / "plot.png", kept, 0.02)
        assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"--config={TOY}:pixelnerf"], "is deterministic"),
        ([f"--config={TOY}"], "there is no checkpoint"),
        ([f"--config={TOY}", "--savings=kept_samples"], "NAME=VALUE"),
        ([f"--config={TOY}", "--seeds=0,0"], "--seeds="),
    ],
)
def test_mistakes_are_one_clear_error(tmp_path, capsys, arguments, message):
    assert savings_sweep.main([*arguments, f"--workdir={tmp_path / 'run'}"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and message in printed.err and not printed.out
