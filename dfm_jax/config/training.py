"""Settings of training: what is noised, what is minimised, and how."""

import dataclasses
from typing import Annotated, Literal

from dfm_jax.config.limits import Count, CountOrNone, Decay, Minutes, Number, Range, Share, Side, Weight
from dfm_jax.config.model import DTYPES

Devices = Annotated[int, Range(1, 10**6, off=-1)]


@dataclasses.dataclass(frozen=True)
class DiffusionConfig:
    num_timesteps: Annotated[int, Range(1, 10**6)]
    guidance_dropout: Share  # chance to train an example without its context images
    high_noise_fraction: Share  # share of the timesteps drawn from [high_noise_from, num_timesteps)
    high_noise_from: Annotated[int, Range(0, 10**6)]

    def rules(self) -> list[tuple[bool, str]]:
        return [(self.high_noise_from < self.num_timesteps, "high_noise_from must be below num_timesteps")]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights. The loss on the target views has weight 1."""

    estimate: Weight  # deterministic estimate, mean squared error
    coarse: Weight  # colour of the coarse field, mean squared error
    interlevel: Weight  # where the proposal's weights fall short of the scene field's; trains the proposal
    distortion: Weight
    smoothness: Weight  # edge-aware smoothness of inverse depth; needs patches
    lpips: Weight  # perceptual distance of patches; needs patches, and weights (`make lpips-weights`)
    pixels: Literal["patch", "random"]  # 'patch': a square patch a view; 'random': independent pixels
    patch_size: Side  # side of a patch, pixels; 'random' draws patch_size^2 pixels

    def rules(self) -> list[tuple[bool, str]]:
        patch = self.pixels == "patch"
        return [
            (self.smoothness == 0 or patch, "smoothness needs pixels='patch'"),
            (
                self.lpips == 0 or (patch and self.patch_size >= 16),
                "lpips needs loss.pixels='patch' and loss.patch_size of at least 16; 0 leaves it out",
            ),
        ]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: Annotated[float, Range(0.0, 1e3)]
    warmup_steps: CountOrNone  # over which the learning rate rises from 0; 0: none
    decay_steps: CountOrNone  # length of the cosine decay that follows; 0: none, the learning rate stays
    b1: Decay
    b2: Decay
    clip_norm: Annotated[float, Range(0.0, 1e30, open_below=True)]  # of the global gradient
    ema_decay: Decay
    ema_every: Count  # steps between updates of the average
    ema_memory: Literal["device", "host"]  # where the average lies between updates; 'host' saves the device's memory
    first_moment_dtype: Literal[DTYPES]  # of Adam's moving average of the gradients; 'bfloat16' saves memory
    # Leaves out steps whose gradient norm is above so many times its moving average; 0: none.
    skip_spikes: Annotated[float, Range(1.0, 1e9, open_below=True, off=0)]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    data: Devices  # devices along 'data'; -1: all that are left
    fsdp: Devices  # devices along 'fsdp', over which parameters are split; -1: all that are left


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    num_steps: Count
    batch_size: Annotated[int, Range(1, 10**5)]  # global, scenes
    accumulate: Annotated[int, Range(1, 10**5)]  # micro-batches a step
    checkpoint_every: Count  # steps
    checkpoint_minutes: Minutes  # also saves when so many minutes have passed since the last time; 0: by steps only
    keep_checkpoints: Number  # the last few
    keep_every: CountOrNone  # also keeps the first at or after each multiple of so many steps; 0: none
    keep_best: str  # also keeps the one with the lowest value of this metric, such as 'loss'; '': none
    watchdog_minutes: Minutes  # a step that takes longer ends the process, with stacks and exit code 75; 0: none
    log_every: Count  # steps
    sample_every: CountOrNone  # steps between logged sample images; 0: never
    optimizer: OptimizerConfig
    mesh: MeshConfig

    def rules(self) -> list[tuple[bool, str]]:
        return [(self.batch_size % self.accumulate == 0, "batch_size must be a multiple of train.accumulate")]
