"""Which views an evaluation is of: as an index file says, read by a protocol's rule, or as sampled from the split."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from dfm_jax.config import Config
from dfm_jax.data.loading import evaluation_views, pipeline
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.errors import UserError
from dfm_jax.evaluation import evaluation_index
from dfm_jax.evaluation.calibration.known_odds import known_odds
from dfm_jax.evaluation.extent import Extent, extent_of
from dfm_jax.evaluation.index_layouts import Skipped
from dfm_jax.evaluation.protocols.comparison import Circumstances, compare
from dfm_jax.evaluation.protocols.table import PROTOCOLS, Protocol

logger = logging.getLogger(__name__)

SKIPPED_SAID = 5


@dataclasses.dataclass(frozen=True)
class ChosenViews:
    views: list[tuple[int, ViewIndices]]  # number of the scene, and its frames
    skipped: list[Skipped]
    extent: Extent | None  # of an index file; None: views were sampled
    protocol: Protocol | None


def open_data(config: Config) -> SceneDataset:
    """The split that is evaluated."""
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    if config.evaluate.sweep_samples and len(data) and known_odds(data) is None:
        raise UserError(
            "config.evaluate.sweep_samples compares samples with known odds, which only toy scenes and shapes have; "
            "leave it out with --config.evaluate.sweep_samples=0"
        )
    return data


def choose_views(config: Config, data: SceneDataset) -> ChosenViews:
    """What is evaluated, and what of it cannot be.

    Raises:
      UserError: the index file cannot be read, nothing of it can be had, or the protocol needs one.
    """
    protocol = PROTOCOLS.get(config.evaluate.protocol_name)
    index = config.evaluate.index or (protocol.index if protocol else "")
    if index:
        return _of_index(index, protocol, data)
    if protocol:
        raise UserError(
            f"the protocol {protocol.name} is evaluated by an index file, {protocol.layout}: name it with --index=FILE"
        )
    return ChosenViews(_sampled(config, data), [], None, None)


def _of_index(index: str, protocol: Protocol | None, data: SceneDataset) -> ChosenViews:
    entries, without = evaluation_index.read(index)
    if changes := evaluation_index.changed_data(index, data):
        logger.info(
            f"the index file {index} was stored for other data than split '{data.split}' of "
            f"{data.path} ({changes}): scenes of the same names may be others"
        )
    found = evaluation_index.resolve(protocol.used(entries) if protocol else entries, data)
    for skip in found.skipped[:SKIPPED_SAID]:
        logger.info(f"skipped: {skip.scene}: {skip.reason}")
    if (more := len(found.skipped) - SKIPPED_SAID) > 0:
        logger.info(f"skipped: {more} more, which metrics.json lists")
    skipped = found.skipped + without
    return ChosenViews(found.views, skipped, extent_of(data, found.views, skipped, found.missing), protocol)


def _sampled(config: Config, data: SceneDataset) -> list[tuple[int, ViewIndices]]:
    sampling = dataclasses.replace(config.data.view_sampling, num_target=config.evaluate.num_target)
    source = dataclasses.replace(config.data, view_sampling=sampling)
    views = evaluation_views.evaluation_views(source, num_scenes=config.evaluate.num_scenes, fewer=True)
    if len(views) < config.evaluate.num_scenes:
        logger.info(
            f"evaluating {len(views)} scenes instead of config.evaluate.num_scenes={config.evaluate.num_scenes}: "
            f"split '{data.split}' of {data.path} has no more that can be used"
        )
    return views


def compared(
    config: Config, data: SceneDataset, chosen: ChosenViews, result: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The evaluation beside the numbers that were published with its protocol; None without a protocol."""
    if chosen.protocol is None:
        return None
    circumstances = Circumstances(
        image_size=config.image_size,
        stored_size=data.stored_size(data.scene(chosen.views[0][0])),
        most_context=config.data.view_sampling.max_context,
        used_context=max(len(draw.context) for _, draw in chosen.views),
        num_samples=config.evaluate.num_samples,
        num_scales=config.evaluate.num_scales,
        left_out=result["left_out"],
        foreground=config.evaluate.masks != "none",
    )
    return compare(chosen.protocol, result, chosen.extent, circumstances)
