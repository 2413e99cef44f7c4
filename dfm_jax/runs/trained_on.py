"""Which data a run was trained on: stored with each checkpoint, and compared when the run resumes."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from dfm_jax.runs import fingerprints

logger = logging.getLogger(__name__)

# What was trained on, as it changed: {'since': step, 'split': `fingerprints.of_split`} each.
History = Sequence[Mapping[str, Any]]


def follow(history: History, split: Mapping[str, Any], start: int) -> History:
    """The history of a run that resumes from step `start` with this split; says so if it is another than before.

    Args:
      history: as stored with the checkpoint; empty for a new run, and where a checkpoint does not say.
    """
    if not history:
        return [{"since": start, "split": split}]
    changes = fingerprints.changes_of_split(history[-1]["split"], split)
    if not changes:
        return history
    logger.warning(
        f"warning: the training data is not what it was until step {start} ({changes}): the run continues with what is "
        "there now, and cannot be repeated bit for bit any more"
    )
    return [*history, {"since": start, "split": split}]
