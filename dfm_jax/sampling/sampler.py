"""A trained model to sample scenes, or other signals, with: what `dfm_jax.load` returns, and commands use.

Letters: `s` scenes that are asked about, `n` samples of each, `b = s * n`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dfm_jax.config import Config
from dfm_jax.config.changes import with_sampling
from dfm_jax.errors import UserError
from dfm_jax.examples import abstract_example, held_out_examples
from dfm_jax.exports.protocol import Frame
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import SceneModel
from dfm_jax.sampling.assumptions import Assumptions
from dfm_jax.sampling.batches import sample_in_batches
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Params
from dfm_jax.sampling.placement import Placement
from dfm_jax.sampling.scenes import Sampled, Scenes
from dfm_jax.sampling.signals import SampledSignals, sample_signals
from dfm_jax.sampling.solver_files import with_solver_file
from dfm_jax.sampling.sources import source_frame, to_example
from dfm_jax.structs import Camera, Example


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Sampler:
    """A trained model, and how it is sampled.

    >>> sampler = dfm_jax.load("toy")
    >>> sampler
    Sampler(toy, step 6000: scenes from photographs of 24 x 24 pixels, dpm-solver++ in 15 steps)
    """

    params: Params  # averaged over training
    config: Config  # of the model, and how it is sampled
    step: int  # of training
    name: str  # where it was loaded from
    trained_with: dict[str, Any] = dataclasses.field(default_factory=dict)  # the settings of its run, nested

    def diffusion(self) -> DiffusionSampler:
        """What is given to compiled programs."""
        return DiffusionSampler.from_config(with_solver_file(self.config, self.name), self.params)

    def sampled_with(self, **settings: Any) -> "Sampler":
        """The same model, sampled otherwise: any setting of `config.sample` by its name, and `seed`.

        >>> sampler.sampled_with(steps=4, guidance=2.0).config.sample.num_steps
        4

        Raises:
          UserError: there is no such setting, it cannot have this value, or there is no fitted solver of these steps.
        """
        config = with_sampling(self.config, settings)
        with_solver_file(config, self.name)
        return dataclasses.replace(self, config=config)

    def sample(
        self,
        source: Any,
        *,
        num_samples: int | None = None,
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        camera: Camera | None = None,
        target_camera: Camera | str | None = None,
        near: float | None = None,
        far: float | None = None,
        fov: float | None = None,
        focal: float | None = None,
        crop: str | None = None,
        scale: float | None = None,
        **settings: Any,
    ) -> Scenes | SampledSignals:
        """Samples scenes that the source could show, on all devices. Sample j of scene i depends on (seed, i, j) only.

        >>> scenes = sampler.sample(dfm_jax.example_photo("toy"), num_samples=2, seed=0)
        >>> scenes
        Scenes(2 samples, at 24 x 24 pixels: toy, step 6000, seed 0)

        Args:
          source: a photograph (a path, an image of Pillow, or an array [h, w, 3], uint8 or floats in [0, 1]); a list of
            photographs of one scene, with `camera`; `Views` [v] of one scene or [s, v] of several; or an `Example`. Of
            a model without scenes, examples such as `held_out` gives, and no cameras: samples are arrays then.
          num_samples: of each scene; like all settings, as in the model's config if it is not given.
          steps, guidance: denoising steps, and how strongly to guide; 1 is not at all.
          camera: of the photographs [v], as viewers show them; without it a photograph is at the origin.
          target_camera: where to sample, in the coordinates of the others; or 'azimuth,elevation,distance' of a
            `sample.target_camera`, the default; or a camera path's name, of which it is the most different one.
          near, far: distances between which everything is that photographs show.
          fov, focal: of a photograph without a camera: the horizontal field of view in degrees, or the focal length in
            pixels, of the whole upright picture; without them as its EXIF data state, or as `sample.photograph` says.
          crop: 'centre', the middle square of photographs, or 'pad', all of them with bars.
          scale: units of the source, in which cameras, near and far are given and exports are, in one of the model.
          settings: any other of `config.sample`.

        Raises:
          UserError: the source cannot be read, or something that is said of it or of sampling cannot be.
        """
        settings |= {"num_samples": num_samples, "seed": seed, "steps": steps, "guidance": guidance}
        chosen = self.sampled_with(**settings)
        placement = Placement(camera, target_camera, near, far, fov, focal, crop, scale)
        if not isinstance(make_model(self.config), SceneModel):
            return chosen._sample_signals(source, placement)
        example, world, assumptions, _ = to_example(source, chosen.config, placement)
        return chosen.sample_example(example, world, [source_frame(source, placement)] * len(world), assumptions)

    def sample_example(
        self, example: Example, world: np.ndarray, frames: Sequence[Frame], assumptions: Assumptions | None = None
    ) -> Scenes:
        """Scenes behind an example [s], whose first context views have the poses `world` [s, 4, 4] in coordinates that
        lie in those of the sources as `frames` [s] say."""
        num_samples = self.config.sample.num_samples
        count = len(world) * num_samples
        diffusion, key = self.diffusion().on_devices(count), jax.random.key(self.config.seed)
        sampled = sample_in_batches(diffusion, jax.device_put(example), num_samples, key)
        parts = [jax.device_get((batch.scene, batch.x0, batch.estimate)) for _, batch in sampled]
        joined = jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
        return Scenes(diffusion, Sampled(*joined, example, world, tuple(frames)), self.made_from(assumptions))

    def made_from(self, assumptions: Assumptions | None) -> dict[str, Any]:
        """What scenes that are sampled now are made from; JSON can hold it."""
        return {
            "name": self.name,
            "step": self.step,
            "seed": self.config.seed,
            "sample": dataclasses.asdict(self.config.sample),
            "assumptions": None if assumptions is None else dataclasses.asdict(assumptions),
        }

    def held_out(self, count: int) -> Any:
        """The first examples [count] of those to judge by, which the model was not trained on, always the same.

        Raises:
          UserError: the model is trained on a data set that is not there, or has not as many.
        """
        return held_out_examples(self.config, count)[0]

    def _sample_signals(self, example: Any, placement: Placement) -> SampledSignals:
        model = self.config.model.name
        if placement != Placement():
            raise UserError(
                f"cameras, and what is said of photographs, are for models of scenes; this one is {model!r}"
            )
        expected = abstract_example(self.config, 1)
        shapes = lambda tree: [np.shape(leaf)[1:] for leaf in jax.tree.leaves(tree)]
        if jax.tree.structure(example) != jax.tree.structure(expected) or shapes(example) != shapes(expected):
            raise UserError(f"{model!r} samples behind examples of its own kind, such as sampler.held_out(4) gives")
        key = jax.random.key(self.config.seed)
        return sample_signals(self.diffusion(), example, self.config.sample.num_samples, key)

    def __repr__(self) -> str:
        size, sample = self.config.image_size, self.config.sample
        of_scenes = isinstance(make_model(self.config), SceneModel)
        what = f"scenes from photographs of {size} x {size} pixels" if of_scenes else self.config.model.name
        return f"Sampler({self.name}, step {self.step}: {what}, {sample.sampler} in {sample.num_steps} steps)"
