"""What an evaluation measures of a sampled scene, and the networks that it measures with."""

import dataclasses
import functools
import logging
from typing import Any

import jax
import numpy as np

from dfm_jax.commands import reconstructed_cameras
from dfm_jax.config import Config
from dfm_jax.data.loading import measurements
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.data.preparing import sfm
from dfm_jax.errors import UserError
from dfm_jax.evaluation import camera_errors, evaluation_index, video_distance
from dfm_jax.evaluation.calibration.known_odds import known_odds
from dfm_jax.evaluation.features import Extractor, load_inception, vgg
from dfm_jax.evaluation.recorded_views import as_recorded
from dfm_jax.evaluation.scores import CamerasFn, Foreground, SceneSamples, SceneScores, measure
from dfm_jax.evaluation.video_distance import VideoNetwork
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import in_colour
from dfm_jax.interop import dists_weights
from dfm_jax.models import lpips
from dfm_jax.models.dists import Dists
from dfm_jax.structs import Example, Views

logger = logging.getLogger(__name__)

SELDOM = ("dists", "fvd")  # asked for: that they are left out stands among the results, and is not logged
Measured = tuple[SceneScores, dict[str, np.ndarray]]  # of a scene, and its images [..., h, w, 3] by name


@dataclasses.dataclass(frozen=True)
class Networks:
    """Networks that measure; None where their weights are missing, which `left_out` explains."""

    lpips: lpips.Distance | None
    extractor: Extractor | None
    dists: Dists | None
    left_out: dict[str, str]
    cameras: CamerasFn | None = None  # structure-from-motion, if it is asked for
    video: VideoNetwork | None = None


def load_networks(config: Config) -> Networks:
    left_out, distance, extractor = {}, None, None
    try:
        distance = lpips.load_default()
    except UserError as error:
        left_out["lpips"] = str(error)
    try:
        dists = dists_weights.load(config.evaluate.dists_file, distance)
    except UserError as error:
        if config.evaluate.dists_file and distance is not None:
            raise
        dists, left_out["dists"] = None, str(error)
    video = video_distance.load(config.evaluate.fvd_weights) if config.evaluate.fvd_weights else None
    if video is None:
        left_out["fvd"] = "config.evaluate.fvd_weights names no weights of I3D; docs/evaluation.md says which there are"
    if config.evaluate.inception_file:
        extractor = load_inception(config.evaluate.inception_file)
    elif distance is not None:
        extractor = vgg(distance)
        left_out["fid, kid"] = "config.evaluate.inception_file names no weights: vgg_fid and vgg_kid instead"
    else:
        left_out["fid, kid"] = "neither config.evaluate.inception_file nor the weights of LPIPS (for vgg_fid) are there"
    for name, reason in left_out.items():
        if name not in SELDOM:
            logger.warning(f"left out: {name}: {reason}")
    return Networks(distance, extractor, dists, left_out, _cameras_fn(config), video)


def _cameras_fn(config: Config) -> CamerasFn | None:
    if not config.evaluate.camera_errors:
        return None
    sfm.require()
    reconstruct = functools.partial(reconstructed_cameras.reconstruct, grid=config.model.pixel_grid)
    return functools.partial(camera_errors.of_samples, reconstruct, count=config.evaluate.camera_errors)


def measure_scene(
    config: Config,
    data: SceneDataset,
    view: tuple[int, ViewIndices],
    example: Example,
    samples: SceneSamples,
    scale: float | None,
    foreground: Foreground | None,
    networks: Networks,
) -> Measured:
    """
    Args:
      view: number of the scene in the split, and its frames.
      example: these, without batch axis.
      scale: of their cameras; None: the data set's own.
      foreground: what counts of them; None: everything.
    """
    (number, frames), model = view, make_model(config)
    num_context, given = len(example.context.valid), example.context.images
    known = _known(config, data, number, example, samples.views.rgb[:, num_context:], in_colour(model))
    if not in_colour(model):
        example = as_recorded(model, _with_measurements(config, data, view, example, scale or 1.0))
    grid = config.model.pixel_grid
    scores = measure(
        data.names[number],
        example,
        samples,
        grid=grid,
        lpips_fn=networks.lpips,
        dists_fn=networks.dists,
        cameras_fn=networks.cameras,
        foreground=foreground,
        **known,
    )
    scores = dataclasses.replace(scores, scale=scale, **_frames(data, number, frames))
    valid, targets = np.asarray(example.target.valid), samples.views.rgb[:, num_context:]
    images = {"samples": targets[:, valid], "truth": example.target.images[valid], "estimate": samples.estimate}
    return scores, images | {"context": given[example.context.valid]}


def _known(
    config: Config, data: SceneDataset, number: int, example: Example, targets: np.ndarray, colours: bool
) -> dict[str, Any]:
    """What a data set knows of a scene that others do not, and what its samples [n, t, h, w, 3] say of that, where they
    have colours; as `measure` takes it."""
    kind = known_odds(data)
    if kind is None or config.evaluate.num_scales:
        return {}
    attributes, poses = data.scene(number).attributes, example.target.absolute_pose
    intrinsics = example.target.camera.intrinsics
    depth = {"depth": kind.depth(attributes, poses, intrinsics, config.image_size)}
    if not colours:
        return depth
    shown, true = kind.read(attributes, poses, intrinsics, targets), kind.truth(attributes)
    scalars = {name: (values, true[name]) for name, values in shown.scalars.items()}
    return depth | {"modes": shown.modes, "clean": shown.clean, "scalars": scalars}


def _with_measurements(
    config: Config, data: SceneDataset, view: tuple[int, ViewIndices], example: Example, scale: float
) -> Example:
    """An example with what its data set knows of its views, of what the config asks for; nothing is masked."""
    number, frames = view
    names = [name for name in config.data.measurements if name in ("depth", "opacity")]

    def told(views: Views, indices: np.ndarray) -> Views:
        found = measurements.measured(data, data.scene(number), indices, names, config.image_size)
        found = found if found.depth is None else found.replace(depth=found.depth * scale)
        missing = len(views.valid) - len(indices)  # of padding views
        return views.replace(measured=jax.tree.map(lambda x: np.pad(x, [(0, missing), (0, 0), (0, 0)], "edge"), found))

    context, target = told(example.context, frames.context), told(example.target, frames.target)
    return example.replace(context=context, target=target)


def _frames(data: SceneDataset, number: int, draw: ViewIndices) -> dict[str, list[dict[str, int | str | None]]]:
    """What the source calls the frames of an example."""
    scene = data.scene(number)
    named = {"context_frames": draw.context, "target_frames": draw.target}
    return {name: evaluation_index.frames_of(scene, indices.tolist()) for name, indices in named.items()}
