"""What `--mode=sample` samples behind: held-out views of the run's data set, or photographs of one's own."""

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from PIL import Image

from dfm_jax.commands.camera_files import cameras_of
from dfm_jax.commands.sample_options import SampleOptions
from dfm_jax.config import Config
from dfm_jax.data.loading import pipeline
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import UserError
from dfm_jax.evaluation import made_from
from dfm_jax.evaluation.calibration.toy_modes import has_known_odds, hidden_pixels, read_hidden_colours
from dfm_jax.runs.barriers import failing_together
from dfm_jax.runs.processes import check_same
from dfm_jax.sampling import autoregressive
from dfm_jax.sampling.assumptions import Assumptions
from dfm_jax.sampling.batches import SampledBatch
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.photographs import open_photograph
from dfm_jax.sampling.placement import Placement
from dfm_jax.sampling.sample_summary import HiddenColours
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.sources import to_example
from dfm_jax.sampling.trajectories import Trajectory, key_cameras, make_path, recorded_key_cameras, without_holes
from dfm_jax.sampling.videos import SampledImages
from dfm_jax.structs import Camera, Example

logger = logging.getLogger(__name__)

Extend = Callable[[DiffusionSampler, SampledBatch, Array, Array], SampledBatch]
Hidden = tuple[HiddenColours | None, Sequence[np.ndarray | None]]


@dataclasses.dataclass(frozen=True)
class SampledFrom:
    """Scenes [s] of which some views are given.

    Attributes:
      paths: of the cameras of their videos.
      description: of what they are, for a person.
      extend: what samples further views along these; None where none are asked for.
      made_from: fingerprints of the model and what it is given.
      known: whether the target views are.
      hidden: what samples say of an attribute that the context views hide, and for each scene which pixels show it,
        [h, w] bool; None where none is known.
      photographs: of one's own, as viewers show them; none: a data set's.
    """

    example: Example
    names: Sequence[str]
    paths: Sequence[Trajectory]
    extend: Extend | None
    made_from: dict[str, Any]
    description: str
    known: bool = True
    hidden: Callable[[SampledImages], Hidden] | None = None
    photographs: Sequence[Image.Image] = ()
    assumptions: Assumptions | None = None


def of_data_set(config: Config, trained: Sampler) -> SampledFrom:
    """Held-out views of the data set; several processes agree on them.

    Raises:
      UserError: the data set is missing, or does not have as many scenes, or the camera path cannot be made.
    """
    config = with_data_set(config)
    with failing_together():
        example, names = pipeline.evaluation_examples(
            config.data, image_size=config.image_size, num_scenes=config.sample.num_scenes
        )
        paths = camera_paths(config, example, names)
        extend = _along_path(config, example, names, paths)
        data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
        source = made_from.model_and_data(trained.params, trained.step, data)
    check_same(source, "checkpoint or data set")
    described = f"{config.data.name}, {config.data.eval_split}"
    hidden = partial(_hidden_part, config, names, example)
    return SampledFrom(example, names, paths, extend, source, described, hidden=hidden)


def of_photographs(config: Config, trained: Sampler, options: SampleOptions) -> SampledFrom:
    """Photographs of one's own, of one scene.

    Raises:
      UserError: one cannot be read, or what is said of its camera cannot be, or the camera path cannot be made.
    """
    background = config.model.ray_marching.background
    if config.sample.video_path == "dataset":
        logger.info("a photograph has no recorded cameras: the videos go from it to the target camera")
        config = dataclasses.replace(config, sample=dataclasses.replace(config.sample, video_path="interpolate"))
    with failing_together():
        photographs, camera = list(options.images), None
        if options.cameras:
            photographs, camera = cameras_of(options.cameras, options.images, background)
        placement = Placement(
            camera=camera, fov=options.fov, focal=options.focal, crop=options.crop, scale=options.scale
        )
        example, _, assumptions = to_example(photographs, config, placement)
        names = [", ".join(os.path.basename(image) for image in options.images)]
        paths = camera_paths(config, example, names)
        extend = _along_path(config, example, names, paths)
        source = made_from.model_and_example(trained.params, trained.step, example)
        originals = [open_photograph(photograph, background).image for photograph in photographs]
    check_same(source, "checkpoint or photographs")
    return SampledFrom(
        example,
        names,
        paths,
        extend,
        source,
        f"photographs: {names[0]}",
        known=False,
        photographs=originals,
        assumptions=assumptions,
    )


def camera_paths(config: Config, example: Example, names: Sequence[str]) -> list[Trajectory]:
    """A path for the videos of each scene, in the frame of the example."""
    paths = []
    for i, name in enumerate(names):
        scene: Example = jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), example)
        valid = scene.context.valid.astype(bool)
        cameras = jax.tree.map(
            lambda c, t, valid=valid: np.concatenate([c[valid], t]), scene.context.camera, scene.target.camera
        )
        paths.append(
            make_path(
                config.sample.video_path,
                cameras,
                target=int(valid.sum()),
                near=float(scene.near),
                far=float(scene.far),
                num_frames=config.sample.video_frames,
                recorded=_recorded_cameras(config, name, scene) if config.sample.video_path == "dataset" else None,
            )
        )
    return paths


def _along_path(config: Config, example: Example, names: Sequence[str], paths: Sequence[Trajectory]) -> Extend | None:
    """What samples further views along the camera paths; None where none are asked for."""
    step = config.sample.autoregressive_step
    if not step:
        return None
    cameras = []
    for i, (name, path) in enumerate(zip(names, paths, strict=True)):
        if config.sample.video_path == "dataset":
            recorded = _recorded_cameras(config, name, jax.tree.map(lambda x, i=i: np.asarray(x[i]), example))
            start = np.argmin(np.abs(recorded.camera_to_world - np.eye(4)).max((1, 2)))  # the first context view
            cameras.append(recorded_key_cameras(recorded, int(start), step))
        else:
            cameras.append(key_cameras(path, step))
    keys = autoregressive.path_views(cameras, example)
    if keys is None:
        raise UserError(
            f"config.sample.autoregressive_step={step} is longer than every camera path (config.sample.video_path="
            f"'{config.sample.video_path}'): lower it"
        )
    counts = keys.valid.sum(1)
    logger.info(f"{counts.min()} to {counts.max()} views are sampled along each path, after the first")
    known, seen = config.data.view_sampling.max_context, int(example.context.valid.sum(1).max() + counts.max())
    if seen > known:
        logger.info(
            f"the last scene has {seen} context views; in training there were {known} at most: it may come out blurred"
        )
    return partial(autoregressive.extend, example, keys, jax.random.key(config.seed))


def _recorded_cameras(config: Config, name: str, scene: Example) -> Camera:
    """A camera for each frame of the scene's source from its first to its last, relative to the first context view."""
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    record = data.scene(data.names.index(name))
    reference = np.vstack([scene.context.absolute_pose[0], [0.0, 0.0, 0.0, 1.0]])
    cameras = Camera(np.linalg.inv(reference) @ record.camera_to_world, record.intrinsics)
    return without_holes(cameras, record.positions)


def _hidden_part(config: Config, names: Sequence[str], example: Example, drawn: SampledImages) -> Hidden:
    """What samples say about the hidden attribute, and for each scene which pixels show it, [h, w] bool, of data sets
    that have a known one; None for all others."""
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    if not has_known_odds(data):
        return None, [None] * len(names)
    samples = drawn.views[:, :, example.context.valid.shape[1]]
    colours = read_hidden_colours(data, names, example, samples, drawn.estimate)
    return colours, hidden_pixels(data, names, example, config.image_size)
