"""Target views that are no whole pictures: what cameras record of known scenes, and that nobody sees what is hidden."""

import dataclasses
import pathlib
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dfm_jax.commands import evaluate
from dfm_jax.config.command_line import read_config
from dfm_jax.config.reading import ConfigError
from dfm_jax.data.loading import measurements, toy_scenes
from dfm_jax.data.loading.dataset import SceneDataset, SceneRecord
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import UserError
from dfm_jax.evaluation.recorded_views import as_recorded
from dfm_jax.forward_models.partial_views import PartialViews
from dfm_jax.forward_models.radiance_field import rendered_scenes
from dfm_jax.forward_models.radiance_field.observations import LUMA
from dfm_jax.forward_models.radiance_field.rendering import image_rays
from dfm_jax.losses import training_loss
from dfm_jax.profiling.synthetic import synthetic_example
from dfm_jax.rendering.ray_marching import render_single_pass
from dfm_jax.structs import Camera, Example, Measurements, Rays, RenderedViews, Rendering, Scene, Views
from tests.forward_model_cases import OF_ESTIMATE, SMALL_SCENES
from tests.tiny import jit, random_params

CONFIG = str(pathlib.Path(__file__).resolve().parents[1] / "configs" / "toy.py")
NEAR, FAR = 1.0, 5.0


def config_of(variant: str, **settings):
    overrides = SMALL_SCENES | OF_ESTIMATE | {"data.view_sampling.max_context": 1} | settings
    return read_config(f"{CONFIG}:tiny,{variant}", [f"--config.{name}={value}" for name, value in overrides.items()])


def model_of(variant: str, **settings) -> PartialViews:
    return PartialViews.from_config(config_of(variant, **settings))


SCENE = Scene(None, near=jnp.array([NEAR]), far=jnp.array([FAR]))
SIDEWAYS = np.linspace(0, 0.6, 7)  # x of rays through z = 1
DIRECTIONS = np.stack([SIDEWAYS, 0 * SIDEWAYS, 1 + 0 * SIDEWAYS], axis=-1)
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=-1, keepdims=True)


def seen(is_solid) -> Rendering:
    """By rays from the origin: what is solid of the points [..., 3]."""
    rays = Rays(jnp.zeros((1, 7, 3)), jnp.asarray(DIRECTIONS[None], jnp.float32))

    def field(rays, distances):
        points = distances[..., None] * rays.directions[:, :, None]
        colour = jnp.broadcast_to(jnp.array([0.2, 0.4, 0.6]), points.shape)
        return jnp.where(is_solid(points), 1e6, 0.0), colour

    return render_single_pass(field, rays, SCENE.near, SCENE.far, num_samples=401, background=0.0)


def test_the_depth_of_a_plane_is_the_distance_along_each_ray():
    plane = 3.0
    recorded = model_of("depth").recorded(seen(lambda points: points[..., 2] > plane), SCENE).rgb[0]
    expected = (plane / DIRECTIONS[:, 2] - NEAR) / (FAR - NEAR)
    # Samples along a ray lie 1/400 of it apart.
    np.testing.assert_allclose(recorded, np.repeat(expected[:, None], 3, axis=1), atol=1 / 400)


def test_where_nothing_is_met_depth_ends_and_silhouettes_are_empty():
    """A ball of radius 1 at a distance of 3 hides the rays that pass its centre nearer than that."""
    centre = np.array([0, 0, 3.0])
    rendering = seen(
        lambda points: jnp.linalg.norm(jnp.stack([points[..., i] - centre[i] for i in range(3)]), axis=0) < 1
    )
    inside = np.linalg.norm(np.cross(DIRECTIONS, centre), axis=-1) < 1
    assert 0 < inside.sum() < 7
    silhouette = model_of("silhouette").recorded(rendering, SCENE).rgb[0]
    np.testing.assert_allclose(silhouette, np.repeat(inside[:, None], 3, axis=1), atol=1e-6)
    depth = model_of("depth").recorded(rendering, SCENE).rgb[0]
    assert np.all(depth[~inside] == 1) and np.all(depth[inside] < 0.75)


def test_grey_sees_the_luma_of_colours_alone():
    model, rendering = model_of("grey"), seen(lambda points: points[..., 2] > 2)
    other = np.array([0.7, 0.1, 0.0], np.float32)
    other[2] = (np.array([0.2, 0.4, 0.6]) @ LUMA - other[:2] @ LUMA[:2]) / LUMA[2]  # of the same luma
    grey = model.recorded(rendering, SCENE).rgb
    np.testing.assert_allclose(
        model.recorded(rendering.replace(rgb=np.broadcast_to(other, (1, 7, 3))), SCENE).rgb, grey, 1e-5
    )
    assert np.abs(model.recorded(rendering.replace(rgb=rendering.rgb + 0.1), SCENE).rgb - grey).min() > 0.05


def test_several_records_share_the_channels():
    rendering = seen(lambda points: points[..., 2] > 3)
    both = model_of("depth", **{"model.observation": "grey+depth"}).recorded(rendering, SCENE).rgb
    grey, depth = (model_of(name).recorded(rendering, SCENE).rgb for name in ("grey", "depth"))
    np.testing.assert_array_equal(both, np.concatenate([grey[..., :2], depth[..., :1]], axis=-1))


def test_grey_is_no_matrix_product_which_accelerators_round():
    model, rendering = model_of("grey"), seen(lambda points: points[..., 2] > 2)
    assert "dot_general" not in str(jax.make_jaxpr(lambda it: model.recorded(it, SCENE).rgb)(rendering))


@pytest.mark.parametrize("variant", ["depth", "silhouette", "grey", "masked"])
def test_what_cameras_see_of_scenes_is_what_is_observed_along_their_rays(variant, monkeypatch):
    """Of two scenes that end elsewhere, and three cameras."""

    def rendered(params, networks, scene, rays, keys=None, cache=None):
        opacity = jnp.abs(rays.directions[..., :1])
        depth = opacity[..., 0] * (scene.near + 0.3 * (scene.far - scene.near))[:, None]
        return Rendering((rays.directions + 1) / 2, depth, rays.directions[..., :0], opacity, opacity)

    monkeypatch.setattr(rendered_scenes, "render", rendered)
    model, scene = model_of(variant), Scene(None, jnp.array([NEAR, 2.0]), jnp.array([FAR, 9.0]))
    turned = Rotation.from_rotvec(np.linspace(0, 1, 18).reshape(6, 3)).as_matrix()
    pose = np.tile(np.eye(4), (2, 3, 1, 1))
    pose[..., :3, :3] = turned.reshape(2, 3, 3, 3)
    cameras = Camera(jnp.asarray(pose), jnp.tile(toy_scenes.intrinsics(), (2, 3, 1, 1)))
    views = model.render({}, scene, cameras, 4, 5)
    rays = image_rays(cameras, 4, 5, model.config.pixel_grid)
    observed = model.observe({}, scene, jax.tree.map(lambda x: x.reshape(2, 60, 3), rays))
    np.testing.assert_array_equal(views.rgb.reshape(2, 60, 3), observed.rgb)
    np.testing.assert_array_equal(views.depth.reshape(2, 60), observed.depth)


def test_behind_everything_cameras_record_what_rays_show_that_meet_nothing():
    model = model_of("depth", **{"model.observation": "grey+depth", "model.ray_marching.background": 0.25})
    empty = RenderedViews(jnp.full((1, 3), 0.25), depth=jnp.zeros(1), opacity=jnp.zeros(1))
    rendering = Rendering(empty.rgb, empty.depth, empty.rgb, empty.opacity[:, None], empty.depth[:, None])
    recorded = model.recorded(jax.tree.map(lambda x: x[None], rendering), SCENE).rgb[0, 0]
    np.testing.assert_array_equal(model.background, recorded)
    np.testing.assert_allclose(recorded, [0.25, 0.25, 1])


def test_the_pixels_of_masked_views_are_drawn_once(monkeypatch):
    config, sample_pixels = config_of("masked"), Mock(wraps=rendered_scenes.sample_pixels)
    monkeypatch.setattr(rendered_scenes, "sample_pixels", sample_pixels)
    keys = jax.random.split(jax.random.key(0), 1)
    query, _ = jax.eval_shape(PartialViews.from_config(config).supervision, synthetic_example(config, 1), keys)
    assert query.observed.shape == query.rays.origins.shape[:2]
    sample_pixels.assert_called_once()


def test_the_loss_of_a_masked_view_does_not_see_what_is_hidden():
    config = config_of("masked", **{"train.batch_size": 2})
    model, schedule = PartialViews.from_config(config), cosine_schedule(config.diffusion.num_timesteps)
    example, params = synthetic_example(config, 2), random_params(model)
    masks = measurements.random_masks(np.random.default_rng(0), 4, config.image_size)
    observed = jnp.asarray(masks.reshape(example.target.images.shape[:-1]))

    @jit
    def loss(images):
        target = example.target.replace(images=images, measured=Measurements(observed=observed))
        settings = {"model": model, "schedule": schedule, "diffusion": config.diffusion, "weights": config.loss}
        return training_loss(params, example.replace(target=target), jax.random.key(0), **settings)[1]

    images = example.target.images
    known, garbage = loss(images), loss(jnp.where(observed[..., None], images, 1e3 - images))
    assert known == garbage
    seen_garbage = loss(jnp.where(observed[..., None], 1 - images, images))
    assert all(abs(known[name] / seen_garbage[name] - 1) > 0.01 for name in ("target", "estimate"))


# --- what data is told of views beside their pictures

SIZE = 12


@pytest.fixture(scope="module")
def toy() -> tuple[SceneRecord, np.ndarray]:
    """A scene as it is stored, and its pictures."""
    made = toy_scenes.ToyScenes(4, SIZE, 0).scene("train", "train-000001")
    count = len(made.images)
    record = SceneRecord(
        name="toy", first_frame=0, camera_to_world=made.camera_to_world,
        intrinsics=np.repeat(toy_scenes.intrinsics()[None], count, 0), timestamps=np.zeros(count),
        frame_names=("",) * count, numbers=None, holes=(), scale=1.0, near=2.6, far=5.5, attributes=made.attributes,
    )  # fmt: skip
    return record, made.images.astype(np.float32) / 255


def told(toy, *names: str, flip: bool = False, scale: float = 1.0, seed: int = 0) -> tuple[Example, Example]:
    """An example of front and back, and the same with what was asked for."""
    record, pictures = toy
    views = lambda frames: Views(pictures[frames][:, :, :: -1 if flip else 1], None, None, np.ones(len(frames), bool))
    indices = ViewIndices(np.array([0]), np.array([6, 7]))
    example = Example(views(indices.context), views(indices.target), None, None, None)
    data = SceneDataset(pathlib.Path("data/toy"), "train", ("toy",), (len(pictures),), 0, None, (None,))
    vars(data)["_frames"] = [{}] * len(pictures)  # without masks
    rng, given = np.random.default_rng(seed), jax.tree.map(np.copy, example)
    found = measurements.with_measurements(given, data, record, indices, names, rng, flip=flip, scale=scale)
    return example, found


def test_depth_and_opacity_are_those_of_the_pictures(toy):
    example, found = told(toy, "depth", "opacity")
    shows_something = example.target.images.max(-1) > 0  # before a black background
    np.testing.assert_array_equal(found.target.measured.opacity > 0, shows_something)
    assert np.isfinite(found.target.measured.depth[found.target.measured.opacity == 1]).all()
    np.testing.assert_array_equal(found.target.images, example.target.images)
    assert found.target.measured.observed is None and found.context.measured is None


def test_measurements_are_mirrored_and_scaled_with_their_views(toy):
    (_, plain), (_, other) = told(toy, "depth", "opacity"), told(toy, "depth", "opacity", flip=True, scale=1.5)
    np.testing.assert_allclose(other.target.measured.depth[..., ::-1], 1.5 * plain.target.measured.depth, 1e-6)
    np.testing.assert_array_equal(other.target.measured.opacity[..., ::-1], plain.target.measured.opacity)


def test_nothing_is_left_of_what_a_mask_hides(toy):
    example, found = told(toy, "random_masks")
    observed = found.target.measured.observed
    assert 0 < observed.mean() < 1
    np.testing.assert_array_equal(found.target.images, np.where(observed[..., None], example.target.images, 0.5))
    hidden = np.any(found.context.images != example.context.images, axis=-1)
    assert np.any(hidden) and np.all(found.context.images[hidden] == 0.5)
    shares = [measurements.random_masks(np.random.default_rng(i), 1, 24).mean() for i in range(400)]
    assert 0.6 < np.mean(shares) < 0.75 and np.max(shares) > 0.9


def test_a_tenth_of_the_masked_examples_is_whole_as_those_to_sample_from(toy):
    whole = []
    for seed in range(400):
        example, found = told(toy, "random_masks", seed=seed)
        given = np.array_equal(found.context.images, example.context.images)
        whole.append((given, bool(found.target.measured.observed.all())))
    assert all(given == shown for given, shown in whole) and 0.06 < np.mean(whole) < 0.14


@pytest.mark.parametrize("name", ["depth", "opacity", "masks"])
def test_what_a_data_set_does_not_know_is_one_clear_error(name, toy):
    photographs = dataclasses.replace(toy[0], attributes={}), toy[1]
    with pytest.raises(UserError, match=f"config.data.measured asks for {name}, and .* has no"):
        told(photographs, name)


@pytest.mark.parametrize(
    ("variant", "setting", "said"),
    [
        ("depth", "data.measured=opacity", "config.model.observation='depth' needs data.measured='depth'"),
        ("grey", "model.observation=sonar", "must be some of grey, depth, silhouette, masked, joined by '[+]', not"),
        ("masked", "data.measured=", "needs data.measured='masks' or 'random_masks'"),
        ("grey", "data.measured=masks", "needs model.observation='masked'"),
        ("grey", "sample.autoregressive_step=2", "which is no picture that could be context"),
        ("lean", "data.measured=depth", "data.measured is for model.name='partial_views'"),
        ("masked", "data.measured=masks[+]depths", "must be some of depth, opacity, masks, random_masks"),
    ],
)
def test_settings_that_do_not_go_together_are_named(variant, setting, said):
    with pytest.raises(ConfigError, match=said):
        read_config(f"{CONFIG}:tiny,{variant}", [f"--config.{setting}"])


def test_evaluation_looks_at_records_of_true_views():
    config = config_of("depth")
    model, example = PartialViews.from_config(config), jax.tree.map(lambda x: x[0], synthetic_example(config, 1))
    depth = np.asarray(example.target.measured.depth)
    true = as_recorded(model, example)
    expected = (np.where(np.isfinite(depth), depth, example.far) - example.near) / (example.far - example.near)
    np.testing.assert_allclose(true.target.images, np.repeat(expected[..., None], 3, axis=-1), atol=1e-6)
    assert np.isnan(true.context.images).all()  # of which nothing was measured


def test_a_scale_is_not_chosen_by_pictures_that_the_model_does_not_make(tmp_path):
    with pytest.raises(UserError, match="num_scales chooses by pictures in colour"):
        evaluate.evaluate(config_of("depth", **{"evaluate.num_scales": 2}), tmp_path)
