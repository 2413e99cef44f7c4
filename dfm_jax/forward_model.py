"""Forward models: how a signal that nobody observes makes the observations that are seen.

`ForwardModel` is what diffusion with forward models needs of one (Tewari et al. 2023, section 3): infer a signal from
observations, and observe a signal. The denoiser, the losses and the samplers are written against it.
`RadianceFieldModel` is the one for 3D scenes: signals are radiance fields, and observing is volume rendering.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Key, Num

from dfm_jax.config import DiTConfig, LossConfig, ModelConfig, ResNet34Config
from dfm_jax.geometry import cast_rays, pixel_grid
from dfm_jax.models.dit import DiTEncoder
from dfm_jax.models.encoder import PASSED_ON, Encoder
from dfm_jax.models.radiance_field import RadianceField
from dfm_jax.models.resnet import ResNet34Encoder
from dfm_jax.rendering.render import (
    Field,
    even_distances,
    in_chunks,
    points_along,
    render_hierarchical,
    render_single_pass,
)
from dfm_jax.structs import Camera, Example, Rays, Rendering, Scene, Views

Params = dict[str, Any]
MID_GREY = 0.5
ENCODERS = {DiTConfig: DiTEncoder, ResNet34Config: ResNet34Encoder}


class ForwardModel(Protocol):
    """A pair of functions, `signal = infer(observations)` and `observation = forward(signal, query)`, and what ties
    them to an example. Diffusion runs on observations, in a range of about [-1, 1]; `b` is the batch."""

    def encode_context(self, params: Params, example: Any) -> Any:
        """What the context alone tells, whatever the noisy observation: leaves `[b, ...]`."""

    def infer(self, params: Params, context: Any, x_t: Array, timestep: Array) -> tuple[Any, Any | None]:
        """Signal seen in the (encoded) context and in a noisy observation `x_t [b, ...]` at noise level `timestep [b]`;
        and a deterministic estimate of that observation, made from the context alone (None: the model makes none)."""

    def infer_from(self, params: Params, example: Any, x_t: Array, timestep: Array) -> tuple[Any, Any | None]:
        """`infer` from an example whose context is not encoded: what training does."""

    def forward(self, params: Params, signal: Any, query: Any, keys: Array | None = None) -> Any:
        """Observation of a signal. `keys [b]`: randomness, if the model has any; None: deterministic."""

    def target(self, example: Any) -> tuple[Array, Any]:
        """The observation that is noised, `x0 [b, ...]`, and the query that makes it."""

    def prepare_query(self, params: Params, context: Any, query: Any, memory: int) -> Any:
        """The query of `target` with what all denoising steps would compute alike for it, in at most `memory` bytes an
        example."""

    def supervision(self, example: Any, keys: Array) -> tuple[Any, Array]:
        """A query to train on, and the observation it should make, in diffusion's range."""

    def estimate_target(self, example: Any) -> Array:
        """The observation that the deterministic estimate should make, in diffusion's range."""

    def to_x0(self, observation: Any) -> Array:
        """An observation in diffusion's range, in the layout of its query."""

    def drop_context(self, example: Any, dropped: Array) -> Any:
        """The example without its context where `dropped [b]` (classifier-free guidance)."""


@struct.dataclass
class EncodedContext:
    """What the context views tell of a scene, and of the target view."""

    scene: Scene  # of the context views alone
    estimate: Rendering  # [b, s * s] the deterministic estimate of target view 0
    estimate_channels: Array  # [b, h, w, k] the same, as the encoder takes it
    camera: Camera  # [b] of target view 0
    absolute_pose: Array  # [b, 3, 4]


@dataclasses.dataclass(frozen=True)
class RadianceFieldModel:
    """Scenes as radiance fields, observed by volume rendering (the model of the paper).

    Frozen and hashable: it holds settings only. Parameters are a plain dict of the parts `encoder`,
    `conditioning_field` (its single MLP) and `scene_field` (`coarse`, or the `proposal` in its place, and, with
    importance sampling, `fine`).
    """

    config: ModelConfig
    image_size: int
    loss: LossConfig

    # --- networks -----------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> Any:
        return jnp.dtype(self.config.compute_dtype)

    @property
    def scene_parts(self) -> tuple[str, ...]:
        """Names of the scene field's MLPs, in the order of their evaluation."""
        first = "coarse" if self.config.proposal is None else "proposal"
        return (first, "fine") if self.config.ray_marching.num_fine else (first,)

    def part(self, name: str) -> RadianceField:
        """One of the scene field's MLPs."""
        return self.field("proposal" if name == "proposal" else "scene_field")

    @property
    def encoder(self) -> Encoder:
        return ENCODERS[type(self.config.encoder)](self.config.encoder, self.dtype)

    def field(self, name: str) -> RadianceField:
        """One MLP of the field `name`: 'conditioning_field', 'scene_field' or 'proposal'."""
        sizes = getattr(self.config, name)
        return RadianceField(sizes, self.config.rendered_features, self.config.pixel_grid, self.dtype)

    def init(self, key: Key[Array, ""]) -> Params:
        """New parameters, float32."""
        keys = jax.random.split(key, 3)
        return {
            "encoder": self._init_encoder(keys[0]),
            "conditioning_field": self._init_field("conditioning_field", keys[1]),
            "scene_field": self._init_scene_field(keys[2]),
        }

    def _init_encoder(self, key: Key[Array, ""]) -> Params:
        channels = 3 + 3 + 1 + self.config.rendered_features
        images = jnp.zeros((1, self.image_size, self.image_size, channels))
        return self.encoder.init(key, images[..., :3], images, jnp.zeros((1,)), jnp.eye(4)[None, :3])["params"]

    def _init_field(self, name: str, key: Key[Array, ""]) -> Params:
        camera = Camera(jnp.eye(4)[None, None], jnp.eye(3)[None, None])
        features = jnp.zeros((1, 1, 4, 4, self.config.encoder.features))
        ones = jnp.ones((1, 1))
        scene = Scene(features, camera, ones, ones > 0, ones[0], ones[0])
        return self.field(name).init(key, scene, jnp.zeros((1, 1, 1, 3)))["params"]

    def _init_scene_field(self, key: Key[Array, ""]) -> Params:
        keys = jax.random.split(key, len(self.scene_parts))
        names = ("proposal" if part == "proposal" else "scene_field" for part in self.scene_parts)
        return {part: self._init_field(name, k) for part, name, k in zip(self.scene_parts, names, keys, strict=True)}

    # --- the pair -----------------------------------------------------------------------------------------------

    def encode_context(self, params: Params, example: Example) -> EncodedContext:
        return self._encode_context(params, example)[0]

    def _encode_context(self, params: Params, example: Example) -> tuple[EncodedContext, Params]:
        """Also returns the parameters to encode more views with, see `encoder.PASSED_ON`."""
        clean, params = _encode_views(params, self, example.context, jnp.zeros(example.context.valid.shape))
        clean = clean.replace(near=example.near, far=example.far)
        target = jax.tree.map(lambda x: x[:, 0], example.target)
        estimate = estimate_image(params, self, clean, target.camera)
        channels = self._estimate_channels(estimate)
        return EncodedContext(clean, estimate, channels, target.camera, target.absolute_pose), params

    def infer(
        self, params: Params, context: EncodedContext, x_t: Float[Array, "b h w 3"], timestep: Num[Array, "b"]
    ) -> tuple[Scene, Rendering]:
        """The scene seen in the context views and one noisy target image in [-1, 1]; and the deterministic estimate
        `[b, s * s]` of that image, `s = estimate_size`."""
        inputs = jnp.concatenate([x_t, context.estimate_channels], axis=-1)
        features, _ = self._apply_encoder(params, "encode_noisy", inputs, timestep, context.absolute_pose)
        return add_view(context.scene, features, context.camera, timestep), context.estimate

    def infer_from(
        self, params: Params, example: Example, x_t: Float[Array, "b h w 3"], timestep: Num[Array, "b"]
    ) -> tuple[Scene, Rendering]:
        context, params = self._encode_context(params, example)
        return self.infer(params, context, x_t, timestep)

    def forward(
        self, params: Params, signal: Scene, query: Rays | tuple[Rays, ...], keys: Key[Array, "b"] | None = None
    ) -> Rendering:
        """Colour (and depth) along rays, or several sets of them joined."""
        return render(params, self, signal, query, keys, outputs="colour", coarse_colour=self.loss.coarse > 0)

    # --- what ties it to an example -----------------------------------------------------------------------------

    def target(self, example: Example) -> tuple[Float[Array, "b h w 3"], Rays]:
        camera = jax.tree.map(lambda x: x[:, 0], example.target.camera)
        return 2 * example.target.images[:, 0] - 1, image_rays(camera, self.image_size, self.config.pixel_grid)

    def prepare_query(
        self, params: Params, context: EncodedContext, query: Rays, memory: int
    ) -> Rays | tuple[Rays, ...]:
        """Target rays with their pixels, and as many as `memory` holds with what the context views say along them.

        Context views are clean and the coarse distances never move: the half of the coarse and the fine MLP that looks
        at each of these views, and its average, are the same in all denoising steps.
        """
        xy = rearrange(pixel_grid(self.image_size, self.image_size, self.config.pixel_grid), "h w xy -> (h w) xy")
        query = self.share(query.replace(pixel=jnp.broadcast_to(xy, (query.origins.shape[0], *xy.shape))))
        marching = self.config.ray_marching
        # A scene field that is guided by a proposal is never evaluated at the coarse distances.
        parts = self.scene_parts if self.config.proposal is None else ("proposal",)
        width = sum(self.part(part).config.width for part in parts)
        bytes_per_ray = marching.num_coarse * width * self.dtype.itemsize
        num_rays = query.origins.shape[1]
        fitting = min(num_rays, memory // bytes_per_ray)
        if fitting < num_rays:
            fitting -= fitting % marching.chunk_size  # whole chunks
        first, rest = (jax.tree.map(lambda x, s=s: x[:, s], query) for s in (slice(fitting), slice(fitting, None)))
        if not fitting:
            return query
        known = first.replace(context={part: gather_context(params, self, context, first, part) for part in parts})
        return known if fitting == num_rays else (known, rest)

    def share(self, query: Rays) -> Rays:
        """Those of the target's rays that this device renders: all, unless several do it together."""
        return query

    def supervision(self, example: Example, keys: Key[Array, "b"]) -> tuple[Rays, Float[Array, "b r 3"]]:
        """Rays through some pixels of all target views, `r = t * patch_size^2`, and their colours in [-1, 1]."""
        num_views, size = example.target.images.shape[1], self.image_size
        draw = partial(draw_pixels, num_views=num_views, image_size=size, loss=self.loss)
        pixels = jax.vmap(draw)(keys)
        rows = rearrange(example.target.images, "b t h w c -> b t (h w) c")
        truth = jnp.take_along_axis(rows, pixels[..., None], axis=2)
        xy = rearrange(pixel_grid(size, size, self.config.pixel_grid), "h w xy -> (h w) xy")[pixels]
        rays = cast_rays(example.target.camera, xy)
        flat = lambda x: rearrange(x, "b t r c -> b (t r) c")
        return jax.tree.map(flat, rays), 2 * flat(truth) - 1

    def estimate_target(self, example: Example) -> Float[Array, "b r 3"]:
        size = self.config.estimate_size
        image = 2 * example.target.images[:, 0] - 1
        if size != self.image_size:
            image = jax.image.resize(image, (image.shape[0], size, size, 3), "bilinear")
        return rearrange(image, "b h w c -> b (h w) c")

    def to_x0(self, observation: Rendering) -> Float[Array, "b r 3"]:
        return 2 * observation.rgb - 1

    def drop_context(self, example: Example, dropped: Bool[Array, "b"]) -> Example:
        images = jnp.where(dropped[:, None, None, None, None], MID_GREY, example.context.images)
        return example.replace(context=example.context.replace(images=images))

    # --- parts --------------------------------------------------------------------------------------------------

    def _apply_encoder(self, params: Params, method: str, *inputs: Array) -> tuple[Array, Params]:
        """Features, and the parameters for the next time."""
        features, extra = self.encoder.apply({"params": params["encoder"]}, *inputs, method=method, mutable=[PASSED_ON])
        encoder = {**params["encoder"], **extra.get(PASSED_ON, {}).get("params", {})}
        return features.astype(self.dtype), {**params, "encoder": encoder}

    def _estimate_channels(self, estimate: Rendering) -> Float[Array, "b h w k"]:
        """`[colour in [-1, 1] 3 | distance 1 | features]`, at the size of the image."""
        size = self.config.estimate_size
        values = jnp.concatenate([2 * estimate.rgb - 1, estimate.depth[..., None], estimate.features], axis=-1)
        image = rearrange(values, "b (h w) k -> b h w k", h=size)
        if size != self.image_size:
            shape = (image.shape[0], self.image_size, self.image_size, image.shape[-1])
            image = jax.image.resize(image, shape, "bilinear")
        return image


def encode_views(params: Params, nets: RadianceFieldModel, views: Views, timestep: Num[Array, "b v"]) -> Scene:
    """One feature map for every view, with its camera and noise level. `near` and `far` are left at 0: they belong to
    the example, not to its views."""
    return _encode_views(params, nets, views, timestep)[0]


def _encode_views(
    params: Params, nets: RadianceFieldModel, views: Views, timestep: Num[Array, "b v"]
) -> tuple[Scene, Params]:
    """`encode_views`, and the parameters to encode more of them with."""
    flat = lambda x: rearrange(x, "b v ... -> (b v) ...")
    features, params = nets._apply_encoder(
        params, "encode_clean", 2 * flat(views.images) - 1, flat(timestep), flat(views.absolute_pose)
    )
    features = rearrange(features, "(b v) h w c -> b v h w c", b=views.valid.shape[0])
    unknown = jnp.zeros(views.valid.shape[0])
    return Scene(features, views.camera, timestep, views.valid, unknown, unknown), params


def add_view(scene: Scene, features: Float[Array, "b h w c"], camera: Camera, timestep: Num[Array, "b"]) -> Scene:
    """The scene with one more (last) feature view, which is valid."""
    last = Scene(
        features=features,
        camera=camera,
        timestep=timestep.astype(scene.timestep.dtype),
        valid=jnp.ones(timestep.shape, bool),
        near=scene.near,
        far=scene.far,
    )
    append = lambda a, b: jnp.concatenate([a, b[:, None]], axis=1)
    joined = jax.tree.map(append, scene.replace(near=None, far=None), last.replace(near=None, far=None))
    return joined.replace(near=scene.near, far=scene.far)


def bind_field(params: Params, net: RadianceField, scene: Scene, outputs: str = "all") -> Callable[[str | None], Field]:
    """The field as a plain function of rays and distances, bound before anything transforms it.

    Args:
      outputs: 'density', 'colour' or 'all', see `RadianceField.query`.
    Returns:
      a function that makes the field: of None; or of the name of what `rays.context` knows at the distances that it
      will be asked about.
    """
    variables = {"params": params}
    prepared = net.apply(variables, scene, method="prepare")

    def make(known: str | None = None) -> Field:
        def field(rays: Rays, distances: Float[Array, "b r s"]) -> tuple[Array, Array]:
            context = rays.context[known] if known and rays.context else None
            points = points_along(rays, distances)
            return net.apply(variables, prepared, points, rays.pixel, context, outputs, method="query")

        return field

    return make


def gather_context(
    params: Params, nets: RadianceFieldModel, context: EncodedContext, rays: Rays, part: str
) -> Float[Array, "b r s d"]:
    """What the context views say at the coarse distances of target rays, to the MLP `part` of the scene field."""
    net, variables = nets.part(part), {"params": params["scene_field"][part]}
    # The noisy view is not known yet, but it has a share in the average.
    clean = context.scene
    scene = add_view(clean, jnp.zeros_like(clean.features[:, 0]), context.camera, jnp.zeros(clean.near.shape))
    views = net.apply(variables, scene, method="prepare").views(slice(-1))

    def gather(rays: Rays) -> Array:
        distances = even_distances(rays, clean.near, clean.far, nets.config.ray_marching.num_coarse)
        return net.apply(variables, views, points_along(rays, distances), method="gather_some")

    return in_chunks(gather, nets.config.ray_marching.chunk_size, rays)


def image_rays(camera: Camera, size: int, grid: str) -> Rays:
    """Rays through all pixels of a square image, row-major: `r = size * size`."""
    xy = rearrange(pixel_grid(size, size, grid), "h w xy -> 1 (h w) xy")
    return cast_rays(camera, xy)


def estimate_image(params: Params, nets: RadianceFieldModel, context: Scene, camera: Camera) -> Rendering:
    """The deterministic estimate: the context alone, through the conditioning field, in a single pass."""
    marching = nets.config.ray_marching
    field = bind_field(params["conditioning_field"], nets.field("conditioning_field"), context)()
    settings = {"num_samples": marching.num_conditioning, "background": marching.background}
    rays = image_rays(camera, nets.config.estimate_size, nets.config.pixel_grid)
    once = lambda rays: render_single_pass(field, rays, context.near, context.far, **settings)
    return in_chunks(once, marching.chunk_size, rays)


def render(
    params: Params,
    nets: RadianceFieldModel,
    scene: Scene,
    rays: Rays | tuple[Rays, ...],
    keys: Key[Array, "b"] | None = None,
    *,
    outputs: str = "all",
    coarse_colour: bool = True,
) -> Rendering:
    """What the scene looks like along `rays [b, r]`, or along several sets of them, joined.

    Args:
      keys: one per scene, for the importance samples; None places them deterministically.
      outputs: 'all', or 'colour' for a rendering without features.
      coarse_colour: whether to render what the coarse field alone sees, where there is a fine pass.
    """
    sets = rays if isinstance(rays, tuple) else (rays,)
    ends = np.cumsum([rays.origins.shape[1] for rays in sets])
    num_fine = nets.config.ray_marching.num_fine
    uniforms = [None] * len(sets)
    if keys is not None and num_fine:
        drawn = jax.vmap(lambda key: jax.random.uniform(key, (ends[-1], num_fine)))(keys)
        if nets.config.proposal is not None:  # few samples must not leave gaps: one in each of as many equal parts
            drawn = (jnp.arange(num_fine).reshape(1, 1, -1) + drawn) / num_fine
        uniforms = jnp.split(drawn, ends[:-1], axis=1)
    run = partial(render_with_uniforms, params, nets, scene, outputs=outputs, coarse_colour=coarse_colour)
    rendered = [run(rays, u) for rays, u in zip(sets, uniforms, strict=True)]
    return rendered[0] if len(sets) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *rendered)


def render_with_uniforms(
    params: Params,
    nets: RadianceFieldModel,
    scene: Scene,
    rays: Rays,
    uniforms: Float[Array, "b r m"] | None,
    *,
    outputs: str = "all",
    coarse_colour: bool = True,
) -> Rendering:
    """`render` along one set of rays, with the importance samples' uniform numbers given (None: deterministic)."""
    marching = nets.config.ray_marching
    bind = lambda part, outputs: bind_field(params["scene_field"][part], nets.part(part), scene, outputs)
    first, with_proposal = nets.scene_parts[0], nets.config.proposal is not None
    if not marching.num_fine:
        single = partial(render_single_pass, num_samples=marching.num_coarse, background=marching.background)
        field = bind("coarse", outputs)("coarse")
        return in_chunks(lambda r: single(field, r, scene.near, scene.far), marching.chunk_size, rays)
    coarse_outputs = "colour" if coarse_colour and not with_proposal else "density"
    coarse, fine = bind(first, coarse_outputs), bind("fine", outputs)
    double = partial(
        render_hierarchical,
        coarse(first),
        fine(None),
        near=scene.near,
        far=scene.far,
        num_coarse=marching.num_coarse,
        num_fine=marching.num_fine,
        background=marching.background,
        fine_field_at_coarse=fine("fine") if rays.context and not with_proposal else None,
        fine_only=with_proposal,
    )
    return in_chunks(lambda r, u: double(r, uniforms=u), marching.chunk_size, rays, uniforms)


def render_image(
    params: Params,
    nets: RadianceFieldModel,
    scene: Scene,
    camera: Camera,
    keys: Key[Array, "b"] | None = None,
    size: int | None = None,
) -> Rendering:
    """The whole square image of `camera [b]`, row-major, `r = size * size` (default: the model's image size)."""
    rays = image_rays(camera, size or nets.image_size, nets.config.pixel_grid)
    return render(params, nets, scene, rays, keys)


def draw_pixels(key: Key[Array, ""], *, num_views: int, image_size: int, loss: LossConfig) -> Num[Array, "t r"]:
    """Row-major indices of the pixels of each target view that a loss looks at: one patch, or independent pixels."""
    count = loss.patch_size**2
    if loss.pixels == "random":
        return jax.random.randint(key, (num_views, count), 0, image_size**2)
    corner = jax.random.randint(key, (num_views, 2), 0, image_size - loss.patch_size + 1)
    return patch_pixels(corner[:, 0], corner[:, 1], loss.patch_size, image_size)


def patch_pixels(top: Num[Array, "t"], left: Num[Array, "t"], size: int, image_size: int) -> Num[Array, "t r"]:
    """Row-major indices of square patches, `r = size * size`."""
    offset = jnp.arange(size)
    rows, columns = top[:, None, None] + offset[None, :, None], left[:, None, None] + offset[None, None]
    return rearrange(rows * image_size + columns, "t i j -> t (i j)")
