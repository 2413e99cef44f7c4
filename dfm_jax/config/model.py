"""Settings of the model: everything that its parameters depend on, and how it renders."""

import dataclasses
from typing import Annotated, Literal

from dfm_jax.config.limits import Channels, ChannelsOrNone, Path, Range, Share, SideOrNone

DTYPES = ("float32", "bfloat16")
Layers = Annotated[int, Range(1, 100)]
Samples = Annotated[int, Range(3, 2**14)]  # along a ray
SamplesOrNone = Annotated[int, Range(0, 2**14)]


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
    remat: bool = False  # recompute transformer blocks in the backward pass
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
    remat: bool = False  # recompute residual blocks in the backward pass
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
    chunk_size: Annotated[int, Range(1, 2**30)]  # rays rendered at once, per scene
    background: Share = 0.0  # colour behind the scene, [0, 1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The paper's model; or the deterministic pixelNeRF that it grew from, which sees no noisy view: nothing is
    estimated for one."""

    name: Literal["radiance_field", "pixelnerf"]  # of the forward model
    pixel_grid: Literal["centres", "corners"] = "centres"  # 'corners': the published corner-aligned grid
    compute_dtype: Literal[DTYPES] = "float32"  # of the networks
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
