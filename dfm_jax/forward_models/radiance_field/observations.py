"""What cameras record that take no pictures in colour, laid out as pictures: three channels of values in [0, 1].

So networks, weights and commands that are made for pictures take every kind. (Ke et al. 2024, *Repurposing
Diffusion-Based Image Generators for Monocular Depth Estimation*, lay depth out like that.)
"""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Float

from dfm_jax.structs import Measurements, RenderedViews, Views

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue (ITU-R BT.601)


@struct.dataclass
class Seen:
    """What is seen along rays, of renderings and of true views; the bounds of scenes broadcast against distances."""

    rgb: Array  # [*batch, 3] in [0, 1]
    distance: Array  # [*batch] expected distance, with something opaque at `far`
    opacity: Array  # [*batch] in [0, 1]
    near: Array
    far: Array

    @classmethod
    def of_views(cls, views: RenderedViews, near: Array, far: Array) -> "Seen":
        return cls(views.rgb, views.depth_before(far), views.opacity, near, far)

    @classmethod
    def of_truth(cls, views: Views, near: Array, far: Array) -> "Seen":
        """True views; NaN where what was measured does not tell, as in examples to sample from."""
        known, unknown = views.measured or Measurements(), jnp.full(views.images.shape[:-1], jnp.nan)
        distance = unknown if known.depth is None else jnp.clip(known.depth, near, far)
        return cls(views.images, distance, unknown if known.opacity is None else known.opacity, near, far)


def grey(seen: Seen) -> Float[Array, "*batch"]:
    """The luma of colours."""
    # No matrix product, which accelerators would round.
    return sum(share * seen.rgb[..., i] for i, share in enumerate(LUMA))


def depth(seen: Seen) -> Float[Array, "*batch"]:
    """0 at `near`, 1 at `far`."""
    return (seen.distance - seen.near) / (seen.far - seen.near)


def silhouette(seen: Seen) -> Float[Array, "*batch"]:
    """1 where something stops the ray."""
    return seen.opacity


RECORDS: Mapping[str, Callable[[Seen], Array]] = {"grey": grey, "depth": depth, "silhouette": silhouette}


def record(names: Sequence[str], seen: Seen) -> Float[Array, "*batch 3"]:
    """What a camera records, as pictures.

    Args:
      names: one to three of RECORDS, over which the channels are spread; none: colours.
    """
    if not names:
        return seen.rgb
    return jnp.stack([RECORDS[names[channel * len(names) // 3]](seen) for channel in range(3)], axis=-1)
