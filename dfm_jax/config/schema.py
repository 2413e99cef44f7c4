"""Typed, frozen settings: what a ConfigDict becomes at the border of the program (`config_reading.py`).

No field has a default: a config says all that it does.
"""

import dataclasses

SAMPLERS = ("ddim", "dpm-solver++")  # of `diffusion/samplers.py`
SPACINGS = ("uniform", "log-snr")  # of `diffusion/samplers.py`
INIT_RULES = ("same", "pixelnerf")  # of `training/transfer.py`


@dataclasses.dataclass(frozen=True)
class ViewSamplingConfig:
    """How context and target frames are drawn from a scene.

    Gaps are counted in frames of the data set; by the rule 'captures' in places among a view's neighbours, 1 being the
    nearest.
    """

    # 'realestate10k' (forwards or backwards in a clip), 'co3d' (around an object), 'toy' (by azimuth) or 'captures'
    # (among the neighbours by pose, whatever the order of the frames)
    rule: str
    min_frame_gap: int  # smallest distance between first context and first target frame, frames
    max_frame_gap: int  # largest one, frames
    min_context: int  # fewest context views
    max_context: int  # most context views; fewer are padded and masked
    num_target: int  # target views; the first is noised, the others are only supervised
    flip_probability: float  # chance to mirror all images (and cameras) of an example
    scale_jitter: float  # relative range of a random scaling of the world; 0.2 is +-20 %
    # Chance that, in training, the last target view is the first context view once more: what was given must be seen in
    # the scene again. 0 as published.
    again_probability: float


@dataclasses.dataclass(frozen=True)
class DataConfig:
    name: str  # data set (folder) below `dir`
    dir: str  # where prepared data sets lie
    split: str  # split to train on
    eval_split: str  # split to sample and evaluate on
    near: float  # distance at which rays start, units of the prepared scene; 0, like far: as stored with each scene
    far: float  # distance at which rays end
    toy_scenes: int  # of the data set 'toy', which is generated where it is missing; 0: whatever is there
    view_sampling: ViewSamplingConfig
    num_threads: int  # reading threads
    num_workers: int  # reading processes; 0 reads in this one
    prefetch: int  # batches held ready


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Diffusion transformer, the encoder of the paper."""

    name: str  # 'dit'
    depth: int  # transformer blocks
    width: int  # channels of a token
    num_heads: int
    features: int  # channels of a feature map
    absolute_pose: bool  # whether the view's absolute pose modulates the transformer (CO3D)
    # Tokens a side that position codes count, whatever the image's size: with those of the run that this one starts
    # from, places keep their codes. 0: as many as there are (the published code).
    position_grid: int
    remat: bool  # recompute transformer blocks in the backward pass
    init_file: str  # ImageNet weights to start from, 'DiT-XL-2-256x256.pt'; '': none


@dataclasses.dataclass(frozen=True)
class ResNet34Config:
    """Multi-scale pyramid of a ResNet34, the encoder of pixelNeRF."""

    name: str  # 'resnet34'
    base: int  # channels of the first convolution; 64 is ResNet34
    absolute_pose: bool  # whether the view's absolute pose modulates the residual blocks (CO3D)
    remat: bool  # recompute residual blocks in the backward pass
    init_file: str  # ImageNet weights to start from, torchvision's 'resnet34-b627a593.pth'; '': none

    @property
    def features(self) -> int:
        """Channels of a feature map: those of the first convolution and of layers 1, 2 and 3."""
        return (1 + 1 + 2 + 4) * self.base


# The field `name` of `model.encoder` says which settings it has.
EncoderConfig = DiTConfig | ResNet34Config
ENCODERS = {"dit": DiTConfig, "resnet34": ResNet34Config}


@dataclasses.dataclass(frozen=True)
class FieldConfig:
    """Pixel-aligned, time-conditioned radiance field."""

    width: int  # hidden units
    view_blocks: int  # residual blocks run for every view, before the views are averaged
    joint_blocks: int  # residual blocks run after it
    density_bias: float  # initial bias of the density output, so that the field starts half transparent


@dataclasses.dataclass(frozen=True)
class RayMarchingConfig:
    num_coarse: int  # samples of the coarse pass
    num_fine: int  # importance samples; 0: the coarse field is the result
    num_conditioning: int  # samples of the deterministic estimate (single pass; pixelNeRF: 0)
    chunk_size: int  # rays rendered at once, per scene
    background: float  # colour behind the scene, [0, 1]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The paper's model; or, without a conditioning field, the deterministic pixelNeRF that it grew from, which sees no
    noisy view: nothing is estimated for one."""

    pixel_grid: str  # 'centres', or 'corners' for the published corner-aligned grid
    compute_dtype: str  # of the networks: 'float32' or 'bfloat16'
    rendered_features: int  # feature channels that a field renders beside colour
    estimate_size: int  # side of the deterministic estimate, pixels; resized to image_size (pixelNeRF: 0)
    encoder: EncoderConfig
    conditioning_field: FieldConfig | None  # renders the deterministic estimate; None: pixelNeRF
    scene_field: FieldConfig
    # Small field of densities that says where the scene field is evaluated, in place of a coarse one as large as itself
    # (mip-NeRF 360); the scene field is then evaluated at the `num_fine` places alone. None: the published layout.
    proposal: FieldConfig | None
    ray_marching: RayMarchingConfig


@dataclasses.dataclass(frozen=True)
class DiffusionConfig:
    num_timesteps: int
    guidance_dropout: float  # chance to train an example without its context images
    high_noise_fraction: float  # share of the timesteps drawn from [high_noise_from, num_timesteps)
    high_noise_from: int


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights. The loss on the target views has weight 1."""

    estimate: float  # deterministic estimate, mean squared error
    coarse: float  # colour of the coarse field, mean squared error
    interlevel: float  # where the proposal's weights fall short of the scene field's; trains the proposal
    distortion: float
    smoothness: float  # edge-aware smoothness of inverse depth; needs patches
    lpips: float  # perceptual distance of patches; needs patches, and weights (`make lpips-weights`)
    pixels: str  # 'patch': a square patch a view; 'random': independent pixels
    patch_size: int  # side of a patch, pixels; 'random' draws patch_size^2 pixels


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: float
    warmup_steps: int
    decay_steps: int  # length of the cosine decay
    b1: float
    b2: float
    clip_norm: float  # of the global gradient
    ema_decay: float
    ema_every: int  # steps between updates of the average
    ema_memory: str  # where the average lies between its updates: 'device', or 'host' to save the device's memory
    first_moment_dtype: str  # of Adam's moving average of the gradients: 'float32', or 'bfloat16' to save memory
    skip_spikes: float  # leaves out steps whose gradient norm is above so many times its moving average; 0: none


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    data: int  # devices along 'data'; -1: all that are left
    fsdp: int  # devices along 'fsdp', over which parameters are split; -1: all that are left


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    num_steps: int
    batch_size: int  # global, scenes
    accumulate: int  # micro-batches a step
    checkpoint_every: int  # steps
    checkpoint_minutes: float  # also saves when so many minutes have passed since the last time; 0: by steps only
    keep_checkpoints: int  # the last few
    keep_every: int  # also keeps the first at or after each multiple of so many steps; 0: none
    keep_best: str  # also keeps the one with the lowest value of this metric, such as 'loss'; '': none
    watchdog_minutes: float  # a step that takes longer ends the process, with stacks and exit code 75; 0: none
    log_every: int  # steps
    sample_every: int  # steps between logged sample images; 0: never
    optimizer: OptimizerConfig
    mesh: MeshConfig


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    num_scenes: int  # context images to sample from
    num_samples: int  # samples of each
    sampler: str  # 'ddim', or 'dpm-solver++': as exact in far fewer steps
    num_steps: int  # denoising steps
    spacing: str  # of their noise levels: 'uniform' in time, as published, or in 'log-snr', which needs fewer of them
    guidance: float  # 1: none
    # Noise levels, as shares of all, between which to guide; outside, only the conditional branch is computed.
    guidance_from: float
    guidance_to: float
    # Cures for the high saturation of strong guidance (docs/evaluation.md): of these all can be combined.
    guidance_rescale: float  # share of the conditional prediction's contrast that is restored; 0: off
    guidance_parallel: float  # share of the part along the conditional prediction that is kept; 1: off
    guidance_momentum: float  # weight of earlier steps, usually negative; 0: off
    guidance_bound: float  # largest root mean square of the difference that is amplified, in [-1, 1] units; 0: off
    temperature: float  # scales the initial noise
    threshold_quantile: float  # of dynamic thresholding; 1: none
    # Frames of the camera path from one sampled view to the next, to which it is context: recorded frames where
    # video_path is 'dataset', else frames of the video. 0: target view 0 is the only one.
    autoregressive_step: int
    video_frames: int
    # What the context says of the target's rays is kept over the denoising steps, GB a device at most; 0: nothing is.
    context_memory: float
    video_path: str  # 'interpolate' (context to target and on), 'orbit' (around the scene) or 'dataset' (its cameras)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What `--mode=evaluate` measures; how it samples is `SampleConfig`'s."""

    protocol: str  # index file of the views (docs/evaluation.md); '': drawn from `data.eval_split`, and stored
    num_scenes: int  # scenes to draw; an index file has its own
    num_target: int  # target views of each that are drawn; an index file has its own
    num_samples: int  # samples of each scene
    inception_file: str  # weights of Inception v3 for FID and KID; '': VGG16's features, under another name
    sweep_samples: int  # samples behind each point of total variation over sampling steps (toy); 0: none


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int
    image_size: int  # side of the square images, pixels
    init_from: str  # workdir whose averaged parameters to start from; '': none
    init_rule: str  # how they map to this model's: 'same', or 'pixelnerf' (from its deterministic stage)
    data: DataConfig
    model: ModelConfig
    diffusion: DiffusionConfig
    loss: LossConfig
    train: TrainConfig
    sample: SampleConfig
    evaluate: EvaluateConfig
