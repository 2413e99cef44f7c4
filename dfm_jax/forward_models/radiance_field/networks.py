"""The networks of a scene model: one encoder of views, and the MLPs of its radiance fields."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Key, Num

from dfm_jax.config import DiTConfig, ModelConfig, RayMarchingConfig, ResNet34Config
from dfm_jax.config.marching import MarchingLevel
from dfm_jax.forward_models.protocol import Params
from dfm_jax.models.dit import DiTEncoder
from dfm_jax.models.encoder import THREADED_PARAMS, Encoder
from dfm_jax.models.radiance_field import RadianceField
from dfm_jax.models.resnet import ResNet34Encoder
from dfm_jax.structs import Camera, EncodedViews, Views

ENCODERS = {DiTConfig: DiTEncoder, ResNet34Config: ResNet34Encoder}


class BoundEncoder:
    """An encoder bound to parameters, which one function hands on to the next in a struct. Both must be called in one
    piece: where jax takes the struct apart, it holds none any more."""

    def __init__(self, encoder: Encoder | None = None, params: Params | None = None):
        self.encoder, self.params = encoder, params


@dataclasses.dataclass(frozen=True)
class Savings:
    """Work that rendering leaves out, see `SampleConfig`; by default none."""

    coarse_pass: str = "coarse"  # the field that says where the fine samples go: 'coarse' or 'fine'
    kept_samples: float = 1.0
    level: MarchingLevel | None = None  # None: as the model was made

    @property
    def stride(self) -> int:
        return self.level.stride if self.level else 1


jax.tree_util.register_pytree_node(BoundEncoder, lambda bound: ((), None), lambda *_: BoundEncoder())


@dataclasses.dataclass(frozen=True)
class SceneNetworks:
    """Frozen and hashable: it holds settings only. Parameters are a plain dict of the parts `encoder`,
    `conditioning_field` (its single MLP; not of pixelNeRF) and `scene_field` (`coarse`, or the `proposal` in its place,
    and, with importance sampling, `fine`).
    """

    config: ModelConfig
    image_size: int
    savings: Savings = Savings()

    @property
    def dtype(self) -> Any:
        """'auto' is float32 to those who only ask for shapes."""
        chosen = self.config.compute_dtype
        return jnp.dtype("float32" if chosen == "auto" else chosen)

    @property
    def scene_parts(self) -> tuple[str, ...]:
        """Names of the scene field's MLPs, in the order of their evaluation."""
        first = "coarse" if self.config.proposal is None else "proposal"
        return (first, "fine") if self.config.ray_marching.num_fine else (first,)

    @property
    def ray_marching(self) -> RayMarchingConfig:
        """How rays are marched: as the model was made, but for what is saved."""
        marching, level = self.config.ray_marching, self.savings.level
        if level is None:
            return marching
        return dataclasses.replace(marching, num_coarse=level.num_coarse, num_fine=level.num_fine)

    @property
    def marched_parts(self) -> tuple[str, ...]:
        """The scene field's MLPs that rendering evaluates, beginning with the one at the even distances."""
        if self.savings.coarse_pass == "fine":
            return ("fine",)
        return self.scene_parts if self.ray_marching.num_fine else self.scene_parts[:1]

    @property
    def parts_at_even_distances(self) -> tuple[str, ...]:
        """Those of them that are evaluated at all even distances."""
        everywhere = self.config.proposal is None and self.savings.kept_samples == 1
        return self.marched_parts if everywhere else self.marched_parts[:1]

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

    def init_encoder(self, key: Key[Array, ""], *, noisy: bool, further_channels: int = 0) -> Params:
        """New parameters of the encoder, with or without the stem for noisy views."""
        channels = 3 + 3 + 1 + self.config.rendered_features + further_channels
        images = jnp.zeros((1, self.image_size, self.image_size, channels))
        inputs = (images[..., :3], images) if noisy else (images[..., :3],)
        method = "__call__" if noisy else "encode_clean"
        return self.encoder.init(key, *inputs, jnp.zeros((1,)), jnp.eye(4)[None, :3], method=method)["params"]

    def init_field(self, name: str, key: Key[Array, ""]) -> Params:
        camera = Camera(jnp.eye(4)[None, None], jnp.eye(3)[None, None])
        features = jnp.zeros((1, 1, 4, 4, self.config.encoder.features))
        ones = jnp.ones((1, 1))
        views = EncodedViews(features, camera, ones, ones > 0)
        return self.field(name).init(key, views, jnp.zeros((1, 1, 1, 3)))["params"]

    def init_scene_field(self, key: Key[Array, ""]) -> Params:
        keys = jax.random.split(key, len(self.scene_parts))
        names = ("proposal" if part == "proposal" else "scene_field" for part in self.scene_parts)
        return {part: self.init_field(name, k) for part, name, k in zip(self.scene_parts, names, keys, strict=True)}

    def bind_encoder(self, params: Params, after: BoundEncoder | None = None) -> Encoder:
        """The encoder with its parameters. All that one function encodes is to be encoded by one of these, or by one
        that is bound `after` it: then the gradients are added up in place."""
        variables = {"params": params["encoder"]}
        if after is not None and after.params is params:
            variables = after.encoder.variables
        return self.encoder.bind(variables, mutable=[THREADED_PARAMS])

    def encode_views(self, encoder: Encoder, views: Views, timestep: Num[Array, "b v"]) -> EncodedViews:
        """One feature map for every view, by a bound encoder."""
        flat = lambda x: rearrange(x, "b v ... -> (b v) ...")
        features = encoder.encode_clean(2 * flat(views.images) - 1, flat(timestep), flat(views.absolute_pose))
        features = rearrange(features.astype(self.dtype), "(b v) h w c -> b v h w c", b=views.valid.shape[0])
        return EncodedViews(features, views.camera, timestep, views.valid)
