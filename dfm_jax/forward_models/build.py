"""Which forward model a config describes."""

from dfm_jax.config import LossConfig, ModelConfig
from dfm_jax.forward_models.pixelnerf import PixelNeRF
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel


def make_model(config: ModelConfig, image_size: int, loss: LossConfig) -> RadianceFieldModel:
    """The model that a config describes: the paper's, or pixelNeRF where it has no conditioning field."""
    kind = PixelNeRF if config.conditioning_field is None else RadianceFieldModel
    return kind(config, image_size, loss)
