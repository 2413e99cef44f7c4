"""Settings of models of motion."""

import dataclasses
from typing import Annotated, Any

from dfm_jax.config.limits import Channels, Range
from dfm_jax.config.model import EncoderConfig, ForwardModelConfig, deterministic_rules, settings_of


@dataclasses.dataclass(frozen=True)
class MovingConfig:
    """The procedural frames of `moving.py`."""

    size: Annotated[int, Range(20, 2**9)]  # side of the frames, pixels; so large that nothing leaves them at once


@settings_of("motion")
class MotionConfig(ForwardModelConfig):
    losses = ("prior",)

    # The frames that the model makes itself. None: pairs of frames are taken from the config's `data`: the context view
    # and target view 0.
    moving: MovingConfig | None = None
    # A flow regression, to compare with: the signal is inferred from the frame alone. It has no denoising steps.
    deterministic: bool = False
    # 0: pixels keep their velocities; otherwise they drift through a field that stays, in so many steps of Euler's
    # method from one frame of a pair to the other.
    integration_steps: Annotated[int, Range(0, 1000)] = 0
    encoder: EncoderConfig
    width: Channels  # of the layer behind the encoder

    @property
    def posed_images(self) -> bool:
        return self.moving is None

    def rules(self) -> list[tuple[bool, str]]:
        return [
            (not self.encoder.init_file, "encoder.init_file must be '': the encoder is no one's of views"),
            (not self.encoder.absolute_pose, "encoder.absolute_pose must be False: cameras are not looked at"),
            (self.moving is None or self.moving.size % 4 == 0, "moving.size must be a multiple of 4"),
        ]

    def rules_with(self, config: Any) -> list[tuple[bool, str]]:
        views = config.data.view_sampling if config.data else None
        pairs = views is None or views.max_context == views.num_target == 1
        rules = [
            *super().rules_with(config),
            (config.image_size % 4 == 0, "image_size must be a multiple of 4 (a token covers 4 x 4 pixels)"),
            (pairs, "data.view_sampling.max_context and num_target must be 1: motion is of pairs of frames"),
        ]
        return rules + (deterministic_rules(config, {}, "model.deterministic") if self.deterministic else [])
