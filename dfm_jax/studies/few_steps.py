"""What few sampling steps cost: quality against time, of fitted solvers and of those that are not.

    python -m dfm_jax.studies.few_steps --workdir=W [--seeds=0,1,2] [--solver_files=A.json,B.json]
        [--points=fitted:5,unipc:5] [--config.FIELD=VALUE ...]

Samples `evaluate.num_samples` scenes behind each of `evaluate.num_scenes` contexts of the evaluation split, for each
seed: by the solvers that are fitted to the model (where there are files), and by others with steps even in log-SNR; or
only by those of `--points` and `--solver_files`. Of each, in the scenes' renderings as in `--mode=evaluate`: the
context view in dB; where the odds are known (toy), total variation to them, mode purity, and how many
novel views agree; purity in what diffusion ended with is `purity_of_x0`. `seconds` are those of a sample without its
scene, of the fastest batch. Writes `few_steps.json`, as it goes, and `few_steps.png` to `<workdir>/few_steps/`; the
last line on standard output is that JSON.
"""

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from dfm_jax.config import FITTED, SAMPLERS, Config
from dfm_jax.data.loading import evaluation_views, pipeline
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import Parser, UserError
from dfm_jax.evaluation import made_from
from dfm_jax.evaluation.calibration.honest_draws import expected_total_variation
from dfm_jax.evaluation.calibration.known_odds import known_odds
from dfm_jax.evaluation.calibration.reading import UNSEEN
from dfm_jax.evaluation.image_metrics import psnr, total_variation
from dfm_jax.forward_models.build import require_scenes
from dfm_jax.pages import plots
from dfm_jax.runs import log
from dfm_jax.runs.barriers import by_first, from_first, is_first
from dfm_jax.runs.output_folders import writing_to
from dfm_jax.sampling.batches import pairs_at_once
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Samples, sample_keys, to_image
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.solver_files import file_beside, read
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.structs import Example
from dfm_jax.studies.arguments import run_sweep
from dfm_jax.studies.calibration import parse_seeds

logger = logging.getLogger(__name__)

OURS = ("few_steps.png", "few_steps.json")
STEPS = {"fitted": (2, 3, 4, 5), "dpm-solver++": (2, 3, 4, 5, 8, 10, 15), "unipc": (3, 4, 5, 8, 10)}
TIMED = 3  # batches


@dataclasses.dataclass(frozen=True)
class Point:
    """A way to sample, by its name."""

    name: str
    settings: dict[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        return {"name": self.name, "sampler": self.settings["sampler"], "num_steps": self.settings["num_steps"]}


@dataclasses.dataclass(frozen=True)
class Scenes:
    """The contexts that are sampled behind, and what is known of them."""

    example: Example  # [s]
    data: SceneDataset
    numbers: tuple[int, ...]  # [s] of the scenes in the data set
    num_samples: int  # of each

    @property
    def pairs(self) -> np.ndarray:
        """[s * n, 2]: scene and sample."""
        return np.array([(i, j) for i in range(len(self.numbers)) for j in range(self.num_samples)], np.int32)


def sweep(
    config: Config, workdir: str, folder: Path, seeds: Sequence[int], chosen: str, files: Sequence[str], at_once: int
) -> dict[str, Any]:
    """Measures every point, writes the folder, and returns the numbers. The first process does it.

    Raises:
      UserError: the model is deterministic, there is no checkpoint or data set, a file is no solver, another process is
        at it, or the folder cannot be written.
    """
    require_scenes(config, "few_steps")
    if config.model.deterministic:
        raise UserError("this config's model is deterministic: it has no sampling steps")
    trained, config = restore_trained(config, workdir), with_data_set(config)
    measured = points(workdir, chosen, files)

    def write() -> dict[str, Any]:
        scenes = _scenes(config)
        source = made_from.model_and_data(trained.params, trained.step, scenes.data)
        about = {"step": trained.step, "made_from": source, "num_samples": len(scenes.pairs), "seeds": list(seeds)}
        if kind := known_odds(scenes.data):
            honest = expected_total_variation(len(scenes.pairs), kind.odds.ravel())
            about["total_variation_of_honest_draws"] = honest
        records: list[dict[str, Any]] = []
        finish = partial(_finished, trained.sampled_with(sampler="ddim").diffusion())
        with tqdm(total=len(measured) * len(seeds), unit="seed", desc="few steps") as bar:
            for point in measured:
                records.append(point.record | _measure(trained, point, scenes, seeds, finish, at_once, bar.update))
                (folder / OURS[1]).write_text(json.dumps(about | {"records": records}, indent=1) + "\n")
        plots.few_steps(folder / OURS[0], records, about.get("total_variation_of_honest_draws"))
        return about | {"records": records}

    with by_first(writing_to(folder, "measuring few steps", f"what was measured is in {folder}")):
        return from_first(write)


def points(workdir: str, chosen: str, files: Sequence[str]) -> list[Point]:
    """The points of `sampler:steps,...` and of files; without either, all.

    Raises:
      UserError: there is no such sampler, or a file is no solver.
    """
    if chosen:
        named = [part.rpartition(":") for part in chosen.split(",")]
    elif files:
        named = []
    else:
        named = [(sampler, ":", str(n)) for sampler, numbers in STEPS.items() for n in numbers]
        named = [each for each in named if each[0] != FITTED or file_beside(workdir, int(each[2])).exists()]
    found = []
    for sampler, _, steps in named:
        if sampler not in SAMPLERS or not steps.isdigit():
            raise UserError(f"--points={chosen}: SAMPLER:STEPS,... is needed, with one of {', '.join(SAMPLERS)}")
        settings = {"sampler": sampler, "spacing": "log-snr", "num_steps": int(steps), "solver_file": ""}
        found.append(Point(sampler, settings))
    for file in files:
        settings = {"sampler": FITTED, "num_steps": len(read(file)["timesteps"]), "solver_file": file}
        found.append(Point(Path(file).stem, settings))
    return found


def _scenes(config: Config) -> Scenes:
    """As `--mode=evaluate` chooses them."""
    sampling = dataclasses.replace(config.data.view_sampling, num_target=config.evaluate.num_target)
    source = dataclasses.replace(config.data, view_sampling=sampling)
    views = evaluation_views.evaluation_views(source, num_scenes=config.evaluate.num_scenes, fewer=True)
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    example = evaluation_views.load_views(config.data, views, image_size=config.image_size)
    return Scenes(jax.device_put(example), data, tuple(number for number, _ in views), config.evaluate.num_samples)


def _measure(
    trained: Sampler,
    point: Point,
    scenes: Scenes,
    seeds: Sequence[int],
    finish: Callable[[Samples, Example], tuple[Array, Array]],
    at_once: int,
    told: Callable[[int], Any],
) -> dict[str, Any]:
    """The numbers of a point: of every seed, and their means."""
    diffusion = trained.sampled_with(**point.settings).diffusion()
    size = at_once or pairs_at_once(trained.config.image_size)
    batches = np.array_split(scenes.pairs, max(1, len(scenes.pairs) // size))
    batches = [np.concatenate([batch, batch[-1:]])[: len(batches[0])] for batch in batches]
    lengths = [len(part) for part in np.array_split(scenes.pairs, len(batches))]
    measured, seconds = [], []
    for seed in seeds:
        parts = []
        for batch, length in zip(batches, lengths, strict=True):
            start = time.perf_counter()
            samples, example = jax.block_until_ready(_sample(diffusion, scenes.example, jax.random.key(seed), *batch.T))
            seconds.append(time.perf_counter() - start)
            parts.append([np.asarray(x)[:length] for x in finish(samples, example)])
        measured.append(_numbers(scenes, *(np.concatenate(each) for each in zip(*parts, strict=True))))
        told(1)
    while len(seconds) <= TIMED:  # the first call compiles
        start = time.perf_counter()
        jax.block_until_ready(_sample(diffusion, scenes.example, jax.random.key(0), *batches[0].T))
        seconds.append(time.perf_counter() - start)
    means = {name: float(np.mean([each[name] for each in measured])) for name in measured[0]}
    return means | {"seconds": min(seconds[1:]) / len(batches[0]), "of_seeds": measured}


@jax.jit
def _sample(
    sampler: DiffusionSampler, example: Example, key: Array, scene: Array, number: Array
) -> tuple[Samples, Example]:
    """Samples [b], and their examples."""
    example = jax.tree.map(lambda x: x[scene], example)
    return sampler.sample(example, sample_keys(key, example.index, number)), example


@jax.jit
def _finished(sampler: DiffusionSampler, samples: Samples, example: Example) -> tuple[Array, Array]:
    """The sampled image [b, h, w, 3], and what the scene looks like at the context and target cameras
    [b, v + t, h, w, 3], in [0, 1]."""
    scene, _ = sampler.scene(samples)
    cameras = jax.tree.map(lambda *c: jnp.concatenate(c, axis=1), example.context.camera, example.target.camera)
    size = sampler.model.image_size
    return to_image(samples.x0), sampler.render(scene, cameras, size, size).rgb


def _numbers(scenes: Scenes, x0: np.ndarray, views: np.ndarray) -> dict[str, float]:
    """Of all samples [s * n] of a seed, in the order of `pairs`."""
    example, n = jax.device_get(scenes.example), scenes.num_samples
    of_scene = lambda x: x.reshape(-1, n, *x.shape[1:])
    v = example.context.images.shape[1]
    known = example.context.valid[:, None].repeat(n, 1)
    agreement = psnr(of_scene(views[:, :v]), example.context.images[:, None])
    numbers = {"context_psnr": float(agreement[known].mean())}
    if (kind := known_odds(scenes.data)) is None:
        return numbers
    modes, clean, clean_x0 = [], [], []
    for i, number in enumerate(scenes.numbers):
        attributes, poses = scenes.data.scene(number).attributes, example.target.absolute_pose[i]
        read = partial(kind.read, attributes, poses, example.target.camera.intrinsics[i])
        shown = read(of_scene(views[:, v:])[i])
        seen = shown.modes[:, 0] != UNSEEN
        modes.append(shown.modes[seen])
        clean.append(shown.clean[seen, 0])
        images = np.concatenate([of_scene(x0)[i][:, None], of_scene(views[:, v + 1 :])[i]], axis=1)
        clean_x0.append(read(images).clean[seen, 0])
    modes = np.concatenate(modes)
    counts = np.bincount(modes[:, 0], minlength=kind.odds.size)
    novel, told = modes[:, 1:], modes[:, 1:] != UNSEEN
    return numbers | {
        "total_variation": total_variation(counts, kind.odds.ravel()),
        "purity": float(np.concatenate(clean).mean()),
        "purity_of_x0": float(np.concatenate(clean_x0).mean()),
        "novel_view_agreement": float((novel == modes[:, :1])[told].mean()),
    }


def table(result: dict[str, Any]) -> str:
    """The numbers as lines of text: means over the seeds, and their range."""
    columns = ("total_variation", "purity", "purity_of_x0", "novel_view_agreement", "context_psnr")
    columns = [name for name in columns if name in result["records"][0]]
    lines = [f"{'':<24}{'steps':>6}" + "".join(f"{name:>28}" for name in columns) + f"{'ms a sample':>14}"]
    for record in result["records"]:
        line = f"{record['name']:<24}{record['num_steps']:>6}"
        for name in columns:
            values = [each[name] for each in record["of_seeds"]]
            line += f"{f'{record[name]:.4g} ({min(values):.4g}-{max(values):.4g})':>28}"
        lines.append(line + f"{1e3 * record['seconds']:>14.3g}")
    if honest := result.get("total_variation_of_honest_draws"):
        lines.append(f"{result['num_samples']} honest draws: total variation {honest:.4f} on average")
    return "\n".join(lines)


@log.command
def main(argv: Sequence[str]) -> int:
    parser = Parser(add_help=False)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--points", default="")
    parser.add_argument("--solver_files", default="")
    parser.add_argument("--batch_size", type=int, default=0)
    own, rest = parser.parse_known_args(argv)
    files = [file for file in own.solver_files.split(",") if file]
    own_settings = {"seeds": parse_seeds(own.seeds), "chosen": own.points, "files": files, "at_once": own.batch_size}
    measure = partial(sweep, **own_settings)
    result, folder = run_sweep(rest, __doc__, measure, name="few_steps", ours=OURS, marker=OURS[1])
    logger.info(f"{table(result)}\nlook at {folder / OURS[0]}")
    if is_first():
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
