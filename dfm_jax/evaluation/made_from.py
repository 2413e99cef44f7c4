"""What results were made from: parameters, data and settings, by fingerprints that are stored beside them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from dfm_jax.config import FITTED, Config
from dfm_jax.config.changes import OF_COMMANDS
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.evaluation.features import Extractor
from dfm_jax.evaluation.video_distance import VideoNetwork
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import in_colour
from dfm_jax.models import lpips
from dfm_jax.models.dists import Dists
from dfm_jax.runs import fingerprints
from dfm_jax.sampling.diffusion_sampler import Params
from dfm_jax.sampling.solver_files import NUMBERS, read
from dfm_jax.structs import Example

# Settings of `config.sample` that evaluation does not heed.
OF_SAMPLE_MODE = (*OF_COMMANDS, "num_samples", "photograph", "target_camera")


def model_and_data(params: Params, step: int, data: SceneDataset) -> dict[str, Any]:
    """What every result depends on; JSON can hold it."""
    return {"step": step, "parameters": fingerprints.of_arrays(params), "data": data.fingerprint()}


def model_and_example(params: Params, step: int, example: Example) -> dict[str, Any]:
    """The same of photographs."""
    return {"step": step, "parameters": fingerprints.of_arrays(params), "photographs": fingerprints.of_arrays(example)}


def scores(
    config: Config,
    params: Params,
    step: int,
    data: SceneDataset,
    views: Sequence[tuple[int, ViewIndices]],
    distance: lpips.Distance | None,
    dists: Dists | None = None,
) -> dict[str, Any]:
    """All that the stored numbers of an evaluated scene depend on. Not Inception: it looks at stored images."""
    return model_and_data(params, step, data) | {
        "seed": config.seed,
        "image_size": config.image_size,
        "model": dataclasses.asdict(config.model),
        "num_timesteps": config.diffusion.num_timesteps,
        "sample": of_sampling(config),
        "bounds": [config.data.near, config.data.far],
        "num_samples": config.evaluate.num_samples,
        "views": [[number, indices.context.tolist(), indices.target.tolist()] for number, indices in views],
        "lpips": None if distance is None else fingerprints.of_arrays(distance.params),
        "dists": None if dists is None else fingerprints.of_arrays(_weights(dists)),
        "num_scales": config.evaluate.num_scales,
        "camera_errors": config.evaluate.camera_errors,
        "masks": config.evaluate.masks,
    }


def _weights(dists: Dists) -> dict[str, Any]:
    """Its own: the network below is that of LPIPS."""
    return {"texture": dists.texture, "structure": dists.structure}


def true_views(config: Config, data: SceneDataset, views: Sequence[tuple[int, ViewIndices]]) -> dict[str, Any]:
    """All that the true views of an evaluation depend on, whatever model is evaluated that samples pictures in colour;
    of others, what they sample, too. JSON can hold it."""
    frames = [[number, indices.target.tolist()] for number, indices in views]
    known = {"data": data.fingerprint(), "frames": frames, "image_size": config.image_size}
    return known if in_colour(make_model(config)) else known | {"observation": config.model.observation}


def of_sampling(config: Config) -> dict[str, Any]:
    """The settings by which a scene is sampled, but for those at their defaults, so that what was made before a setting
    was added stays of use; with the numbers of a fitted solver in the place of its file."""
    defaults = {field.name: field.default for field in dataclasses.fields(config.sample)}
    sample = {name: value for name, value in dataclasses.asdict(config.sample).items() if value != defaults[name]}
    solver = read(config.sample.solver_file) if config.sample.sampler == FITTED else None
    kept = {name: value for name, value in sample.items() if name not in (*OF_SAMPLE_MODE, "solver_file")}
    return kept | ({"solver": {name: solver[name] for name in NUMBERS}} if solver else {})


def summary(
    scores: Mapping[str, Any], extractor: Extractor | None, video: VideoNetwork | None = None
) -> dict[str, Any]:
    """Of `scores`, what tells evaluations apart, and the weights behind distances of distributions."""
    kept = {name: scores[name] for name in ("parameters", "data", "lpips", "dists")}
    kept |= {} if video is None else {"video": fingerprints.of_arrays(video.params)}
    return kept | {"features": None if extractor is None else fingerprints.of_arrays(extractor.params)}
