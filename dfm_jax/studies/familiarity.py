"""How well a model tells photographs of other things from its own: the score that photographs get, measured.

    python -m dfm_jax.studies.familiarity --workdir=runs/toy [--pictures=FOLDER] [--config.FIELD=VALUE ...]

Samples behind held-out scenes, to compare with (`sample.reference_scenes`, 24 of them); behind as many others; and
behind pictures that are none of such scenes, from the same cameras: noise, textures, the others as negatives, upside
down and with their colour channels exchanged (which may well be such scenes), and the photographs below FOLDER.
`roc_area` is the chance that one of these scores higher than a held-out scene, of each kind and of all together;
`found` and `false_alarms` are the shares of them and of held-out scenes that are called unlike the model's own data.
Writes `roc.json`, which is the last line on standard output, to `<workdir>/familiarity/`, and there the values that
`--mode=sample` compares photographs with, `reference.json`.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from dfm_jax.config import Config
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.data.pictures.picture_kinds import READ
from dfm_jax.errors import Parser, UserError
from dfm_jax.evaluation.reference_scenes import FILE, FOLDER, NUM_SAMPLES, SEED, compute, held_out, keep
from dfm_jax.forward_models.build import require_colours, require_scenes
from dfm_jax.runs import log
from dfm_jax.runs.barriers import from_first, is_first
from dfm_jax.sampling.familiarity import FEWEST, PARTS, sample_parts
from dfm_jax.sampling.photographs import open_photograph, square_photograph
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.structs import Example
from dfm_jax.studies.arguments import run_sweep

logger = logging.getLogger(__name__)

ROC = "roc.json"
OF_EACH = 9  # pictures of each kind
MOST_PHOTOGRAPHS = 27


def sweep(config: Config, workdir: str, folder: Path, pictures: str = "") -> dict[str, Any]:
    """Measures the score, writes the folder, and returns the numbers. The first process does it.

    Raises:
      UserError: the model has no scenes or no colours, there is no checkpoint or data set, or too few held-out scenes,
        or no photographs in `pictures`.
    """
    require_scenes(config, "familiarity")
    require_colours(config, "familiarity")
    trained, config = restore_trained(config, workdir), with_data_set(config)

    def measured() -> dict[str, Any]:
        count = config.sample.reference_scenes
        example = held_out(config.data, config.image_size, 2 * count)
        if len(example.near) < 2 * max(count, FEWEST):
            raise UserError(
                f"{2 * max(count, FEWEST)} held-out scenes are needed, and there are {len(example.near)}: lower "
                f"config.sample.reference_scenes, to {FEWEST} at least"
            )
        others = jax.tree.map(lambda x: x[count:], example)
        kinds = other_pictures(np.asarray(others.context.images[:, 0])) | photographs_in(config, pictures)
        reference = compute(trained, jax.tree.map(lambda x: x[:count], example))
        keep(folder / FILE, trained, reference)
        parts = {"held-out scenes": _parts(trained, others, "held-out scenes")}
        parts |= {kind: _parts(trained, with_pictures(others, images), kind) for kind, images in kinds.items()}
        scores = {kind: reference.scores(found) for kind, found in parts.items()}
        result = numbers(scores, reference.limit) | {"step": trained.step, "parts": list(PARTS)}
        result["scores"] = {kind: np.round(found, 2).tolist() for kind, found in scores.items()}
        (folder / ROC).write_text(json.dumps(result, indent=1) + "\n")
        return result

    return from_first(measured)


def _parts(trained: Sampler, example: Example, doing: str) -> np.ndarray:
    return sample_parts(trained.diffusion(), example, NUM_SAMPLES, SEED, doing=f"sampling: {doing}")


def numbers(scores: Mapping[str, np.ndarray], limit: float) -> dict[str, Any]:
    """The numbers of the docstring, from the scores of `held-out scenes` and of all other kinds."""
    known = scores["held-out scenes"]
    others = {kind: found for kind, found in scores.items() if found is not known}
    together = np.concatenate(list(others.values()))
    return {
        "roc_area": roc_area(together, known),
        "roc_areas": {kind: roc_area(found, known) for kind, found in others.items()},
        "found": {kind: float((found > limit).mean()) for kind, found in others.items()},
        "false_alarms": float((known > limit).mean()),
        "limit": limit,
        "pictures": {kind: len(found) for kind, found in scores.items()},
    }


def roc_area(high: np.ndarray, low: np.ndarray) -> float:
    """The chance that one of `high` [a] is above one of `low` [b]; equal ones count half."""
    above, same = high[:, None] > low, high[:, None] == low
    return float(above.mean() + 0.5 * same.mean())


def other_pictures(images: np.ndarray, count: int = OF_EACH) -> dict[str, np.ndarray]:
    """`count` pictures [k, h, w, 3] of each kind that are made by code, those of scenes from the `images`
    [n, h, w, 3]: not more than these are."""
    rng, chosen, size = np.random.default_rng(SEED), images[:count], images.shape[1]

    def texture() -> np.ndarray:
        grid = rng.integers(0, 256, (int(rng.integers(2, 12)),) * 2 + (3,), np.uint8)
        return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255

    return {
        "noise": rng.random((count, size, size, 3), np.float32),
        "textures": np.stack([texture() for _ in range(count)]),
        "negatives": 1 - chosen,
        "upside down": chosen[:, ::-1],
        "other colours": chosen[..., [1, 2, 0]],
    }


def with_pictures(example: Example, images: np.ndarray) -> Example:
    """Examples [k] with pictures [k, h, w, 3] instead of all context views; scenes are repeated as needed."""
    count = len(images)
    rows = np.arange(count) % len(example.near)
    chosen = jax.tree.map(lambda x: np.asarray(x)[rows], example)
    context = chosen.context.replace(images=np.broadcast_to(images[:, None], chosen.context.images.shape))
    return chosen.replace(context=context, index=np.arange(count, dtype=np.int32))


def photographs_in(config: Config, folder: str, most: int = MOST_PHOTOGRAPHS) -> dict[str, np.ndarray]:
    """The photographs below a folder, evenly chosen where there are more than `most`, at the model's size; none where
    no folder is named."""
    if not folder:
        return {}
    files = sorted(path for path in Path(folder).expanduser().rglob("*") if path.suffix.lower() in READ)
    if not files:
        raise UserError(f"--pictures={folder} has no pictures")
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, most).astype(int))]
    background = config.model.background
    opened = [open_photograph(path, background).image for path in chosen]
    squares = [square_photograph(image, np.eye(3), config.image_size, "centre", background)[0] for image in opened]
    return {"photographs": np.stack(squares)}


@log.command
def main(argv: Sequence[str]) -> int:
    parser = Parser(add_help=False)
    parser.add_argument("--pictures", default="")
    own, rest = parser.parse_known_args(argv)
    measure = partial(sweep, pictures=own.pictures)
    result, folder = run_sweep(rest, __doc__, measure, name=FOLDER, ours=(ROC, FILE), marker=FILE)
    logger.info(f"ROC area {result['roc_area']:.3f}; look at {folder / ROC}")
    if is_first():
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
