"""Settings of models of motion."""

import dataclasses
from typing import Annotated, Any

from dfm_jax.config.limits import Channels, Range
from dfm_jax.config.model import EncoderConfig, ForwardModelConfig, settings_of


@dataclasses.dataclass(frozen=True)
class MovingConfig:
    """The procedural frames of `moving.py`."""

    size: Annotated[int, Range(20, 2**9)]  # side of the frames, pixels; so large that nothing leaves them at once


@settings_of("motion")
class MotionConfig(ForwardModelConfig):
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
        off = {
            "sample.num_steps": (config.sample.num_steps, 1),
            "sample.num_samples": (config.sample.num_samples, 1),
            "evaluate.num_samples": (config.evaluate.num_samples, 1),
            "diffusion.high_noise_fraction": (config.diffusion.high_noise_fraction, 0.0),
        }
        alone = [
            (value == needed, f"{name} must be {needed!r} with model.deterministic")
            for name, (value, needed) in off.items()
        ]
        whole = (config.image_size % 4 == 0, "image_size must be a multiple of 4 (a token covers 4 x 4 pixels)")
        return [*super().rules_with(config), whole, *(alone if self.deterministic else [])]
