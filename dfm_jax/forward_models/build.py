"""Which forward models there are, by the name that a config gives them.

Another one is a file beside this one, with the model and its settings (`config.model.settings_of`), a line here, and a
config file; `linear.py` is the smallest example. `tests/test_forward_models.py` holds every model to the same laws.
"""

from collections.abc import Callable, Mapping

from dfm_jax.config import Config
from dfm_jax.errors import UserError
from dfm_jax.forward_models.generator import GeneratorModel
from dfm_jax.forward_models.linear import LinearModel
from dfm_jax.forward_models.motion.choose import make_motion_model
from dfm_jax.forward_models.partial_views import PartialViews
from dfm_jax.forward_models.pixelnerf import PixelNeRF
from dfm_jax.forward_models.protocol import ForwardModel, SceneModel, in_colour
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel

MODELS: Mapping[str, Callable[[Config], ForwardModel]] = {
    "radiance_field": RadianceFieldModel.from_config,
    "pixelnerf": PixelNeRF.from_config,
    "partial_views": PartialViews.from_config,
    "linear": LinearModel.from_config,
    "generator": GeneratorModel.from_config,
    "motion": make_motion_model,
}


def make_model(config: Config) -> ForwardModel:
    """The model that `config.model.name` names."""
    return MODELS[config.model.name](config)


def require_scenes(config: Config, what: str) -> None:
    """Sees that a config's model has scenes for signals, for `what` only they can do.

    Raises:
      UserError: it has others.
    """
    if not isinstance(make_model(config), SceneModel):
        raise UserError(
            f"{what} needs a model of scenes, and this one is {config.model.name!r}: it can be trained, and then "
            "--mode=sample, evaluate or export"
        )


def require_colours(config: Config, what: str) -> None:
    """Sees that a config's model knows the colours of its scenes, if it has scenes, for `what` reads them.

    Raises:
      UserError: its target views are no pictures in colour.
    """
    if not in_colour(make_model(config)):
        raise UserError(
            f"{what} reads colours, and this model, {config.model.name!r}, knows none: its target views are no pictures"
            " in colour; use a model that was trained on such pictures"
        )
