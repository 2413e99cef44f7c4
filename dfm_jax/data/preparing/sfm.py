"""Structure-from-motion with COLMAP (the extra `sfm`): cameras and a sparse cloud of points from pictures alone.

The result depends on the pictures and their names only: seeds are fixed, and the mapping, whose sums would depend on
the number of threads, runs on one.
"""

import collections
import dataclasses
import importlib.util
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from dfm_jax.data.pictures.picture_kinds import why_undecodable
from dfm_jax.data.preparing.quarantine import most_frequent_reason
from dfm_jax.errors import Rejected, UserError

SEED = 0
MAX_SIZE = 1600  # longer side at which features are looked for, pixels; the default of 3200 takes four times as long
MIN_IMAGES = 3
MIN_SHARE = 0.5  # of the pictures that must have been registered
MIN_MATCHES = 15  # that agree with one motion, for two pictures to count as a pair
FEW_FEATURES = 100  # in a picture: too few to expect matches
MODELS = "sparse"  # folder in the workspace
Pinhole = tuple[float, float, float, float]  # focal lengths and centre, pixels; the centre of the first is (0.5, 0.5)
NONE_KNOWN: Mapping[str, Any] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    model: Path  # folder of the sparse model, binary
    registered: tuple[str, ...]  # names of pictures
    rejected: Mapping[str, str]  # reasons by name of the other pictures


def require() -> None:
    """
    Raises:
      UserError: pycolmap is not installed.
    """
    if importlib.util.find_spec("pycolmap") is None:
        raise UserError("structure-from-motion needs pycolmap: pip install 'dfm_jax[sfm]'")


def reconstruct(
    images: Path,
    names: Sequence[str],
    workspace: Path,
    in_sequence: bool = False,
    known: Mapping[str, str] = NONE_KNOWN,
    lenses: Mapping[str, Pinhole] = NONE_KNOWN,
    min_share: float = MIN_SHARE,
) -> Reconstruction:
    """The largest model that can be made of some pictures, below `workspace`, an empty folder.

    Args:
      images: folder that `names` are relative to.
      in_sequence: match each picture with the next ones only, as suits a video; otherwise with every other.
      known: reasons why other pictures, which are not among the names, cannot be read; they count, too.
      lenses: of all pictures by name, where they are known, without distortion; or else they are estimated.
      min_share: of the pictures, must be registered.

    Raises:
      Rejected: too few pictures could be registered; says how many, and why.
    """
    import pycolmap  # an extra

    pycolmap.logging.logtostderr, pycolmap.logging.minloglevel = True, pycolmap.logging.FATAL
    database = workspace / "database.db"
    damaged = _import(images, names, database, lenses)
    readable = [name for name in names if name not in damaged]
    names, unreadable = [*names, *known], {**known, **damaged}
    if len(readable) < MIN_IMAGES:
        raise Rejected(
            f"structure-from-motion needs at least {MIN_IMAGES} pictures, and {len(readable)} of {len(names)} can be "
            f"read{most_frequent_reason(unreadable.values())}"
        )
    try:
        _match(images, readable, database, in_sequence)
        models = _map(images, database, workspace / MODELS, keep_lenses=bool(lenses))
    except (RuntimeError, ValueError, IndexError) as error:
        raise Rejected(f"structure-from-motion failed ({str(error).splitlines()[0][:200]})") from error
    largest = max(models, key=lambda i: (models[i].num_reg_images(), -i), default=None)
    registered = [] if largest is None else sorted(image.name for image in models[largest].images.values())
    statistics = _Statistics.read(database)
    if len(registered) < (needed := max(MIN_IMAGES, math.ceil(min_share * len(names)))):
        others = f"{len(unreadable)} cannot be read{most_frequent_reason(unreadable.values())}; of the others, "
        raise Rejected(
            f"structure-from-motion registered {len(registered)} of {len(names)} pictures, at least {needed} are "
            f"needed: {others if unreadable else ''}{statistics.summary()}"
        )
    left_out = sorted(set(names) - set(registered) - unreadable.keys())
    reasons = {name: f"not registered by structure-from-motion: {statistics.about(name)}" for name in left_out}
    return Reconstruction(workspace / MODELS / str(largest), tuple(registered), damaged | reasons)


def _import(images: Path, names: Sequence[str], database: Path, lenses: Mapping[str, Pinhole]) -> dict[str, str]:
    """Registers pictures, with one camera for all that agree in size and focal length (or in their known lens); reasons
    why others cannot be."""
    import pycolmap

    pycolmap.Database.open(database).close()  # makes it
    groups: dict[Any, list[str]] = {}
    unreadable = {}
    for name in names:
        try:
            groups.setdefault((_camera(images / name), lenses.get(name)), []).append(name)
        except Exception as error:  # whatever the codec raises
            unreadable[name] = why_undecodable(error, b"")
    for (_, lens), group in groups.items():
        reader = pycolmap.ImageReaderOptions()
        if lens:
            reader.camera_model, reader.camera_params = "PINHOLE", ",".join(map(str, lens))
        # Beforehand: extraction on several threads would number the pictures in the order in which it is done.
        pycolmap.import_images(database, images, pycolmap.CameraMode.SINGLE, group, reader)
    return unreadable


def _camera(path: Path) -> tuple[tuple[int, int], float]:
    """Size of a picture, and the focal length in its EXIF data."""
    with Image.open(path) as image:
        image.load()
        exif = image.getexif().get_ifd(ExifTags.IFD.Exif)
        return image.size, float(exif.get(ExifTags.Base.FocalLength) or 0)


def _match(images: Path, names: Sequence[str], database: Path, in_sequence: bool) -> None:
    import pycolmap

    extraction = pycolmap.FeatureExtractionOptions(max_image_size=MAX_SIZE)
    # Without names it takes all below the folder: other captures, and damaged pictures, which can end the process.
    pycolmap.extract_features(
        database, images, image_names=list(names), extraction_options=extraction, device=pycolmap.Device.cpu
    )
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED
    match = pycolmap.match_sequential if in_sequence else pycolmap.match_exhaustive
    match(database, verification_options=verification, device=pycolmap.Device.cpu)


def _map(images: Path, database: Path, models: Path, keep_lenses: bool) -> Mapping[int, Any]:
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions(num_threads=1, random_seed=SEED, min_model_size=MIN_IMAGES)
    options.ba_refine_focal_length = options.ba_refine_extra_params = not keep_lenses
    models.mkdir()
    return pycolmap.incremental_mapping(database, images, models, options=options)


@dataclasses.dataclass(frozen=True)
class _Statistics:
    """What was found in the pictures, to explain a failure."""

    features: Mapping[str, int]  # by picture
    pairs: Mapping[str, int]  # with how many others each picture matches

    @classmethod
    def read(cls, path: Path) -> "_Statistics":
        import pycolmap

        database = pycolmap.Database.open(path)
        try:
            names = {image.image_id: image.name for image in database.read_all_images()}
            features = {name: database.num_keypoints_for_image(i) for i, name in names.items()}
            pairs: collections.Counter[str] = collections.Counter()
            for pair, geometry in zip(*database.read_two_view_geometries(), strict=True):
                if len(geometry.inlier_matches) >= MIN_MATCHES:
                    pairs.update(names[i] for i in pycolmap.pair_id_to_image_pair(pair))
        finally:
            database.close()
        return cls(features, pairs)

    def summary(self) -> str:
        median = float(np.median(list(self.features.values())))
        if median < FEW_FEATURES:
            return f"they show too little detail ({median:.0f} features in the median picture); are they sharp?"
        alone = sum(not self.pairs.get(name) for name in self.features)
        if 2 * alone >= len(self.features):
            return f"{alone} match no other; neighbouring pictures should show mostly the same"
        return (
            "they match each other, but not as pictures of one scene from different places do; they may be too far "
            "apart, the scene may move, or the camera have only turned"
        )

    def about(self, name: str) -> str:
        return f"{self.features.get(name, 0)} features, matches {self.pairs.get(name, 0)} other pictures"
