"""What becomes of photographs that were taken with a tilted camera: models side by side, over the angle of the tilt.

    python -m dfm_jax.studies.tilt --out=DIR NAME=WORKDIR [NAME=WORKDIR ...]

Of models of the toy scenes, whose pictures can be made at any camera, such as one that was trained with
`config.data.view_sampling.roll` and one without. Two lines each: `tilted`, the camera was turned about its optical
axis, and the picture shows it; `turned axes`, the picture is upright, and the coordinates of the context camera alone
are turned, as `roll` does in training. Measured as by `sampling_quality`: the scene at the context camera, total
variation of the hidden colours to their odds, the share of samples of one colour, and novel views that agree; 4 samples
behind each of 24 held-out scenes, or of as many as there are. Writes
`index.html`, `tilt.png` and `tilt.json` to DIR; the last line on standard output is that JSON.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax import platforms
from dfm_jax.config import Config
from dfm_jax.config.command_line import read_config
from dfm_jax.data.loading import toy_scenes, transforms
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import UserError
from dfm_jax.evaluation import made_from
from dfm_jax.evaluation.calibration import toy_modes
from dfm_jax.evaluation.calibration.reading import square
from dfm_jax.forward_models.build import require_colours, require_scenes
from dfm_jax.pages import tilt_page
from dfm_jax.runs import log
from dfm_jax.runs.output_folders import check_ours, writing_to
from dfm_jax.runs.saved_settings import saved_settings
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.structs import Camera, Example
from dfm_jax.studies.arguments import named_runs
from dfm_jax.studies.held_out_scenes import HeldOutScenes
from dfm_jax.studies.sampling_quality import SampledScenes, of_honest_draws, quality, sample_all

logger = logging.getLogger(__name__)

FILE = "tilt.json"
OURS = ("index.html", "tilt.png", FILE)
ANGLES = (0.0, 10.0, 20.0, 30.0)  # degrees
NUM_SCENES, NUM_SAMPLES = 24, 4  # of scenes at most


def with_context_camera(example: Example, turned: np.ndarray, intrinsics: np.ndarray) -> Example:
    """Examples [s] with one context view each, whose camera has another pose [s, 4, 4] and other intrinsics [s, 3, 3]:
    all cameras are told relative to it."""
    absolute = np.asarray(example.target.absolute_pose)
    targets = np.concatenate([absolute, np.broadcast_to([[[[0, 0, 0, 1]]]], (*absolute.shape[:2], 1, 4))], axis=2)
    relative = (np.linalg.inv(turned)[:, None] @ targets).astype(np.float32)
    context = example.context.replace(
        camera=Camera(np.asarray(example.context.camera.camera_to_world), intrinsics[:, None].astype(np.float32)),
        absolute_pose=turned[:, None, :3].astype(np.float32),
    )
    target = example.target.replace(camera=Camera(relative, np.asarray(example.target.camera.intrinsics)))
    return example.replace(context=context, target=target)


def tilted(scenes: HeldOutScenes, degrees: float, *, picture: bool) -> HeldOutScenes:
    """The scenes with a context camera that is turned about its optical axis, every other one the other way.

    Args:
      picture: whether its picture is taken anew, and shows the tilt; else it stays, and so do its pixels' rays.
    """
    poses, intrinsics, images = [], [], []
    for i, (number, indices) in enumerate(scenes.views):
        scene, frame = scenes.data.scene(number), indices.context[0]
        angle = np.deg2rad([degrees if i % 2 else -degrees])
        pose, matrix = transforms.roll(scene.camera_to_world[frame][None], scene.intrinsics[frame][None], angle)
        image = np.asarray(scenes.example.context.images[i, 0])
        if picture:
            matrix = scene.intrinsics[frame][None]
            image = toy_scenes.render_view(scene.attributes, square(pose[0, :3]), matrix[0], len(image))[0]
        poses.append(square(pose[0, :3]))
        intrinsics.append(matrix[0])
        images.append(image)
    example = with_context_camera(scenes.example, np.stack(poses), np.stack(intrinsics))
    context = example.context.replace(images=np.stack(images)[:, None].astype(np.float32))
    return dataclasses.replace(scenes, example=example.replace(context=context))


def _of_model(config: Config, workdir: str) -> dict[str, Any]:
    """The measures of a model, by the kind of tilt, over the angles."""
    require_scenes(config, "this study")
    require_colours(config, "this study")
    trained, config = restore_trained(config, workdir), with_data_set(config)
    scenes = HeldOutScenes.of(config, NUM_SCENES, max(2, config.evaluate.num_target), fewer=True)
    if not toy_modes.has_known_odds(scenes.data) or scenes.example.context.images.shape[1] != 1:
        raise UserError(f"{workdir} is no model of toy scenes with one context view: their pictures can be made anew")
    sampler, found = trained.diffusion(), {}
    for kind in tilt_page.KINDS:
        found[kind] = []
        for degrees in ANGLES:
            at_angle = tilted(scenes, degrees, picture=kind == tilt_page.TILTED)
            sampled = SampledScenes(at_angle.data, at_angle.views, at_angle.example, NUM_SAMPLES)
            x0, views, _ = sample_all(sampler, sampler, sampled, config.seed)
            found[kind].append({"degrees": degrees} | quality(sampled, x0, views))
            logger.info(f"{workdir}, {kind}: {json.dumps(found[kind][-1])}")
    source = made_from.model_and_data(trained.params, trained.step, scenes.data)
    sampled = SampledScenes(scenes.data, scenes.views, scenes.example, NUM_SAMPLES)
    about = {"made_from": source, "num_samples": len(sampled.pairs)} | of_honest_draws(sampled)
    return {"trained_with_roll": trained.trained_with["data"]["view_sampling"]["roll"], **about, **found}


@log.command
def main(argv: Sequence[str]) -> int:
    runs, out = named_runs(argv, __doc__)
    platforms.start()
    check_ours(out, OURS, FILE)
    with writing_to(out, "sampling behind tilted pictures", "nothing of it is kept"):
        models = {name: _of_model(read_config("", [], saved_settings(run)), run) for name, run in runs.items()}
        result = {"models": models}
        (Path(out) / FILE).write_text(json.dumps(result, indent=1) + "\n")
        tilt_page.write_page(Path(out), result)
    logger.info(f"look at {Path(out) / 'index.html'}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
