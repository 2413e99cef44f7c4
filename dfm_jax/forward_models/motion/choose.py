"""Which of the two models of motion a config asks for: they differ in where their examples come from."""

from dfm_jax.config import Config
from dfm_jax.forward_models.motion.model import MotionModel
from dfm_jax.forward_models.motion.moving_model import MovingModel


def make_motion_model(config: Config) -> MotionModel:
    return (MovingModel if config.model.moving else MotionModel).from_config(config)
