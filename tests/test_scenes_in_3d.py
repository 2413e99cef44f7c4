"""Pages in 3D beside those of `--mode=sample`."""

import types

import numpy as np
import pytest

from dfm_jax.commands import scenes_in_3d
from dfm_jax.exports.initial_gaussians import initial_gaussians
from dfm_jax.exports.renderings import NothingOpaque, SceneViews
from dfm_jax.pages import sample_page
from dfm_jax.sampling.sample_summary import SceneResult
from dfm_jax.sampling.trajectories import Trajectory
from dfm_jax.structs import Camera
from dfm_jax.viewer import page
from tests.made_up_scene import INTRINSICS, Balls, looking_at_the_origin


class TwoOfEach(list):
    """Scenes, two samples of each source."""

    num_samples = 2


@pytest.fixture
def sampled(monkeypatch):
    """Three made-up sources, of which the second has no surface; and their results."""

    def fit_to(views, *args):
        if views.scene.shade > 0.5:
            raise NothingOpaque("nothing in the scene is opaque")
        return initial_gaussians(views, 100)

    monkeypatch.setattr(page, "fit_to", fit_to)
    monkeypatch.setattr(page, "psnr", lambda *args: 21.5)
    monkeypatch.setattr(scenes_in_3d, "of_samples", lambda samples, *args: [s.views for s in samples])
    placed = types.SimpleNamespace(world=np.eye(4)[None].repeat(3, axis=0))
    scenes = TwoOfEach()
    for source, shade in enumerate((0.0, 0.6, 0.1)):
        views = SceneViews(Balls(shade=shade), 8, 16)
        scenes += [types.SimpleNamespace(sampled=placed, source=source, views=views) for _ in range(2)]
    named = {name: f"{name}.png" for name in SceneResult.__annotations__}
    kept = {"contexts": (), "samples": (), "photographs": (), "inside": 0.0, "page_in_3d": "", "gaussians_psnr": None}
    return scenes, [SceneResult(**named | kept)] * 3


@pytest.fixture(scope="module")
def path():
    poses = np.stack([looking_at_the_origin(angle) for angle in (0.0, 0.5)])
    return Trajectory(Camera(poses, np.stack([INTRINSICS] * 2)), np.array([0, 1, 0]))


def test_first_scenes_have_pages_but_those_without_a_surface(sampled, path, tmp_path):
    scenes, results = sampled
    for name in ("scene_00", "scene_01", "scene_02"):
        (tmp_path / name).mkdir()
    found = scenes_in_3d.in_3d(tmp_path, results, scenes, [path] * 3, count=2)
    assert [each.page_in_3d for each in found] == ["scene_00/scene.html", "", ""]
    assert found[0].gaussians_psnr == 21.5
    html = (tmp_path / "scene_00/scene.html").read_text()
    assert html.count("<button data-sample") == 2 and html.count('"fov"') == 3 + 2  # the path, and two cameras
    assert sorted(p.name for p in tmp_path.rglob("*.html")) == ["scene.html"]
    shown = [sample_page._scene(i, each, None) for i, each in enumerate(found)]
    assert '<iframe src="scene_00/scene.html"' in shown[0] and "iframe" not in shown[1] + shown[2]


def test_none_are_made_where_none_are_wanted(sampled, path, tmp_path):
    scenes, results = sampled
    assert scenes_in_3d.in_3d(tmp_path, results, scenes, [path] * 3, count=0) == results
    assert not list(tmp_path.iterdir())
