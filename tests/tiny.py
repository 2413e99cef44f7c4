"""Small models, scenes and cameras that several tests share."""

import dataclasses
from functools import partial

import jax
import numpy as np

from dfm_jax.config import (
    DiTConfig,
    EncoderConfig,
    FieldConfig,
    LossConfig,
    ModelConfig,
    RayMarchingConfig,
    ResNet34Config,
)
from dfm_jax.forward_models.pixelnerf import PixelNeRF
from dfm_jax.forward_models.protocol import Params, parameter_shapes
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel
from dfm_jax.forward_models.radiance_field.networks import SceneNetworks
from dfm_jax.forward_models.radiance_field.rendered_scenes import RenderedScenes
from dfm_jax.structs import Camera, EncodedViews, Example, Scene, Views
from tests.programs import QUICK_OPTIONS, USERS_OPTIONS

SIZE = 16
NUM_COARSE, NUM_FINE = 6, 5
# 256 rays are five chunks and a part of one.
CHUNK = 48
UNCHUNKED = 10_000
NEAR, FAR = 0.5, 4.0
LOSS = LossConfig(estimate=1.0, coarse=0.5, distortion=0.1, smoothness=0.2, pixels="patch", patch_size=6)

# The tests spend their time compiling: what runs on small arrays is not worth optimising. What runs for long is.
jit = partial(jax.jit, compiler_options=QUICK_OPTIONS)
optimised_jit = partial(jax.jit, compiler_options=USERS_OPTIONS)

RESNET = ResNet34Config("resnet34", base=2, absolute_pose=True)


def tiny_model(
    *,
    num_fine: int = NUM_FINE,
    chunk_size: int = CHUNK,
    proposal: FieldConfig | None = None,
    compute_dtype: str = "float32",
    pixel_grid: str = "centres",
    remat: bool = False,
    absolute_pose: bool = True,
    loss: LossConfig = LOSS,
    deterministic: bool = False,
    encoder: EncoderConfig | None = None,
    view_blocks: int = 1,
) -> RenderedScenes:
    """A DiT encoder unless another is given; `remat` and `absolute_pose` are the DiT's."""
    encoder = encoder or DiTConfig(
        "dit", depth=2, width=16, num_heads=2, features=8, absolute_pose=absolute_pose, remat=remat
    )
    field = FieldConfig(width=16, view_blocks=view_blocks, joint_blocks=1, density_bias=0.5)
    marching = RayMarchingConfig(
        num_coarse=NUM_COARSE, num_fine=num_fine, num_conditioning=5, chunk_size=chunk_size, background=0.3
    )
    config = ModelConfig(
        name="radiance_field", pixel_grid=pixel_grid, compute_dtype=compute_dtype, rendered_features=4, estimate_size=8,
        encoder=encoder, conditioning_field=field, scene_field=field, proposal=proposal, ray_marching=marching,
    )  # fmt: skip
    if deterministic:
        marching = dataclasses.replace(marching, num_conditioning=0)
        changes = {"conditioning_field": None, "estimate_size": 0, "ray_marching": marching}
        return PixelNeRF.of(dataclasses.replace(config, name="pixelnerf", **changes), SIZE, loss)
    return RadianceFieldModel.of(config, SIZE, loss)


def reconfigured(model: RenderedScenes, **settings: object) -> RenderedScenes:
    """The model with other settings."""
    config = dataclasses.replace(model.config, **settings)
    return dataclasses.replace(model, networks=dataclasses.replace(model.networks, config=config))


def random_params(model: RenderedScenes, seed: int = 0) -> Params:
    """Parameters of ordinary size, none of them zero (new ones close every gate), with half transparent fields."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        names = [part.key for part in path]
        if names[-1] == "kernel":
            return on_device(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[-4:-1])))
        bias = 0.1 * rng.normal(size=leaf.shape)
        if names[-2] == "out":
            bias[3] = 1.0
        return on_device(bias)

    return jax.tree_util.tree_map_with_path(draw, parameter_shapes(_of_same_parameters(model)))


def on_device(x: np.ndarray) -> jax.Array:
    """In float32; for that `jnp.asarray` would compile a program for each shape."""
    return jax.device_put(np.asarray(x, np.float32))


def _of_same_parameters(model: RenderedScenes) -> RenderedScenes:
    """As the model but for what its parameters do not depend on: it is traced once for all that differ in that."""
    config, default = model.config, tiny_model()
    marching = dataclasses.replace(default.config.ray_marching, num_fine=min(1, config.ray_marching.num_fine))
    settings = {name: getattr(default.config, name) for name in ("pixel_grid", "compute_dtype", "matmul_precision")}
    settings |= {"encoder": dataclasses.replace(config.encoder, remat=False), "ray_marching": marching}
    networks = SceneNetworks(dataclasses.replace(config, **settings), model.image_size)
    return dataclasses.replace(model, networks=networks, trained_on=default.trained_on)


def random_rotations(rng: np.random.Generator, shape: tuple[int, ...], angle: float) -> np.ndarray:
    """Rotations `[*shape, 3, 3]` by at most about `angle` radians (Cayley's formula)."""
    x, y, z = np.moveaxis(rng.uniform(-angle / 2, angle / 2, (*shape, 3)), -1, 0)
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*shape, 3, 3)
    return np.linalg.solve(np.eye(3) - skew, np.eye(3) + skew)


def random_camera(rng: np.random.Generator, shape: tuple[int, ...], angle: float = 0.3) -> Camera:
    pose = np.broadcast_to(np.eye(4), (*shape, 4, 4)).copy()
    pose[..., :3, :3] = random_rotations(rng, shape, angle)
    pose[..., :3, 3] = rng.uniform(-0.3, 0.3, (*shape, 3))
    intrinsics = np.broadcast_to(np.eye(3), (*shape, 3, 3)).copy()
    intrinsics[..., 0, 0] = rng.uniform(0.8, 1.4, shape)
    intrinsics[..., 1, 1] = rng.uniform(0.8, 1.4, shape)
    intrinsics[..., :2, 2] = rng.uniform(0.45, 0.55, (*shape, 2))
    return Camera(on_device(pose), on_device(intrinsics))


def random_views(rng: np.random.Generator, b: int, v: int) -> Views:
    camera = random_camera(rng, (b, v))
    images = on_device(rng.uniform(size=(b, v, SIZE, SIZE, 3)))
    absolute_pose = np.asarray(random_camera(rng, (b, v)).camera_to_world)[..., :3, :]
    return Views(images, camera, on_device(absolute_pose), jax.device_put(np.ones((b, v), bool)))


def tiny_example(b: int = 2, v: int = 2, t: int = 2, seed: int = 0) -> Example:
    rng = np.random.default_rng(seed)
    return Example(
        context=random_views(rng, b, v),
        target=random_views(rng, b, t),
        near=on_device(rng.uniform(NEAR, 1.2 * NEAR, b)),
        far=on_device(rng.uniform(0.8 * FAR, FAR, b)),
        index=jax.device_put(np.arange(b, dtype=np.int32)),
    )


def tiny_scene(b: int = 2, v: int = 3, seed: int = 0) -> Scene:
    return Scene(tiny_views(b, v, seed), near=on_device(np.full(b, NEAR)), far=on_device(np.full(b, FAR)))


def tiny_views(b: int = 2, v: int = 3, seed: int = 0) -> EncodedViews:
    """Random feature maps, as `tiny_model`'s encoder might have made them."""
    rng = np.random.default_rng(seed)
    timestep = np.zeros((b, v))
    timestep[:, -1] = rng.integers(0, 1000, b)
    return EncodedViews(
        features=on_device(rng.normal(size=(b, v, SIZE, SIZE, 8))),
        camera=random_camera(rng, (b, v)),
        timestep=on_device(timestep),
        valid=jax.device_put(np.ones((b, v), bool)),
    )


def assert_trees_close(a: object, b: object, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """The same numbers, computed in another order in float32: through a dozen layers, behind codes of points and poses
    whose highest octave enlarges rounding 48 times, one in ten thousand."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)
