"""The data that passes between modules: frozen, named, with shapes.

Letters: `b` scene, `v` context view, `t` target view, `h w` pixels, `c` channels, `r` ray, `s` sample along a ray.
Cameras follow OpenCV (x right, y down, z forward). Images are channels-last floats in [0, 1]. Distances run along
unit rays, in the units of the scene.
"""

from flax import struct
from jax import Array


@struct.dataclass
class Camera:
    """Pinhole cameras.

    `intrinsics` are normalised: the first row of the pixel matrix is divided by the image width, the second by its
    height, so that they hold for every resolution of the same picture.

    >>> intrinsics = np.array([[1.41, 0, 0.5], [0, 1.41, 0.5], [0, 0, 1]])  # 1.41 widths and heights: 39 degrees
    >>> camera = dfm_jax.Camera(camera_to_world=np.eye(4), intrinsics=intrinsics)
    """

    camera_to_world: Array  # [*batch, 4, 4]
    intrinsics: Array  # [*batch, 3, 3]


@struct.dataclass
class Measurements:
    """What is known of views beside their colours; None of what is not."""

    depth: Array | None = None  # [b, v, h, w] distance along the ray; infinite where it meets nothing
    opacity: Array | None = None  # [b, v, h, w] share of the pixel that something covers, [0, 1]
    observed: Array | None = None  # [b, v, h, w] bool, what of the picture was observed; None: all of it


@struct.dataclass
class Views:
    """Posed images of the same scenes.

    `valid` marks real views: padding views (and only they) are False, and must not change any result.
    `absolute_pose` is each view's `camera_to_world` in the data set's own world, while `camera` is relative to the
    first context view; only encoders that are told the absolute pose read it.

    >>> dfm_jax.example_photo("toy").camera.camera_to_world.shape  # of one scene, there is no axis `b`
    (1, 4, 4)
    """

    images: Array  # [b, v, h, w, 3] in [0, 1]
    camera: Camera  # [b, v]
    absolute_pose: Array  # [b, v, 3, 4]
    valid: Array  # [b, v] bool
    measured: Measurements | None = None  # of the target views of training, where `config.data.measured` asks for it


@struct.dataclass
class Example:
    """A batch of training or evaluation scenes.

    Target view 0 is the one that diffusion noises; the others are novel views that are only rendered and supervised.
    The first context view is always valid. `index` is the position in the global, infinite training sequence
    (random keys are folded with it).

    >>> scenes.sampled.example.context.images.shape  # what a photograph became
    (1, 1, 24, 24, 3)
    """

    context: Views  # [b, v]
    target: Views  # [b, t]
    near: Array  # [b] distance at which rays start
    far: Array  # [b] distance at which rays end
    index: Array  # [b] int32


@struct.dataclass
class Rays:
    """Rays with unit directions."""

    origins: Array  # [*batch, r, 3]
    directions: Array  # [*batch, r, 3], unit length


@struct.dataclass
class RayCache:
    """What is known beforehand of rays through the pixels of a scene's last view.

    All points of such a ray are seen in one `pixel` of that view. `activations` are what all other views contribute to
    an MLP at the first `s` distances along the first `m` of the rays; there are none of MLPs that are not named.
    """

    pixel: Array  # [*batch, r, 2] image point
    activations: dict[str, Array]  # by MLP: [*batch, m, s, d]


@struct.dataclass
class EncodedViews:
    """Feature maps of views. Padding views are not `valid`."""

    features: Array  # [b, v, h, w, c]
    camera: Camera  # [b, v]
    timestep: Array  # [b, v] noise level that each view was encoded at; 0 for clean context
    valid: Array  # [b, v] bool


@struct.dataclass
class Scene:
    """A radiance field, held as the encoded views that it is looked up in, between two distances along every ray."""

    views: EncodedViews  # [b, v]
    near: Array  # [b]
    far: Array  # [b]


@struct.dataclass
class Rendering:
    """What a ray marcher sees; and, of the two layouts with a fine pass, what led to it."""

    rgb: Array  # [*batch, r, 3] in [0, 1]
    depth: Array  # [*batch, r] expected distance, not divided by the opacity
    features: Array  # [*batch, r, c]; no channel where only colour was asked for
    weights: Array  # [*batch, r, s] in [0, 1], at most 1 in sum
    distances: Array  # [*batch, r, s], ascending
    coarse_rgb: Array | None = None  # [*batch, r, 3] what the coarse field alone renders; of a single pass: `rgb`
    proposal: tuple[Array, Array] | None = None  # weights and distances [*batch, r, n] of a proposal


@struct.dataclass
class RenderedViews:
    """Images that cameras see of scenes, with their depths: from the renderer to the page.

    >>> views = scenes[0].render(scenes.target_camera, height=48, width=64)
    >>> views.rgb.shape, views.depth.shape
    ((48, 64, 3), (48, 64))
    """

    rgb: Array  # [*batch, h, w, 3] in [0, 1]
    depth: Array  # [*batch, h, w] expected distance along the ray, not divided by the opacity
    opacity: Array  # [*batch, h, w] share of the ray that is stopped, [0, 1]

    def surface_depth(self) -> Array:
        """Distances [*batch, h, w] of what stops the rays."""
        return self.depth / self.opacity.clip(1e-3)

    def depth_before(self, far: Array | float) -> Array:
        """Expected distances [*batch, h, w] with something opaque at `far`, which stops the rest of every ray."""
        return self.depth + (1.0 - self.opacity) * far
