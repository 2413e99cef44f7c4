"""What `--mode=sample` samples behind: held-out views of the run's data set, or photographs of one's own."""

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jax import Array
from PIL import Image

from dfm_jax.commands.camera_files import cameras_of, target_camera
from dfm_jax.commands.camera_paths import Place, along_paths, camera_paths, real_cameras, recorded_cameras
from dfm_jax.commands.coordinates import of_evaluation_examples
from dfm_jax.commands.sample_options import SampleOptions
from dfm_jax.config import Config
from dfm_jax.config.changes import with_sampling
from dfm_jax.data.loading import pipeline
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import UserError
from dfm_jax.evaluation import made_from
from dfm_jax.evaluation.calibration.known_odds import known_odds
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import in_colour
from dfm_jax.runs.barriers import failing_together
from dfm_jax.runs.processes import check_same
from dfm_jax.sampling.assumptions import Assumptions
from dfm_jax.sampling.batches import SampledBatch
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.placement import Placement
from dfm_jax.sampling.sample_summary import HiddenColours
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.sources import source_frame, to_example
from dfm_jax.sampling.trajectories import Trajectory
from dfm_jax.sampling.videos import SampledImages
from dfm_jax.structs import Example

logger = logging.getLogger(__name__)

Extend = Callable[[DiffusionSampler, SampledBatch, Array, Array], SampledBatch]
Hidden = tuple[HiddenColours | None, Sequence[np.ndarray | None]]


@dataclasses.dataclass(frozen=True)
class SampledFrom:
    """Scenes [s] of which some views are given.

    Attributes:
      paths: of the cameras of their videos, relative to the first context view.
      place: gives the poses [s, 4, 4] of that in the coordinates of the sources' cameras, and how these lie in theirs.
      description: of what they are, for a person.
      extend: what samples further views along these; None where none are asked for.
      made_from: fingerprints of the model and what it is given.
      known: whether the target views are.
      hidden: what samples say of an attribute that the context views hide, and for each scene which pixels show it,
        [h, w] bool; None where none is known.
      photographs: of one's own, as viewers show them, at the size of a page; none: a data set's.
    """

    example: Example
    names: Sequence[str]
    paths: Sequence[Trajectory]
    place: Place
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
        recorded = partial(recorded_cameras, config, names, example)
        place = functools.cache(partial(of_evaluation_examples, config.data, config.sample.num_scenes))
        paths = camera_paths(config, example, place, recorded)
        extend = along_paths(config, example, paths, recorded)
        data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
        source = made_from.model_and_data(trained.params, trained.step, data)
    check_same(source, "checkpoint or data set")
    described = f"{config.data.name}, {config.data.eval_split}"
    hidden = partial(_hidden_part, config, names, example)
    return SampledFrom(example, names, paths, place, extend, source, described, hidden=hidden)


def of_photographs(config: Config, trained: Sampler, options: SampleOptions) -> SampledFrom:
    """Photographs of one's own, of one scene.

    Raises:
      UserError: one cannot be read, or what is said of its camera cannot be, or the camera path cannot be made.
    """
    with failing_together():
        photographs, placement = photographs_said(config, options)
        example, world, assumptions, shown = to_example(photographs, config, placement)
        names = [", ".join(os.path.basename(image) for image in options.images)]
        frame = source_frame(photographs, placement)
        del photographs  # without their lenses' distortion they are whole pictures
        place = lambda: (world, [frame])
        paths = camera_paths(config, example, place, lambda i: real_cameras(example, i)[0])
        extend = along_paths(config, example, paths)
        source = made_from.model_and_example(trained.params, trained.step, example)
    check_same(source, "checkpoint or photographs")
    return SampledFrom(
        example,
        names,
        paths,
        place,
        extend,
        source,
        f"photographs: {names[0]}",
        known=False,
        photographs=shown,
        assumptions=assumptions,
    )


def photographs_said(config: Config, options: SampleOptions) -> tuple[list[Any], Placement]:
    """The photographs that the command line names, and what it says of their cameras and of the target camera.

    Raises:
      UserError: a file of cameras cannot be read, or is not of these photographs.
    """
    photographs, camera = list(options.images), None
    if options.cameras:
        background = config.model.background
        photographs, camera = cameras_of(options.cameras, options.images, background)
    target = target_camera(options.target) if options.target else None
    placement = Placement(camera, target, None, None, options.fov, options.focal, options.crop, options.scale)
    return photographs, placement


def with_path_of_photographs(config: Config, options: SampleOptions) -> Config:
    """A config that was made for a data set may ask for its recorded cameras, which one photograph has not.

    Raises:
      UserError: it was asked for on the command line.
    """
    if config.sample.video_path != "dataset" or len(options.images) > 1:
        return config
    if options.path:
        raise UserError("--path=dataset follows recorded cameras, and one photograph has none: name another path")
    logger.info("a photograph has no recorded cameras: the videos go from it to the target camera")
    return with_sampling(config, {"video_path": "interpolate"}, of_commands=True)


def _hidden_part(config: Config, names: Sequence[str], example: Example, sampled: SampledImages) -> Hidden:
    """What samples say about the hidden attribute, and for each scene which pixels show it, [h, w] bool, of data sets
    that have a known one; None for all others, and of models without colours."""
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    kind = known_odds(data)
    if kind is None or not in_colour(make_model(config)):
        return None, [None] * len(names)
    samples = sampled.views[:, :, example.context.valid.shape[1]]
    colours = kind.colours(data, names, example, samples, sampled.estimate)
    return colours, kind.hidden_pixels(data, names, example, config.image_size)
