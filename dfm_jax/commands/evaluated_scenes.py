"""The scenes of an evaluation: sampled, and measured."""

import dataclasses
import functools
import logging
from collections.abc import Sequence

import jax
import numpy as np
from jax import Array
from tqdm import tqdm

from dfm_jax.commands import reconstructed_cameras
from dfm_jax.config import Config
from dfm_jax.data.loading import evaluation_views
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.data.preparing import sfm
from dfm_jax.errors import UserError
from dfm_jax.evaluation import camera_errors, evaluation_index, video_distance
from dfm_jax.evaluation.calibration.known_odds import known_odds
from dfm_jax.evaluation.features import Extractor, load_inception, vgg
from dfm_jax.evaluation.scene_store import SceneStore
from dfm_jax.evaluation.scores import CamerasFn, SceneSamples, SceneScores, measure
from dfm_jax.evaluation.video_distance import VideoNetwork
from dfm_jax.interop import dists_weights
from dfm_jax.models import lpips
from dfm_jax.models.dists import Dists
from dfm_jax.runs.barriers import is_first
from dfm_jax.runs.processes import share_out
from dfm_jax.sampling import devices
from dfm_jax.sampling.batches import SampledBatch, pairs_at_once, sample_in_batches
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Params
from dfm_jax.structs import Example

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


def evaluate_scenes(
    config: Config,
    params: Params,
    data: SceneDataset,
    views: Sequence[tuple[int, ViewIndices]],
    remaining: Sequence[int],
    store: SceneStore | None,
    networks: Networks,
) -> None:
    """Samples, measures and stores the scenes whose places in `views` are `remaining`. Several processes share out the
    groups that one would sample, so that the numbers are the same."""
    if not remaining:
        return
    sampling = _Sampling.start(config, params, len(remaining))
    count = config.evaluate.num_scales
    scales = [2 * (i + 1) / count for i in range(count)] or [None]
    groups = [remaining[start : start + sampling.at_once] for start in range(0, len(remaining), sampling.at_once)]

    def work(group: Sequence[int]) -> list[Measured]:
        filled = [*group, *group[-1:] * (sampling.at_once - len(group))]  # groups of one size: one compilation
        tries = (_of_group(config, data, views, (group, filled), sampling, networks, scale) for scale in scales)
        return functools.reduce(_better, tries)  # one after the other: pictures of all would take the memory of all

    def receive(group: Sequence[int], measured: list[Measured]) -> None:
        for index, (scores, images) in zip(group, measured, strict=True):
            store.write(index, scores, images)
        bar.update(len(group))

    with tqdm(total=len(remaining), unit="scene", desc="evaluating", disable=not is_first()) as bar:
        share_out(groups, work, receive)


def _better(first: list[Measured], second: list[Measured]) -> list[Measured]:
    """Of each scene, the one of higher PSNR."""
    return [max(pair, key=lambda one: np.mean(one[0].psnr)) for pair in zip(first, second, strict=True)]


def _of_group(
    config: Config,
    data: SceneDataset,
    views: Sequence[tuple[int, ViewIndices]],
    group: tuple[Sequence[int], Sequence[int]],
    sampling: "_Sampling",
    networks: Networks,
    scale: float | None,
) -> list[Measured]:
    """Some scenes, sampled together and measured.

    Args:
      group: places in `views`; and the same, filled up to as many as are sampled at once.
      scale: of the cameras; None: the data set's own.
    """
    places, filled = group
    most = {"num_context": max(len(indices.context) for _, indices in views)}
    most["num_target"] = max(len(indices.target) for _, indices in views)
    chosen = [views[i] for i in filled]
    size = {"image_size": config.image_size, "scale": scale or 1.0}
    example = evaluation_views.load_views(config.data, chosen, indices=filled, **size, **most)
    samples, measured = sampling(example), []
    for row, index in enumerate(places):
        one: Example = jax.tree.map(lambda x, row=row: x[row], example)
        scores, images = _measure(config, data, views[index][0], one, samples[row], networks)
        measured.append((dataclasses.replace(scores, scale=scale, **_frames(data, *views[index])), images))
    return measured


@dataclasses.dataclass(frozen=True)
class _Sampling:
    """Makes the samples of some scenes at a time, on all devices."""

    sampler: DiffusionSampler  # on all devices that the scenes can use
    key: Array
    at_once: int  # scenes
    num_samples: int  # of each

    @classmethod
    def start(cls, config: Config, params: Params, num_scenes: int) -> "_Sampling":
        """For `num_scenes` scenes in all."""
        num_samples = config.evaluate.num_samples
        sampler = DiffusionSampler.from_config(config, params).on_devices(num_scenes * num_samples)
        num_devices = sampler.mesh.shape[devices.DATA]
        at_once = min(num_scenes, max(1, num_devices * pairs_at_once(config.image_size) // num_samples))
        return cls(sampler, jax.random.key(config.seed), at_once, num_samples)

    def __call__(self, example: Example) -> list[SceneSamples]:
        """All samples of each scene of `example` [at_once]."""
        parts = [_images(batch) for _, batch in sample_in_batches(self.sampler, example, self.num_samples, self.key)]
        count = self.at_once * self.num_samples
        joined = jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
        of_scene = lambda start: jax.tree.map(lambda x: x[start : start + self.num_samples], joined)
        scenes = map(of_scene, range(0, count, self.num_samples))
        return [scene.replace(estimate=scene.estimate[0]) for scene in scenes]


def _images(batch: SampledBatch) -> SceneSamples:
    """Of several scenes; an estimate for each sample."""
    return jax.device_get(SceneSamples(batch.views, batch.x0, batch.estimate))


def _measure(
    config: Config, data: SceneDataset, number: int, example: Example, samples: SceneSamples, networks: Networks
) -> Measured:
    known = {}
    num_context = len(example.context.valid)
    targets = samples.views.rgb[:, num_context:]
    if (kind := known_odds(data)) and not config.evaluate.num_scales:
        attributes, poses = data.scene(number).attributes, example.target.absolute_pose
        intrinsics = example.target.camera.intrinsics
        shown, true = kind.read(attributes, poses, intrinsics, targets), kind.truth(attributes)
        known = {"modes": shown.modes, "clean": shown.clean}
        known["depth"] = kind.depth(attributes, poses, intrinsics, config.image_size)
        known["scalars"] = {name: (values, true[name]) for name, values in shown.scalars.items()}
    grid = config.model.pixel_grid
    scores = measure(
        data.names[number],
        example,
        samples,
        grid=grid,
        lpips_fn=networks.lpips,
        dists_fn=networks.dists,
        cameras_fn=networks.cameras,
        **known,
    )
    valid = np.asarray(example.target.valid)
    images = {"samples": targets[:, valid], "truth": example.target.images[valid], "estimate": samples.estimate}
    return scores, images | {"context": example.context.images[example.context.valid]}


def _frames(data: SceneDataset, number: int, draw: ViewIndices) -> dict[str, list[dict[str, int | str | None]]]:
    """What the source calls the frames of an example."""
    scene = data.scene(number)
    named = {"context_frames": draw.context, "target_frames": draw.target}
    return {name: evaluation_index.frames_of(scene, indices.tolist()) for name, indices in named.items()}
