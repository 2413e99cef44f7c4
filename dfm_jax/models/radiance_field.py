"""The pixel-aligned, time-conditioned radiance field: pixelNeRF's MLP (Yu et al. 2021) whose residual blocks are
modulated (FiLM) by the noise level of the view that they look at.

Letters: `b` scene, `v` feature view, `r` ray, `s` sample along it, `n` points (`r s`), `h w` pixels, `c` feature
channels, `d` MLP width, `k` blocks.

The first linear layer acts on `[point code | looked-up features]`. It commutes with the bilinear lookup, so each
feature map is projected once (`project_features`) and the projected map is looked up for every point.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import linen as nn
from flax import struct
from flax.linen.dtypes import promote_dtype
from jax import Array
from jaxtyping import Float

from dfm_jax.config import FieldConfig
from dfm_jax.geometry import project
from dfm_jax.models.activations import JOINT, OF_VIEWS, relu
from dfm_jax.models.embeddings import field_time_code, point_code
from dfm_jax.models.feature_lookup import lookup_features
from dfm_jax.structs import Camera, EncodedViews


@struct.dataclass
class ModulatedParameters:
    """Of a linear layer, a set for each noise level."""

    kernel: Float[Array, "*batch d d"]
    bias: Float[Array, "*batch d"]


@struct.dataclass
class ProjectedFeatures:
    """All of a field that does not depend on the point."""

    maps: Array  # [b, v, h, w, d] projected feature maps
    view_layers: tuple[ModulatedParameters, ...]  # k of [b, v]
    joint_layers: tuple[ModulatedParameters, ...]  # k of [b]
    camera: Camera  # [b, v]
    view_weights: Array  # [b, v] of each view in the average

    def some_views(self, which: slice) -> "ProjectedFeatures":
        """Some of the views, with the weights that they have among all."""
        some = lambda tree: jax.tree.map(lambda x: x[:, which], tree)
        return self.replace(
            maps=some(self.maps),
            view_layers=some(self.view_layers),
            camera=some(self.camera),
            view_weights=some(self.view_weights),
        )


class Linear(nn.Dense):
    """A dense layer that sees all points as one long matrix.

    XLA computes the gradient of a kernel from two axes in far less time than from four (on a CPU, 25 ms against 35 for
    two layers of 64 and 38400 points).
    """

    def __call__(self, x: Float[Array, "*points c"]) -> Float[Array, "*points d"]:
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.features)


class Head(nn.Dense):
    """A dense layer that computes only some columns of its result."""

    @nn.compact
    def __call__(self, x: Float[Array, "*points c"], columns: slice = slice(None)) -> Float[Array, "*points k"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel[:, columns], bias[columns], dtype=self.dtype)
        return (x.reshape(-1, x.shape[-1]) @ kernel + bias[None]).reshape(*x.shape[:-1], -1)


class ModulatedLinear(nn.Module):
    """The parameters of `scale (x W + w) + shift`, with the scale multiplied into the (much smaller) `W` and `w`.

    So a modulation costs nothing at the points; and its gradient, a sum over them, is part of that of the kernel. Made
    outside of the loop over chunks of rays, that gradient is summed up once, not in every chunk.
    """

    width: int

    @nn.compact
    def __call__(self, scale: Float[Array, "*batch d"], shift: Float[Array, "*batch d"]) -> ModulatedParameters:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.width, self.width))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        kernel = kernel.reshape(*[1] * (scale.ndim - 1), *kernel.shape) * scale[..., None, :]
        return ModulatedParameters(kernel, bias.reshape(*[1] * (scale.ndim - 1), -1) * scale + shift)


class ResidualBlock(nn.Module):
    """`x + fc_1(relu(film(fc_0(relu(x)))))`."""

    width: int
    dtype: Any
    kept_as: str  # name of its activations
    first: bool = False  # what enters it is computed again in a moment, and has no name

    def setup(self) -> None:
        self.fc_0 = ModulatedLinear(self.width)
        self.fc_1 = Linear(self.width, kernel_init=nn.initializers.zeros_init(), dtype=self.dtype)
        self.film = nn.Dense(2 * self.width, dtype=self.dtype)

    def modulated(self, time_code: Float[Array, "*batch e"]) -> ModulatedParameters:
        """Its first layer at a noise level. Float32, as parameters are: so many gradients are added up."""
        scale, shift = jnp.split(self.film(nn.silu(time_code)), 2, axis=-1)
        return self.fc_0(1 + scale, shift)

    def hidden(self, x: Float[Array, "*batch n d"], layer: ModulatedParameters) -> Float[Array, "*batch n d"]:
        entering = relu(x, "" if self.first else self.kept_as)
        entering, kernel, bias = promote_dtype(entering, layer.kernel, layer.bias, dtype=self.dtype)
        return relu(entering @ kernel + bias[..., None, :], self.kept_as)

    def __call__(self, x: Float[Array, "*batch n d"], layer: ModulatedParameters) -> Float[Array, "*batch n d"]:
        return x + self.fc_1(self.hidden(x, layer))


def _weighted_sum(weights: Float[Array, "b v"], x: Float[Array, "b v n d"]) -> Float[Array, "b n d"]:
    """Over the views. Written out: XLA for CPUs would merge a reduction with the whole network before it into one slow
    loop (six times as long for the toy's field)."""
    return sum(weights[:, i, None, None] * x[:, i] for i in range(x.shape[1]))


class RadianceField(nn.Module):
    """One MLP of a field: points to density, colour and features."""

    config: FieldConfig
    rendered_features: int
    pixel_grid: str
    dtype: Any

    def setup(self) -> None:
        config = self.config
        self.point_in = Linear(config.width, use_bias=False, dtype=self.dtype)
        self.feature_in = nn.Dense(config.width, dtype=self.dtype)
        self.time_in = nn.Dense(4 * config.width, dtype=self.dtype)
        self.time_out = nn.Dense(4 * config.width, dtype=self.dtype)
        block = partial(ResidualBlock, config.width, self.dtype)
        self.view_blocks = [block(OF_VIEWS, first=i == 0) for i in range(config.view_blocks)]
        self.joint_blocks = [block(JOINT) for _ in range(config.joint_blocks)]
        self.out = Head(3 + 1 + self.rendered_features, bias_init=self._out_bias, dtype=self.dtype)

    def _out_bias(self, _key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.zeros(shape, dtype).at[3].set(self.config.density_bias)

    def project_features(self, views: EncodedViews) -> ProjectedFeatures:
        """Projects the feature maps, and computes the layers that every view's noise level modulates."""
        code = field_time_code(views.timestep, self.config.width)
        code = self.time_out(nn.gelu(self.time_in(code), approximate=False))
        view_layers = tuple(block.modulated(code) for block in self.view_blocks)
        # The last view is the noisy target (or, where there is none, a context view): its time modulates the rest.
        joint_layers = tuple(block.modulated(code[:, -1]) for block in self.joint_blocks)
        maps = self.feature_in(views.features)
        view_weights = views.valid / jnp.sum(views.valid, axis=1, keepdims=True)
        return ProjectedFeatures(maps, view_layers, joint_layers, views.camera, view_weights.astype(maps.dtype))

    def aggregate_views(
        self, features: ProjectedFeatures, points: Float[Array, "b r s 3"], pixel: Float[Array, "b r 2"] | None = None
    ) -> tuple[Float[Array, "b r s d"], Float[Array, "b r s d"]]:
        """The MLP's first half, of every view of `features` at world points, summed with the views' weights.

        But for the last layer of the last block, which commutes with the sum and need not be applied to every view:
        what enters the block, and what enters that layer.

        Args:
          pixel: where all points of a ray lie in the (only) view, so that it is looked up once a ray.
        """
        flat = rearrange(points, "b r s xyz -> b 1 (r s) xyz")
        uv, camera_points = project(features.camera, flat)
        if pixel is None:
            looked_up = lookup_features(features.maps, uv, self.pixel_grid)
        else:
            once = lookup_features(features.maps, pixel[:, None], self.pixel_grid)
            looked_up = repeat(once, "b v r d -> b v (r s) d", s=points.shape[2])
        x = self.point_in(point_code(camera_points)) + looked_up
        *blocks, last = self.view_blocks
        *layers, last_layer = features.view_layers
        for block, layer in zip(blocks, layers, strict=True):
            x = block(x, layer)
        hidden = last.hidden(x, last_layer)
        return tuple(
            rearrange(_weighted_sum(features.view_weights, y), "b (r s) d -> b r s d", s=points.shape[2])
            for y in (x, hidden)
        )

    def aggregate_context_views(
        self, features: ProjectedFeatures, points: Float[Array, "b r s 3"]
    ) -> Float[Array, "b r s d"]:
        """The contribution of some, not all, views to the MLP's second half: what its outputs take as `context`."""
        x, hidden = self.aggregate_views(features, points)
        last_layer = self.view_blocks[-1].fc_1
        return x + last_layer(hidden) - last_layer(jnp.zeros((1, 1, 1, x.shape[-1])))  # its bias comes with the rest

    def density(
        self,
        features: ProjectedFeatures,
        points: Float[Array, "b r s 3"],
        pixel: Float[Array, "b r 2"] | None = None,
        context: Float[Array, "b r s d"] | None = None,
    ) -> Float[Array, "b r s"]:
        """Density (>= 0) at world points along rays.

        Args:
          pixel: for rays of the last view, where each is seen in it.
          context: what `aggregate_context_views` makes of all views but the last at these points, if that is known.
        """
        return nn.relu(self._outputs(slice(3, 4), features, points, pixel, context)[..., 0])

    def colour(
        self, features: ProjectedFeatures, points: Array, pixel: Array | None = None, context: Array | None = None
    ) -> tuple[Float[Array, "b r s"], Float[Array, "b r s 3"]]:
        """Density and colour in [0, 1], see `density`."""
        out = self._outputs(slice(0, 4), features, points, pixel, context)
        return nn.relu(out[..., 3]), nn.sigmoid(out[..., :3])

    def radiance(
        self, features: ProjectedFeatures, points: Array, pixel: Array | None = None, context: Array | None = None
    ) -> tuple[Float[Array, "b r s"], Float[Array, "b r s c"]]:
        """Density and `[colour in [0, 1] | rendered features]`, see `density`."""
        out = self._outputs(slice(0, None), features, points, pixel, context)
        return nn.relu(out[..., 3]), jnp.concatenate([nn.sigmoid(out[..., :3]), out[..., 4:]], axis=-1)

    def _outputs(
        self,
        columns: slice,
        features: ProjectedFeatures,
        points: Float[Array, "b r s 3"],
        pixel: Float[Array, "b r 2"] | None,
        context: Float[Array, "b r s d"] | None,
    ) -> Float[Array, "b r s k"]:
        """Columns of the last layer, `[colour 3 | density 1 | features]`; the others are not computed."""
        if pixel is None and context is None:
            x, hidden = self.aggregate_views(features, points)
        else:
            x, hidden = self.aggregate_views(features.some_views(slice(-1, None)), points, pixel)
            if context is None:
                others = self.aggregate_views(features.some_views(slice(-1)), points)
                x, hidden = x + others[0], hidden + others[1]
        x = x + self.view_blocks[-1].fc_1(hidden)
        x = x if context is None else x + context
        x = rearrange(x, "b r s d -> b (r s) d")
        for block, layer in zip(self.joint_blocks, features.joint_layers, strict=True):
            x = block(x, layer)
        out = self.out(relu(x, JOINT), columns).astype(jnp.float32)
        return rearrange(out, "b (r s) k -> b r s k", s=points.shape[2])

    def __call__(self, views: EncodedViews, points: Float[Array, "b r s 3"]) -> tuple[Array, Array]:
        return self.radiance(self.project_features(views), points)
