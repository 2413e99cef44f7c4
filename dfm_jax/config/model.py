"""Settings of forward models: everything that their parameters depend on, and how they observe.

Those of the models of scenes are here. A model of another kind has its own beside it, in `forward_models/`: a subclass
of `ForwardModelConfig` that is entered in `MODELS` by `settings_of`.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from dfm_jax.config.limits import Channels, ChannelsOrNone, Path, Range, Share, SideOrNone
from dfm_jax.config.marching import marching_levels, schedule_problem

DTYPES = ("float32", "bfloat16")
# From the least to the most, see `RayMarchingConfig.keep`.
KEPT = ("distances", "estimate", "joint", "all")
# Of the networks; 'auto': bfloat16 on accelerators, float32 on a CPU, chosen and stored when training begins.
ComputeDtype = Literal[("auto", *DTYPES)]
Layers = Annotated[int, Range(1, 100)]
Samples = Annotated[int, Range(3, 2**14)]  # along a ray
SamplesOrNone = Annotated[int, Range(0, 2**14)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForwardModelConfig:
    """What all forward models have; the field `name` of `model` says which one a config has, and so which settings."""

    deterministic: ClassVar[bool] = False  # whether it knows one answer only, and has no denoising steps
    init_file: ClassVar[str] = ""  # public weights of its encoder to start from; '': none
    compute_dtype: ClassVar[str] = "float32"  # of its networks
    matmul_precision: ClassVar[str] = "default"  # of their products in float32
    posed_images: ClassVar[bool] = False  # whether its examples are posed images of scenes, the config's `data`
    # Of posed images: where pixels lie, the colour behind scenes, and whether the model sees where cameras are in the
    # data set's coordinates.
    pixel_grid: ClassVar[str] = "centres"
    background: ClassVar[float] = 0.0
    absolute_pose: ClassVar[bool] = False
    takes_measurements: ClassVar[bool] = False  # whether it is trained on more than pictures, `data.measured`

    losses: ClassVar[tuple[str, ...]] = ("estimate",)  # the weights of `loss` that it has terms for

    name: str

    def rules_with(self, config: Any) -> list[tuple[bool, str]]:
        """What must hold between the model's settings and the other sections of a `Config`."""
        exact = {"coarse_pass": "coarse", "kept_samples": 1.0, "marching_schedule": ""}
        return [
            (
                getattr(config.sample, name) == value,
                f"sample.{name} must be {value!r} with a model that renders no scene",
            )
            for name, value in exact.items()
        ]

    def rays_per_example(self, config: Any) -> int | None:
        """Rays that a training step renders for one example; None: the model does not render."""
        return None


def deterministic_rules(config: Any, own: Mapping[str, tuple[Any, Any]], chosen: str) -> list[tuple[bool, str]]:
    """What has no meaning without a noisy observation must be switched off, and not look as if it did something.

    Args:
      own: further settings by name, each with what it must be.
      chosen: the setting that makes the model deterministic.
    """
    off = {
        "diffusion.guidance_dropout": (config.diffusion.guidance_dropout, 0.0),
        "diffusion.high_noise_fraction": (config.diffusion.high_noise_fraction, 0.0),
        "sample.num_samples": (config.sample.num_samples, 1),
        "evaluate.num_samples": (config.evaluate.num_samples, 1),
        "sample.num_steps": (config.sample.num_steps, 1),
        "sample.guidance": (config.sample.guidance, 1.0),
    }
    both = {**off, **own}.items()
    return [(value == needed, f"{name} must be {needed!r} with {chosen}") for name, (value, needed) in both]


class _Models(dict):
    """By their names. What is not found may not have been imported yet: the models enter their settings when they
    are."""

    def __missing__(self, name: Any) -> "type[ForwardModelConfig]":
        importlib.import_module("dfm_jax.forward_models.build")
        return dict(self)[name]


MODELS: dict[str, type[ForwardModelConfig]] = _Models()


def settings_of(*names: str) -> Callable[[type], type]:
    """Makes a class the (frozen) settings of the forward models of these names."""

    def enter(cls: type) -> type:
        cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        MODELS.update(dict.fromkeys(names, cls))
        return cls

    return enter


def model_name(values: Mapping[str, Any]) -> Any:
    """The name in a model's settings. Models had none at first: then pixelNeRF is the one without a conditioning
    field."""
    unnamed = "pixelnerf" if values.get("conditioning_field", ...) is None else "radiance_field"
    return values.get("name", unnamed)


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Diffusion transformer, the encoder of the paper."""

    name: str  # 'dit'
    depth: Annotated[int, Range(1, 1000)]  # transformer blocks
    width: Channels  # channels of a token
    num_heads: Channels
    features: Channels  # channels of a feature map
    absolute_pose: bool = False  # whether the view's absolute pose modulates the transformer (CO3D)
    # Tokens a side that position codes count, whatever the image's size: with those of the run that this one starts
    # from, places keep their codes. 0: as many as there are (the published code).
    position_grid: SideOrNone = 0
    remat: bool = False  # recompute transformer blocks in the backward pass, see `train.recompute`
    init_file: Path = ""  # ImageNet weights to start from, 'DiT-XL-2-256x256.pt'; '': none

    def rules(self) -> list[tuple[bool, str]]:
        return [
            (self.width % self.num_heads == 0, "width must be a multiple of num_heads"),
            (self.width % 4 == 0, "width must be a multiple of 4 (position code)"),
        ]


@dataclasses.dataclass(frozen=True)
class ResNet34Config:
    """Multi-scale pyramid of a ResNet34, the encoder of pixelNeRF."""

    name: str  # 'resnet34'
    base: Annotated[int, Range(1, 2**11)]  # channels of the first convolution; 64 is ResNet34
    absolute_pose: bool = False  # whether the view's absolute pose modulates the residual blocks (CO3D)
    remat: bool = False  # recompute residual blocks in the backward pass, see `train.recompute`
    init_file: Path = ""  # ImageNet weights to start from, torchvision's 'resnet34-b627a593.pth'; '': none

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

    width: Annotated[int, Range(4, 2**14)]  # hidden units; the code of time needs 4
    view_blocks: Layers  # residual blocks run for every view, before the views are averaged
    joint_blocks: Layers  # residual blocks run after it
    # Initial bias of the density output, so that the field starts half transparent.
    density_bias: Annotated[float, Range(-1e4, 1e4)] = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RayMarchingConfig:
    num_coarse: Samples  # of the coarse pass
    num_fine: SamplesOrNone = 0  # importance samples; 0: the coarse field is the result
    num_conditioning: SamplesOrNone = 0  # of the deterministic estimate (single pass; pixelNeRF: 0)
    # Rays rendered at once, per scene; 0: as suits the platform, and the memory that training leaves.
    chunk_size: Annotated[int, Range(1, 2**30, off=0)]
    # What chunks keep at least for the backward pass, which computes all else again (see `train.recompute`): the
    # distances of their samples; with 'estimate' also the activations of the deterministic estimate, with 'joint' also
    # those of the scene field behind the average over the views, with 'all' all of them.
    keep: Literal[KEPT] = "distances"
    background: Share = 0.0  # colour behind the scene, [0, 1]


@settings_of("radiance_field", "pixelnerf")
class ModelConfig(ForwardModelConfig):
    """The paper's model; or the deterministic pixelNeRF that it grew from, which sees no noisy view: nothing is
    estimated for one."""

    posed_images = True
    losses = ("estimate", "coarse", "interlevel", "distortion", "smoothness", "lpips")

    name: Literal["radiance_field", "pixelnerf"]
    pixel_grid: Literal["centres", "corners"] = "centres"  # 'corners': the published corner-aligned grid
    compute_dtype: ComputeDtype = "float32"
    # Of products in float32: 'highest' is exact; 'default' what the device does by default, which is exact on a CPU
    # and rounds to 10 (GPUs) or 7 bits (TPUs) elsewhere.
    matmul_precision: Literal["default", "highest"] = "default"
    rendered_features: ChannelsOrNone  # feature channels that a field renders beside colour
    estimate_size: SideOrNone = 0  # side of the deterministic estimate, pixels; resized to image_size (pixelNeRF: 0)
    encoder: EncoderConfig
    conditioning_field: FieldConfig | None = None  # renders the deterministic estimate (pixelNeRF: None)
    scene_field: FieldConfig
    # Small field of densities that says where the scene field is evaluated, in place of a coarse one as large as itself
    # (mip-NeRF 360); the scene field is then evaluated at the `num_fine` places alone. None: the published layout.
    proposal: FieldConfig | None = None
    ray_marching: RayMarchingConfig

    @property
    def deterministic(self) -> bool:
        """Whether the model knows one answer only, and has no denoising steps."""
        return self.name == "pixelnerf"

    @property
    def init_file(self) -> str:
        return self.encoder.init_file

    @property
    def absolute_pose(self) -> bool:
        return self.encoder.absolute_pose

    @property
    def background(self) -> float:
        return self.ray_marching.background

    def rules(self) -> list[tuple[bool, str]]:
        fine, conditioning = self.ray_marching.num_fine, self.ray_marching.num_conditioning
        with_estimate = [
            (self.estimate_size >= 1, "estimate_size must be at least 1"),
            (conditioning >= 3, "ray_marching.num_conditioning must be at least 3"),
        ]
        return [
            (
                (self.conditioning_field is None) == self.deterministic,
                "conditioning_field must be None where name='pixelnerf', and only there",
            ),
            (self.proposal is None or fine > 0, "proposal needs ray_marching.num_fine > 0"),
            *([] if self.deterministic else with_estimate),
        ]

    def rays_per_example(self, config: Any) -> int:
        """The supervised pixels of all targets, and the estimate."""
        return config.data.view_sampling.num_target * config.loss.patch_size**2 + self.estimate_size**2

    def rules_with(self, config: Any) -> list[tuple[bool, str]]:
        loss, sample = config.loss, config.sample
        rules = [
            (
                not isinstance(self.encoder, DiTConfig) or config.image_size % 4 == 0,
                "image_size must be a multiple of 4 (a token covers 4 x 4 pixels)",
            ),
            (
                not (config.init_from and self.encoder.init_file),
                "init_from brings an encoder of its own: leave model.encoder.init_file empty",
            ),
            (loss.patch_size >= 1, "loss.patch_size must be at least 1: a view is supervised at patch_size^2 pixels"),
            (loss.patch_size <= config.image_size, "loss.patch_size must be at most image_size"),
            (
                loss.coarse == 0 or self.ray_marching.num_fine > 0,
                "loss.coarse needs model.ray_marching.num_fine > 0",
            ),
            (
                (loss.interlevel > 0) == (self.proposal is not None),
                "loss.interlevel trains model.proposal: both or neither must be there",
            ),
            (
                self.proposal is None or loss.coarse == 0,
                "loss.coarse must be 0 with model.proposal, which has no colour",
            ),
            (
                sample.photograph is not None and sample.target_camera is not None,
                "sample.photograph and sample.target_camera must be there: they are for photographs without a camera",
            ),
        ]
        rules += self._rules_of_savings(sample, config.image_size)
        return rules + (self._pixelnerf_rules(config) if self.deterministic else [])

    def _rules_of_savings(self, sample: Any, image_size: int) -> list[tuple[bool, str]]:
        """What the model must have where sampling leaves work out."""
        num_fine, without_colour = self.ray_marching.num_fine, self.proposal is not None
        rules = [
            (
                sample.coarse_pass == "coarse" or (num_fine > 0 and not without_colour),
                "sample.coarse_pass='fine' needs model.ray_marching.num_fine > 0, and no model.proposal",
            ),
            (sample.kept_samples == 1 or num_fine > 0, "sample.kept_samples needs model.ray_marching.num_fine > 0"),
        ]
        for level in () if schedule_problem(sample.marching_schedule) else marching_levels(sample.marching_schedule):
            name = f"sample.marching_schedule: the level from {level.noise_level:g}"
            rules += [
                (image_size % level.stride == 0, f"{name} has stride {level.stride}, which must divide image_size"),
                (level.num_fine > 0 or not without_colour, f"{name} needs fine samples: model.proposal has no colour"),
            ]
        return rules

    def _pixelnerf_rules(self, config: Any) -> list[tuple[bool, str]]:
        own = {
            "model.estimate_size": (self.estimate_size, 0),
            "model.ray_marching.num_conditioning": (self.ray_marching.num_conditioning, 0),
            "loss.estimate": (config.loss.estimate, 0.0),
            "sample.autoregressive_step": (config.sample.autoregressive_step, 0),
            "sample.marching_schedule": (config.sample.marching_schedule, ""),
        }
        return deterministic_rules(config, own, "model.name='pixelnerf'")
