"""One example: the views that were chosen of a scene, read, and made relative to the first of them."""

import dataclasses
import logging
from collections.abc import Sequence

import jax
import numpy as np

from dfm_jax.config import DataConfig
from dfm_jax.data.loading import measurements, transforms, view_sampling
from dfm_jax.data.loading.dataset import SceneDataset, SceneRecord, warn_of_unknown_numbers
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.errors import UserError
from dfm_jax.structs import Camera, Example, Views

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ExampleLoader:
    """Examples of one split, without batch axis."""

    data: SceneDataset
    config: DataConfig
    image_size: int
    seed: int

    def __call__(self, position: tuple[int, int]) -> Example:
        """For training, from its global index and scene: without the frames that are held out; mirrored, scaled and
        rolled at random."""
        index, number = position
        scene = self.data.scene(number)
        sampling = self.config.view_sampling
        rng = np.random.default_rng((self.seed, index))
        kept = np.flatnonzero(~self.data.held_out(number))
        frames = view_sampling.Frames(scene.camera_to_world[kept], *training_positions(self.data, number))
        indices = view_sampling.sample_views(rng, frames, sampling)
        indices = ViewIndices(kept[indices.context], kept[indices.target])
        flip = rng.random() < sampling.flip_probability
        scale = 1 + sampling.scale_jitter * rng.uniform(-1, 1)
        largest, num_views = np.deg2rad(sampling.roll), len(indices.context) + len(indices.target)
        angles = rng.uniform(-largest, largest, num_views) if largest else None
        example = self._example(index, scene, indices, flip, scale, angles)
        if not self.config.measured:
            return example
        names = self.config.measurements
        told = measurements.with_measurements
        return told(example, self.data, scene, indices, names, rng, flip=flip, scale=scale)

    def chosen(self, index: int, number: int, indices: ViewIndices, scale: float = 1.0) -> Example:
        """These views of scene `number` as they are but for the scale of its cameras, for evaluation; of the context no
        more than the data set's masks let see, where these are asked for."""
        scene = self.data.scene(number)
        example = self._example(index, scene, indices, flip=False, scale=scale)
        return measurements.partial_context(example, self.data, scene, indices, self.config.measurements)

    def bounds(self, scene: SceneRecord) -> tuple[float, float]:
        """Those of the config, or the scene's own."""
        if self.config.near:
            return self.config.near, self.config.far
        if not 0 < scene.near < scene.far < np.inf:
            raise UserError(
                f"config.data.near and config.data.far are 0, but scene {scene.name} of {self.data.path} has no bounds "
                f"of its own (near {scene.near}, far {scene.far}): set both"
            )
        return scene.near, scene.far

    def _example(
        self,
        index: int,
        scene: SceneRecord,
        indices: ViewIndices,
        flip: bool,
        scale: float,
        angles: np.ndarray | None = None,
    ) -> Example:
        context, target = self._views(scene, indices, flip, scale, angles)
        near, far = self.bounds(scene)
        return Example(
            context=context,
            target=target,
            near=np.float32(near * scale),
            far=np.float32(far * scale),
            index=np.int32(index),
        )

    def _views(
        self, scene: SceneRecord, indices: ViewIndices, flip: bool, scale: float, angles: np.ndarray | None
    ) -> tuple[Views, Views]:
        frames = np.concatenate([indices.context, indices.target])
        images = np.stack([self.data.image(scene, int(frame), self.image_size) for frame in frames])
        poses, intrinsics = scene.camera_to_world[frames], scene.intrinsics[frames]
        if flip:
            images, poses, intrinsics = transforms.mirror(images, poses, intrinsics)
        poses = transforms.scale_world(poses, scale)
        if angles is not None:
            poses, intrinsics = transforms.roll(poses, intrinsics, angles)
        views = Views(
            images=images,
            camera=Camera(
                camera_to_world=transforms.relative_to_first(poses).astype(np.float32),
                intrinsics=intrinsics.astype(np.float32),
            ),
            absolute_pose=poses[:, :3].astype(np.float32),
            valid=np.ones(len(frames), bool),
        )
        num_context = len(indices.context)
        context = jax.tree.map(lambda x: x[:num_context], views)
        target = jax.tree.map(lambda x: x[num_context:], views)
        return pad(context, self.config.view_sampling.max_context), target


def pad(views: Views, length: int) -> Views:
    """The views [v] and as many more as make `length` (none, if there are more already): black and, so that every
    number stays finite, seen from view 0."""
    count = len(views.valid)
    missing = max(0, length - count)
    padded = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[:1], missing, axis=0)]), views)
    padded.images[count:] = 0
    padded.valid[count:] = False
    return padded


def stack(examples: Sequence[Example]) -> Example:
    """A batch of examples, whose numbers of views are brought to the largest among them."""
    context, target = (max(len(getattr(e, kind).valid) for e in examples) for kind in ("context", "target"))
    padded = [e.replace(context=pad(e.context, context), target=pad(e.target, target)) for e in examples]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *padded)


def usable_scenes(data: SceneDataset, config: DataConfig) -> np.ndarray:
    """Scenes with enough frames for the sampling rule.

    Raises:
      UserError: there is none.
    """
    if not len(data):
        raise UserError(f"split '{data.split}' of {data.path} has no scenes: prepare it again, or choose another split")
    sampling = config.view_sampling
    if data.holes is None and view_sampling.counts_frames(sampling):
        warn_of_unknown_numbers(data.path)
    needed, there = view_sampling.min_frames(sampling), data.num_training_frames
    enough = there >= needed
    gapped = {*data.with_held_out, *(scene for scene, holes in enumerate(data.holes or ()) if holes)}
    for scene in gapped if data.holes is not None else ():  # where there may be no two frames at an allowed gap
        enough[scene] = view_sampling.has_enough(*training_positions(data, scene), sampling)
    between = " without too many holes between them" if (enough != (there >= needed)).any() else ""
    usable = np.flatnonzero(enough)
    if not len(usable):
        held_out = " that are not held out" if data.with_held_out else ""
        raise UserError(
            f"no scene of split '{data.split}' of {data.path} has the {needed} frames{between} that "
            f"config.data.view_sampling needs (the longest has {max(there)}{held_out}); lower min_frame_gap"
        )
    if len(usable) < len(data):
        left_out = len(data) - len(usable)
        logger.info("%d of %d scenes have fewer than %d frames%s: left out", left_out, len(data), needed, between)
    return usable


def training_positions(data: SceneDataset, number: int) -> tuple[np.ndarray, int]:
    """Positions [n] of a scene's frames that are not held out, and the number of source frames among which they are.

    A data set that does not know its holes counts the frames that are left, as it always did.
    """
    kept = ~data.held_out(number)
    if data.holes is None:
        return np.arange(kept.sum()), int(kept.sum())
    return data.positions(number)[kept], data.num_source_frames(number)
