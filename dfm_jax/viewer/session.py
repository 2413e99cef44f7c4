"""What all browsers share: the model, what is sampled behind, the samples, and the key frames of a camera path."""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.exports.fitting import NUM_CAMERAS, fit_to
from dfm_jax.exports.renderings import SceneViews
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.scenes import SampledScene
from dfm_jax.structs import Camera
from dfm_jax.viewer import limits, samples
from dfm_jax.viewer.samples import Sample
from dfm_jax.viewer.sources import Source

KEPT_STEPS = 64  # scenes of denoising steps that are kept


class Session:
    """Safe to be used by several threads; `changed` is called after every change, in the thread that made it."""

    def __init__(self, sampler: Sampler, sources: Sequence[Source], changed: Callable[[], None] = lambda: None):
        self.sampler, self.sources, self.changed = sampler, tuple(sources), changed
        self.source = self.sources[0]
        self._samples: list[Sample] = []
        self._key_frames: list[Camera] = []
        self._steps: OrderedDict[tuple[str, int], SampledScene] = OrderedDict()
        self._lock, self._inferring = threading.RLock(), threading.Lock()

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Of the current source."""
        with self._lock:
            return tuple(sample for sample in self._samples if sample.source is self.source)

    @property
    def key_frames(self) -> tuple[Camera, ...]:
        with self._lock:
            return tuple(self._key_frames)

    def sampled(self, label: str) -> Sample:
        """A sample of the current source.

        Raises:
          UserError: there is none of this label.
        """
        for sample in self.samples:
            if sample.label == label:
                return sample
        raise UserError("there is no such sample any more")

    def show(self, name: str) -> None:
        """Changes the source; the samples of the others stay.

        Raises:
          UserError: there is none of this name.
        """
        name = limits.one_of(name, [source.name for source in self.sources], "what is sampled behind")
        with self._lock:
            self.source = next(source for source in self.sources if source.name == name)
            self._key_frames.clear()
        self.changed()

    def check_room(self) -> None:
        """
        Raises:
          UserError: no more samples are kept.
        """
        with self._lock:
            if len(self._samples) >= limits.MAX_SAMPLES:
                raise UserError(f"{limits.MAX_SAMPLES} samples are kept, and no more: clear them first")

    def among_its_like(self, sample: Sample) -> SampledScene:
        """A sample's scene among all samples behind the same source with the same settings, for what compares them."""
        like = [d for d in self.samples if d.sampler.config == sample.sampler.config]
        like.sort(key=lambda each: each.scene.number)
        position = [each.scene.number for each in like].index(sample.scene.number)  # some may have been cleared
        return samples.together(like)[position]

    def add_sample(self, sampler: Sampler, source: Source) -> Sample:
        """The next sample behind a source, with the settings of `sampler`.

        Raises:
          UserError: no more samples are kept.
        """
        self.check_room()
        same = [d for d in self._samples if d.source is source and d.sampler.config == sampler.config]
        number = max((d.scene.number + 1 for d in same), default=0)
        sample = Sample(samples.sample_one(sampler, source, number), source, sampler)
        with self._lock:
            self._samples.append(sample)
        self.changed()
        return sample

    def clear(self) -> None:
        """Forgets the samples of the current source."""
        with self._lock:
            self._samples = [sample for sample in self._samples if sample.source is not self.source]
        self.changed()

    def find_steps(self, sample: Sample) -> None:
        """Finds the denoising steps of a sample, if they are not known; takes as long as the sample did."""
        if sample.steps is not None:
            return
        self._know(sample, steps=samples.steps_of(sample))

    def fit_gaussians(self, sample: Sample, progress: Callable[[int, int], None]) -> None:
        """Fits gaussians to a sample, if it is still there and has none.

        Args:
          progress: called with the number of steps that are done, and that of all.
        """
        with self._lock:
            wanted = any(s.is_same(sample) and s.gaussians is None for s in self._samples)
        if wanted:
            self._know(sample, gaussians=fit_to(SceneViews(sample.scene, NUM_CAMERAS), progress=progress))

    def _know(self, sample: Sample, **found: Any) -> None:
        """More of a sample, if it is still there."""
        with self._lock:
            self._samples = [dataclasses.replace(s, **found) if s.is_same(sample) else s for s in self._samples]
        self.changed()

    def scene_at(self, sample: Sample, step: int) -> SampledScene:
        """The scene that step 1, 2, ... of a sample infers, whose denoising steps are known."""
        at = (f"{sample.source.name}, {sample.label}", step)
        with self._inferring:
            if at not in self._steps:
                self._steps[at] = samples.scene_at(sample, step - 1)
                while len(self._steps) > KEPT_STEPS:
                    self._steps.popitem(last=False)
            self._steps.move_to_end(at)
            return self._steps[at]

    def add_key_frame(self, camera: Camera) -> None:
        """
        Raises:
          UserError: there are too many.
        """
        with self._lock:
            if len(self._key_frames) >= limits.MAX_KEY_FRAMES:
                raise UserError(f"a path has {limits.MAX_KEY_FRAMES} key frames at most")
            self._key_frames.append(camera)
        self.changed()

    def remove_key_frames(self, count: int | None = None) -> None:
        """The last ones; None: all."""
        with self._lock:
            del self._key_frames[-count if count else 0 :]
        self.changed()


def stacked(cameras: Sequence[Camera]) -> Camera:
    """Cameras [k] of single ones."""
    return Camera(np.stack([c.camera_to_world for c in cameras]), np.stack([c.intrinsics for c in cameras]))
