"""Settings of training: what is noised, what is minimised, and how."""

import dataclasses
from typing import Annotated, Literal

from dfm_jax.config.limits import (
    Count,
    CountOrNone,
    Decay,
    Minutes,
    Number,
    Path,
    Range,
    Share,
    SideOrNone,
    Weight,
)
from dfm_jax.config.model import DTYPES
from dfm_jax.config.sampling import SAMPLERS

Devices = Annotated[int, Range(1, 10**6, off=-1)]


@dataclasses.dataclass(frozen=True)
class DiffusionConfig:
    num_timesteps: Annotated[int, Range(1, 10**6)]
    guidance_dropout: Share = 0.0  # chance to train an example without its context images
    high_noise_fraction: Share = 0.0  # share of the timesteps drawn from [high_noise_from, num_timesteps)
    high_noise_from: Annotated[int, Range(0, 10**6)] = 0

    def rules(self) -> list[tuple[bool, str]]:
        return [(self.high_noise_from < self.num_timesteps, "high_noise_from must be below num_timesteps")]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights. The loss on the target has weight 1; the other terms are off where nothing is said."""

    estimate: Weight = 0.0  # deterministic estimate, mean squared error
    coarse: Weight = 0.0  # colour of the coarse field, mean squared error
    interlevel: Weight = 0.0  # where the proposal's weights fall short of the scene field's; trains the proposal
    distortion: Weight = 0.0
    smoothness: Weight = 0.0  # edge-aware smoothness of inverse depth; needs patches
    lpips: Weight = 0.0  # perceptual distance of patches; needs patches, and weights (`make lpips-weights`)
    pixels: Literal["patch", "random"] = "random"  # 'patch': a square patch a view; 'random': independent pixels
    # Side of a patch, pixels; 'random' draws patch_size^2 pixels. 0: of models without images.
    patch_size: SideOrNone = 0
    prior: Weight = 0.0  # improbable signals, of models that say which are, whatever is observed of them

    def rules(self) -> list[tuple[bool, str]]:
        patch = self.pixels == "patch"
        return [
            (self.smoothness == 0 or patch, "smoothness needs pixels='patch'"),
            (
                self.lpips == 0 or (patch and self.patch_size >= 16),
                "lpips needs loss.pixels='patch' and loss.patch_size of at least 16; 0 leaves it out",
            ),
        ]


TARGET_ALONE = LossConfig()


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """A trained model, the teacher, samples in many steps what the model in training learns to sample in one or two. It
    starts from the teacher's parameters; by trajectories, it needs no truth but the contexts. Off without a teacher."""

    teacher: Path = ""  # workdir, or the name of a model that comes with the package; '': none
    # 'trajectory': from any level of a trajectory of the teacher to its end; 'consistency': to what the model itself
    # says one step of the teacher further down (Song et al. 2023), where examples with noise are the trajectories.
    method: Literal["trajectory", "consistency"] = "trajectory"
    # How the teacher is sampled, where not as it says itself ('' and 0).
    sampler: Literal[("", *SAMPLERS)] = ""
    num_steps: CountOrNone = 0
    # Of each trajectory that are learnt from; the noisiest is one of them. `consistency` takes one of each example.
    levels: Annotated[int, Range(1, 1000)] = 3
    # Root mean square error, in [-1, 1] units, from which on an image's error counts as such and not squared.
    huber: Annotated[float, Range(0.0, 1e3, open_below=True)] = 0.03


NOT_DISTILLED = DistillationConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    learning_rate: Annotated[float, Range(0.0, 1e3)]
    warmup_steps: CountOrNone = 0  # over which the learning rate rises from 0; 0: none
    decay_steps: CountOrNone = 0  # length of the cosine decay that follows; 0: none, the learning rate stays
    b1: Decay
    b2: Decay
    clip_norm: Annotated[float, Range(0.0, 1e30, open_below=True)]  # of the global gradient
    ema_decay: Decay
    ema_every: Count = 1  # steps between updates of the average
    # Where the average lies between updates; 'host' saves the device's memory.
    ema_memory: Literal["device", "host"] = "device"
    # Of Adam's moving average of the gradients; 'bfloat16' saves memory.
    first_moment_dtype: Literal[DTYPES] = "float32"
    # Leaves out steps whose gradient norm is above so many times its moving average; 0: none.
    skip_spikes: Annotated[float, Range(1.0, 1e9, open_below=True, off=0)] = 0.0


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    data: Devices = -1  # devices along 'data'; -1: all that are left
    fsdp: Devices = 1  # devices along 'fsdp', over which parameters are split; -1: all that are left


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    num_steps: Count
    batch_size: Annotated[int, Range(1, 10**5)]  # global, scenes
    accumulate: Annotated[int, Range(1, 10**5, off=0)] = 1  # micro-batches a step; 0: as many as memory wants
    # Whether the backward pass computes again all that it may (encoder.remat, ray_marching.keep), or, with 'auto', only
    # what the device's memory does not hold.
    recompute: Literal["always", "auto"] = "always"
    checkpoint_every: Count  # steps
    # Also saves when so many minutes have passed since the last time; 0: by steps only.
    checkpoint_minutes: Minutes = 0.0
    keep_checkpoints: Number  # the last few
    keep_every: CountOrNone = 0  # also keeps the first at or after each multiple of so many steps; 0: none
    keep_best: str = ""  # also keeps the one with the lowest value of this metric, such as 'loss'; '': none
    watchdog_minutes: Minutes = 0.0  # a step that takes longer ends the process, with stacks and exit code 75; 0: none
    log_every: Count  # steps
    sample_every: CountOrNone = 0  # steps between logged sample images; 0: never
    optimizer: OptimizerConfig
    mesh: MeshConfig = MeshConfig()

    def rules(self) -> list[tuple[bool, str]]:
        return [(self.batch_size % (self.accumulate or 1) == 0, "batch_size must be a multiple of train.accumulate")]
