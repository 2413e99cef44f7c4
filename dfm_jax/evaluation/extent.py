"""How much of an index file was evaluated: an evaluation with holes is none of what the file describes."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.evaluation.index_layouts import NO_FRAME, NO_SCENE, NONE_LISTED, REFUSED, Skipped


@dataclasses.dataclass(frozen=True)
class Extent:
    examples: int  # that were evaluated
    examples_listed: int
    scenes: int
    scenes_listed: int  # with an example
    scenes_without_example: int  # that the index file lists to have none: no holes
    scenes_missing: int  # examples whose scene is not there
    frames_missing: int  # examples of which a frame is not there, and frames that "*" stands for
    refused: int  # examples that contradict themselves
    targets_in_context: int  # examples of which a target is a context view as well

    @property
    def has_holes(self) -> bool:
        return self.examples < self.examples_listed or self.frames_missing > 0

    def headline(self) -> str:
        """What is missing, in short; '' if nothing is."""
        if not self.has_holes:
            return ""
        parts = {"with no such scene": self.scenes_missing, "with a frame missing": self.frames_missing}
        parts |= {"refused": self.refused}
        why = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
        return (
            f"{self.examples} of {self.examples_listed} examples, {self.scenes} of {self.scenes_listed} scenes ({why})"
        )


def extent_of(
    data: SceneDataset, views: Sequence[tuple[int, ViewIndices]], skipped: Sequence[Skipped], missing: int = 0
) -> Extent:
    """Of an index file that was applied to a data set.

    Args:
      skipped: with the scenes that the file lists without an example.
      missing: frames that "*" stands for and that are not there.
    """
    kinds = collections.Counter(skip.kind for skip in skipped)
    holes = [skip for skip in skipped if skip.kind != NONE_LISTED]
    scenes = {data.names[number] for number, _ in views}
    return Extent(
        examples=len(views),
        examples_listed=len(views) + len(holes),
        scenes=len(scenes),
        scenes_listed=len(scenes | {skip.scene for skip in holes}),
        scenes_without_example=kinds[NONE_LISTED],
        scenes_missing=kinds[NO_SCENE],
        frames_missing=kinds[NO_FRAME] + missing,
        refused=kinds[REFUSED],
        targets_in_context=sum(bool(np.intersect1d(draw.context, draw.target).size) for _, draw in views),
    )
