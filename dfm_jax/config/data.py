"""Settings of the data: which data set, how views are sampled from its scenes, and how it is read."""

import dataclasses
from typing import Annotated, Literal

from dfm_jax.config.limits import Count, Distance, Path, Range, Share

# What training can be told of target views: `loading/measurements.py`. Of views with masks only a part is observed.
MEASURED = ("depth", "opacity", "masks", "random_masks")
VIEW_RULES = ("realestate10k", "co3d", "toy", "captures", "video")  # of `data/loading/view_sampling.py`

Views = Annotated[int, Range(1, 1000)]


@dataclasses.dataclass(frozen=True)
class ViewSamplingConfig:
    """How context and target frames are sampled from a scene.

    Gaps are counted in frames of the source; by the rule 'captures' in places among a view's neighbours, 1 being the
    nearest.
    """

    # 'realestate10k' (forwards or backwards in a clip), 'co3d' (around an object), 'toy' (by azimuth), 'captures' (by
    # pose, among neighbours, whatever the order of the frames) or 'video' (as 'realestate10k', but forwards alone)
    rule: Literal[VIEW_RULES]
    min_frame_gap: Count  # smallest distance between first context and first target frame
    max_frame_gap: Count  # largest one, frames
    min_context: Views  # fewest context views
    max_context: Views  # most context views; fewer are padded and masked
    num_target: Views  # target views; the first is noised, the others are only supervised
    flip_probability: Share = 0.0  # chance to mirror all images (and cameras) of an example
    # Relative range of a random scaling of the world; 0.2 is +-20 %.
    scale_jitter: Annotated[float, Range(0.0, 1.0, open_above=True)] = 0.0
    # Largest angle, degrees, by which each camera is rolled about its optical axis in training; the pictures stay as
    # they are, and rays are looked up in them.
    roll: Annotated[float, Range(0.0, 80.0)] = 0.0
    # Chance that, in training, the last target view is the first context view once more: what was shown must be seen in
    # the scene again. 0 as published.
    context_as_target_probability: Share = 0.0

    def rules(self) -> list[tuple[bool, str]]:
        return [
            (self.min_context <= self.max_context, "min_context must be at most max_context"),
            (self.min_frame_gap <= self.max_frame_gap, "min_frame_gap must be at most max_frame_gap"),
            (
                self.context_as_target_probability == 0 or self.num_target > 1,
                "context_as_target_probability above 0 needs num_target of at least 2",
            ),
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    name: str  # data set (folder) below `dir`
    dir: Path  # where prepared data sets lie
    split: str  # split to train on
    eval_split: str  # split to sample and evaluate on
    near: Distance  # where rays start, units of the prepared scene; 0, like far: as stored with each scene
    far: Distance  # where rays end
    # Scenes of the data sets 'toy' and 'shapes', which are generated where they are missing; 0: whatever is there.
    toy_scenes: Annotated[int, Range(0, 10**6)] = 0
    # What training is told of target views beside their pictures, names joined by '+': 'depth' and 'opacity' (whether a
    # pixel shows anything), as far as the data set knows them; 'masks', those of the data set, outside of which no
    # picture is observed, or 'random_masks', rectangles that hide a part of every picture. '': nothing.
    measured: str = ""
    view_sampling: ViewSamplingConfig
    num_threads: Annotated[int, Range(0, 1024)]  # reading threads; 0 reads ahead of nothing
    num_workers: Annotated[int, Range(0, 1024)] = 0  # reading processes; 0 reads in this one
    prefetch: Annotated[int, Range(0, 10**4)]  # batches held ready

    @property
    def measurements(self) -> tuple[str, ...]:
        """The names in `measured`."""
        return tuple(self.measured.split("+")) if self.measured else ()

    def rules(self) -> list[tuple[bool, str]]:
        return [
            (
                0 < self.near < self.far or self.near == self.far == 0,
                f"near={self.near:g} must be above 0 and below far={self.far:g}, or both be 0 for each scene's own",
            ),
            (
                set(self.measurements) <= set(MEASURED) and len(set(self.measurements)) == len(self.measurements),
                f"measured must be some of {', '.join(MEASURED)}, joined by '+', not {self.measured!r}",
            ),
            (
                not {"masks", "random_masks"} <= set(self.measurements),
                "measured must have one of masks and random_masks at most",
            ),
        ]
