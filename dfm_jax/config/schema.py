"""Typed, frozen settings: what a ConfigDict becomes at the border of the program (`reading.py`).

What is off has a default, here and nowhere else; all else a config must state. A new setting is one line of its
section, with the default that means what the program did before: checkpoints that are older than a setting have its
default, so a default never changes. The type of a field says which values it takes (`limits.py`), `rules` of a section
what must hold between its fields.
"""

import dataclasses
from typing import Annotated, Literal

from dfm_jax.config.data import DataConfig
from dfm_jax.config.limits import Path, Range, SideOrNone, Weight
from dfm_jax.config.model import ForwardModelConfig
from dfm_jax.config.sampling import EvaluateConfig, SampleConfig
from dfm_jax.config.training import (
    NOT_DISTILLED,
    TARGET_ALONE,
    DiffusionConfig,
    DistillationConfig,
    LossConfig,
    TrainConfig,
)

INIT_RULES = ("same", "pixelnerf")  # of `training/transfer.py`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    seed: Annotated[int, Range(0, 2**32 - 1)]  # of noise, order and parameters; jax and grain take 32 bits
    image_size: SideOrNone = 0  # side of the square images, pixels; 0: observations are no images
    init_from: Path = ""  # workdir whose averaged parameters to start from; '': none
    # How they map to this model's: 'pixelnerf' is from its deterministic stage.
    init_rule: Literal[INIT_RULES] = "same"
    data: DataConfig | None = None  # of models that are trained on posed images; others make their own examples
    model: ForwardModelConfig
    diffusion: DiffusionConfig
    distillation: DistillationConfig = NOT_DISTILLED
    loss: LossConfig = TARGET_ALONE
    train: TrainConfig
    sample: SampleConfig
    evaluate: EvaluateConfig

    def rules(self) -> list[tuple[bool, str]]:
        """What must hold between sections."""
        posed_images = self.model.posed_images
        return [
            (
                (self.data is not None) == (self.image_size > 0) == posed_images,
                f"model.name={self.model.name!r} needs data and image_size"
                if posed_images
                else f"model.name={self.model.name!r} makes its own examples: data must be None, and image_size 0",
            ),
            (
                self.model.takes_measurements or self.data is None or not self.data.measured,
                "data.measured is for model.name='partial_views', which is trained on it",
            ),
            *self._rules_of_losses(),
            *(self.model.rules_with(self)),
            (
                self.sample.num_steps <= self.diffusion.num_timesteps,
                "sample.num_steps must be at most diffusion.num_timesteps",
            ),
        ]

    def _rules_of_losses(self) -> list[tuple[bool, str]]:
        weights = [field.name for field in dataclasses.fields(self.loss) if field.type is Weight]
        return [
            (
                name in self.model.losses or getattr(self.loss, name) == 0,
                f"loss.{name} must be 0 with model.name={self.model.name!r}, which has no such term",
            )
            for name in weights
        ]
