"""FID and KID of an evaluation: between all sampled views and all true ones. Features go to files, and only a batch of
images is in memory at a time.

The true views of a data set are the same in every evaluation of the same frames: their features are computed once, and
kept in the data set's folder, or, where that cannot be written, in the user's cache folder.
"""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dfm_jax.evaluation.distribution_metrics import frechet_distance, kernel_distance
from dfm_jax.evaluation.feature_files import open_features, write_features
from dfm_jax.evaluation.features import Extractor
from dfm_jax.evaluation.scene_store import StoredScenes
from dfm_jax.paths import cache_folder
from dfm_jax.runs import fingerprints

logger = logging.getLogger(__name__)

FOLDER = "features"
SCRATCH = ".features-"  # beside the scenes, until the distances are known
NEEDED = 2  # images on a side
Numbers = dict[str, float | int]


def distribution_numbers(
    store: StoredScenes,
    extractor: Extractor | None,
    num_scenes: int,
    num_images: tuple[int, int],
    truth: Mapping[str, Any],
    data: Path,
) -> tuple[Numbers, dict[str, str]]:
    """
    Args:
      extractor: None: nothing is measured.
      num_images: how many sampled views there are of all scenes, and how many true ones.
      truth, data: of the true views, as in `kept_features`.

    Returns:
      FID and KID by the names that the network gives them; and what is left out, and why.
    """
    if extractor is None:
        return {}, {}
    if num_images[1] < NEEDED:
        return {}, {"fid, kid": "there is one true view, and they compare two sets of images"}
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=store.folder) as scratch:
        images = extractor.stream(store.images_of_all("samples", num_scenes))
        sampled = write_features(Path(scratch) / "samples.npy", images, num_images[0])
        real = kept_features(extractor, partial(store.images_of_all, "truth", num_scenes), num_images[1], truth, data)
        if real is None:
            images = extractor.stream(store.images_of_all("truth", num_scenes))
            real = write_features(Path(scratch) / "truth.npy", images, num_images[1])
        mean, std = kernel_distance(sampled, real)
        names = {"fid": frechet_distance(sampled, real), "kid": mean, "kid_std": std}
    counts = {"num_drawn_images": len(sampled), "num_real_images": len(real)}
    return {extractor.prefix + name: value for name, value in names.items()} | counts, {}


def kept_features(
    extractor: Extractor, images: Callable[[], Iterable[np.ndarray]], count: int, truth: Mapping[str, Any], data: Path
) -> np.ndarray | None:
    """Features of the `count` true views of an evaluation, from where they were kept, or else computed and kept; None
    where they cannot be.

    Args:
      images: gives the true views.
      truth: all that these depend on: the fingerprint of the `data`, frames and size.
      data: the folder of the data set.
    """
    if truth["data"]["files"] is None:
        return None  # made before there were checksums: two versions of it could not be told apart
    network = [fingerprints.of_arrays(extractor.params), extractor.network, jax.__version__, jax.default_backend()]
    name = f"{fingerprints.of_json({'network': network, 'truth': truth})}.npy"
    cache = cache_folder()
    files = [place / name for place in (data / FOLDER, *([cache / "dfm_jax" / FOLDER] if cache else []))]
    for file in files:
        if (found := open_features(file, count)) is not None:
            logger.info(f"features of the {count} true views are there already: {file}")
            return found
    for file in files:
        with contextlib.suppress(OSError):
            found = write_features(file, extractor.stream(images()), count)
            logger.info(f"features of the {count} true views are kept for other evaluations: {file}")
            return found
    return None
