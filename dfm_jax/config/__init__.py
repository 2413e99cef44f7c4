"""Typed settings (`schema`), how they are read from a mapping (`reading`) and from a command line (`command_line`)."""

from dfm_jax.config.data import DataConfig, ViewSamplingConfig
from dfm_jax.config.model import (
    ENCODERS,
    DiTConfig,
    EncoderConfig,
    FieldConfig,
    ForwardModelConfig,
    ModelConfig,
    RayMarchingConfig,
    ResNet34Config,
)
from dfm_jax.config.sampling import (
    FITTED,
    OF_DISTILLED,
    SAMPLERS,
    SPACINGS,
    EvaluateConfig,
    PhotographConfig,
    SampleConfig,
    TargetCameraConfig,
)
from dfm_jax.config.schema import INIT_RULES, Config
from dfm_jax.config.training import (
    DiffusionConfig,
    DistillationConfig,
    LossConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
)

__all__ = [
    "ENCODERS",
    "FITTED",
    "INIT_RULES",
    "OF_DISTILLED",
    "SAMPLERS",
    "SPACINGS",
    "Config",
    "DataConfig",
    "DiTConfig",
    "DiffusionConfig",
    "DistillationConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "FieldConfig",
    "ForwardModelConfig",
    "LossConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PhotographConfig",
    "RayMarchingConfig",
    "ResNet34Config",
    "SampleConfig",
    "TargetCameraConfig",
    "TrainConfig",
    "ViewSamplingConfig",
]
