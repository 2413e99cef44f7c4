"""Sampled scenes: rendered at any camera, kept in a file, and read again.

Letters: `s` scenes that were asked about, `n` samples of each, `b = s * n` sampled scenes, those of one source side by
side; `h w` pixels.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.exports.protocol import NUM_VIEWS, Frame
from dfm_jax.sampling.cameras import checked_camera
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.novel_views import render_cameras
from dfm_jax.sampling.scene_files import write_scenes
from dfm_jax.structs import Camera, Example, RenderedViews, Scene


@dataclasses.dataclass(frozen=True)
class Sampled:
    """What sampling leaves, in numpy. Images are in [0, 1]."""

    signal: Scene  # [b]
    x0: np.ndarray  # [b, h, w, 3] target view 0, as diffusion ended
    estimate: np.ndarray  # [b, h, w, 3] the deterministic estimate of it
    example: Example  # [s] what was sampled from
    world: np.ndarray  # [s, 4, 4] pose of the first context view in the coordinates that cameras are given in
    frames: tuple[Frame, ...]  # [s] how these lie in the source's own


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class SampledScene:
    """One scene behind what was given. Cameras are in the coordinates of the source, in units of the model (`frame`
    says how these lie in the source's); of one photograph, these are the photograph's own camera (OpenCV axes, at the
    origin).

    >>> scenes[1]
    SampledScene(sample 1 of source 0, from 2.6 to 5.5)
    """

    sampler: DiffusionSampler  # on the devices to render on
    sampled: Sampled
    position: int  # among the `b` sampled scenes
    source: int  # which of the `s` it is sampled from
    number: int  # which of its `n` samples it is

    def render(self, camera: Camera, height: int | None = None, width: int | None = None) -> RenderedViews:
        """What a camera sees of the scene, in numpy: `rgb [h, w, 3]` in [0, 1], `depth [h, w]` and `opacity [h, w]`; of
        cameras [k], `rgb [k, h, w, 3]`, and so on. Where a surface is seen, it lies at `surface_depth()` along the ray.

        Intrinsics are normalised: they hold for any `height` and `width` (by default those the model was trained at).

        >>> camera = dfm_jax.Camera(np.eye(4), np.array([[1.41, 0, 0.5], [0, 1.41, 0.5], [0, 0, 1]]))
        >>> scenes[0].render(camera, height=8, width=12).rgb.shape
        (8, 12, 3)

        Raises:
          UserError: it is no camera, or the size is none.
        """
        height, width = (checked_side(side, self.sampler.model.image_size) for side in (height, width))
        camera = checked_camera(camera)
        world, single = self.sampled.world[self.source], camera.intrinsics.ndim == 2
        pose = camera.camera_to_world
        pose = pose if np.array_equal(world, np.eye(4)) else np.linalg.inv(world) @ pose
        as_row = lambda x: np.asarray(x, np.float32).reshape(1, -1, *x.shape[-2:])
        row = jax.tree.map(lambda x: x[self.position][None], self.sampled.signal)
        views = render_cameras(self.sampler, row, Camera(as_row(pose), as_row(camera.intrinsics)), height, width)
        return jax.tree.map(lambda x: x[0, 0] if single else x[0], views)

    @property
    def image(self) -> np.ndarray:
        """[h, w, 3] the sample that diffusion ended with, at the target camera."""
        return self.sampled.x0[self.position]

    @property
    def estimate(self) -> np.ndarray:
        """[h, w, 3] the deterministic estimate of the target view: the mean of all answers, if the model makes one."""
        return self.sampled.estimate[self.position]

    @property
    def target_camera(self) -> Camera:
        """Where the scene was sampled: what is seen from there is not given."""
        return self._camera(self.sampled.example.target.camera)

    @property
    def context_camera(self) -> Camera:
        """That of the first context view: what is seen from there is given."""
        return self._camera(self.sampled.example.context.camera)

    @property
    def bounds(self) -> tuple[float, float]:
        """Distances at which rays start and end."""
        example = self.sampled.example
        return float(example.near[self.source]), float(example.far[self.source])

    def export(
        self,
        path: str | os.PathLike,
        kind: str | None = None,
        num_views: int = NUM_VIEWS,
        size: int | None = None,
    ) -> dict[str, Any]:
        """Writes the scene as a file that others open, in the coordinates and units of the source (`frame`).

        >>> told = scenes[0].export(folder / "scene", kind="transforms", num_views=2, size=32)
        >>> told["frame"], told["views"]
        ('first_camera', 2)

        Args:
          path: its suffix says what is written, as docs/exports.md lists; a folder needs a `kind`.
          kind: 'gaussians', 'points', 'mesh', 'transforms' or 'colmap'; without one, a `.ply` is gaussians, and a
            `.glb` a mesh.
          num_views: rendered views that it is made of, or holds: of the context's camera, the target's, and around.
          size: pixels on a side of these; by default the model's size, or 64 if that is larger.

        Returns:
          what is told of it: `file, kind, frame, scale` (units of the file in one of the model), and more of some.

        Raises:
          UserError: there is no such format, or it cannot be written.
        """
        from dfm_jax.exports.formats import export_scene

        first = self.position - self.number
        num_samples = len(self.sampled.x0) // len(self.sampled.world)
        samples = [dataclasses.replace(self, position=first + number, number=number) for number in range(num_samples)]
        return export_scene(samples, self.number, path, kind, num_views, size)

    @property
    def frame(self) -> Frame:
        """How the coordinates of cameras lie in those of the source as it was before it was prepared."""
        return self.sampled.frames[self.source]

    @property
    def pixel_grid(self) -> str:
        """Where pixels of its renderings lie, as in `geometry.pixel_grid`."""
        return self.sampler.model.config.pixel_grid

    @property
    def image_size(self) -> int:
        """Pixels on a side of the images that the model was trained at."""
        return self.sampler.model.image_size

    @property
    def context_image(self) -> np.ndarray:
        """[h, w, 3] in [0, 1] the first context view, as the model is given it."""
        return self.sampled.example.context.images[self.source, 0]

    @property
    def background(self) -> float | np.ndarray:
        """Grey in [0, 1] behind the scene; `[3]` of renderings that are no pictures in colour."""
        return jax.device_get(self.sampler.model.background)

    def _camera(self, cameras: Camera) -> Camera:
        """The first of cameras [s, v], in the coordinates of the source."""
        pose, intrinsics = cameras.camera_to_world[self.source, 0], cameras.intrinsics[self.source, 0]
        world = self.sampled.world[self.source]
        return Camera(pose if np.array_equal(world, np.eye(4)) else world @ pose, intrinsics)

    def __repr__(self) -> str:
        near, far = self.bounds
        return f"SampledScene(sample {self.number} of source {self.source}, from {near:g} to {far:g})"


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Scenes(Sequence):
    """Sampled scenes: a sequence of `SampledScene`, sample 0, 1, ... of the first source, then of the next.

    >>> [scene.number for scene in scenes]
    [0, 1]
    """

    sampler: DiffusionSampler
    sampled: Sampled
    made_from: dict[str, Any]  # the model's name and step, the seed and the settings

    @property
    def num_samples(self) -> int:
        """Of each source."""
        return len(self) // len(self.sampled.world)

    def __len__(self) -> int:
        return len(self.sampled.x0)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        return SampledScene(self.sampler, self.sampled, position, *divmod(position, self.num_samples))

    def __iter__(self) -> Iterator[SampledScene]:
        return (self[i] for i in range(len(self)))

    @property
    def target_camera(self) -> Camera:
        """The target camera of all scenes; of several sources, one for each scene: [b].

        >>> scenes.target_camera.camera_to_world.shape
        (4, 4)
        """
        cameras = [scene.target_camera for scene in self]
        if len(self.sampled.world) == 1:
            return cameras[0]
        return jax.tree.map(lambda *x: np.stack(x), *cameras)

    def save(self, path: str | os.PathLike) -> None:
        """Writes an `.npz` from which `dfm_jax.load_scenes` makes the same scenes again, with the same model.

        >>> scenes.save(folder / "scenes.npz")
        >>> dfm_jax.load_scenes(folder / "scenes.npz", sampler)
        Scenes(2 samples, at 24 x 24 pixels: toy, step 6000, seed 0)

        Raises:
          UserError: it cannot be written.
        """
        trees = dict(vars(self.sampled))
        frames = trees.pop("frames")
        write_scenes(Path(path), trees, frames, self.made_from, self.sampler.params)

    def __repr__(self) -> str:
        size, sources = self.sampler.model.image_size, len(self.sampled.world)
        samples = f"{self.num_samples} samples" + (f" of each of {sources} sources" if sources > 1 else "")
        made = "{name}, step {step}, seed {seed}".format(**self.made_from)
        return f"Scenes({samples}, at {size} x {size} pixels: {made})"


def checked_side(side: Any, default: int) -> int:
    """Pixels along a side of a rendering.

    Raises:
      UserError: it is no number above 0.
    """
    if side is None:
        return default
    if not isinstance(side, int | np.integer) or isinstance(side, bool) or side < 1:
        raise UserError(f"height and width are numbers of pixels, at least 1: not {side!r}")
    return int(side)
