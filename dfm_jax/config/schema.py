"""Typed, frozen settings: what a ConfigDict becomes at the border of the program (`reading.py`).

What is off has a default, here and nowhere else; all else a config must state. A new setting is one line of its
section, with the default that means what the program did before: checkpoints that are older than a setting have its
default, so a default never changes. The type of a field says which values it takes (`limits.py`), `rules` of a section
what must hold between its fields.
"""

import dataclasses
from typing import Annotated, Literal

from dfm_jax.config.data import DataConfig
from dfm_jax.config.limits import Path, Range, Side
from dfm_jax.config.model import DiTConfig, ModelConfig
from dfm_jax.config.sampling import EvaluateConfig, SampleConfig
from dfm_jax.config.training import DiffusionConfig, LossConfig, TrainConfig

INIT_RULES = ("same", "pixelnerf")  # of `training/transfer.py`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    seed: Annotated[int, Range(0, 2**32 - 1)]  # of noise, order and parameters; jax and grain take 32 bits
    image_size: Side  # side of the square images, pixels
    init_from: Path = ""  # workdir whose averaged parameters to start from; '': none
    # How they map to this model's: 'pixelnerf' is from its deterministic stage.
    init_rule: Literal[INIT_RULES] = "same"
    data: DataConfig
    model: ModelConfig
    diffusion: DiffusionConfig
    loss: LossConfig
    train: TrainConfig
    sample: SampleConfig
    evaluate: EvaluateConfig

    def rules(self) -> list[tuple[bool, str]]:
        """What must hold between sections."""
        model, loss = self.model, self.loss
        rules = [
            (
                not isinstance(model.encoder, DiTConfig) or self.image_size % 4 == 0,
                "image_size must be a multiple of 4 (a token covers 4 x 4 pixels)",
            ),
            (
                not (self.init_from and model.encoder.init_file),
                "init_from brings an encoder of its own: leave model.encoder.init_file empty",
            ),
            (loss.patch_size <= self.image_size, "loss.patch_size must be at most image_size"),
            (
                loss.coarse == 0 or model.ray_marching.num_fine > 0,
                "loss.coarse needs model.ray_marching.num_fine > 0",
            ),
            (
                (loss.interlevel > 0) == (model.proposal is not None),
                "loss.interlevel trains model.proposal: both or neither must be there",
            ),
            (
                model.proposal is None or loss.coarse == 0,
                "loss.coarse must be 0 with model.proposal, which has no colour",
            ),
            (
                self.sample.num_steps <= self.diffusion.num_timesteps,
                "sample.num_steps must be at most diffusion.num_timesteps",
            ),
        ]
        return rules + (self._pixelnerf_rules() if model.deterministic else [])

    def _pixelnerf_rules(self) -> list[tuple[bool, str]]:
        """What has no meaning without a noisy view must be switched off, and not look as if it did something."""
        model, where = self.model, "with model.name='pixelnerf'"
        off = {
            "model.estimate_size": (model.estimate_size, 0),
            "model.ray_marching.num_conditioning": (model.ray_marching.num_conditioning, 0),
            "loss.estimate": (self.loss.estimate, 0.0),
            "diffusion.guidance_dropout": (self.diffusion.guidance_dropout, 0.0),
            "diffusion.high_noise_fraction": (self.diffusion.high_noise_fraction, 0.0),
            "sample.num_samples": (self.sample.num_samples, 1),
            "evaluate.num_samples": (self.evaluate.num_samples, 1),
            "sample.num_steps": (self.sample.num_steps, 1),
            "sample.guidance": (self.sample.guidance, 1.0),
            "sample.autoregressive_step": (self.sample.autoregressive_step, 0),
        }
        return [(value == needed, f"{name} must be {needed} {where}") for name, (value, needed) in off.items()]
