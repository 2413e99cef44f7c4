"""Whether a run can resume from what another one saved: its settings, and its arrays."""

import copy
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from dfm_jax.config import Config
from dfm_jax.config.model import model_name
from dfm_jax.config.reading import flatten, with_defaults
from dfm_jax.config.renamed import current_settings
from dfm_jax.errors import UserError
from dfm_jax.runs.train_state import Params

logger = logging.getLogger(__name__)

# The fields that say what is trained: a run resumes only with the ones it began with ...
DEFINING = ("seed", "image_size", "data.name", "model", "diffusion.num_timesteps")
# ... except those that only say how it is computed, or what it began with.
INCIDENTAL = (
    "model.compute_dtype",
    "model.matmul_precision",
    "model.encoder.remat",
    "model.encoder.init_file",
    "model.decoder_file",
    "model.ray_marching.chunk_size",
    "model.ray_marching.keep",
)
# What runs did before a setting could be made, by its name, where that is not its default in `config/`.
BEFORE = {
    "model.name": "radiance_field",  # or 'pixelnerf', see `_model_name`
    "model.encoder.name": "dit",
    # Nothing was evaluated; the least that can be.
    "evaluate.num_scenes": 1,
    "evaluate.num_samples": 1,
}
# The same of photographs without a camera, by the rule that the views of the data set are drawn by.
_PHOTOGRAPH = ("photograph.focal_length", "photograph.near", "photograph.far")
_TARGET_CAMERA = tuple(f"target_camera.{name}" for name in ("azimuth", "elevation", "distance", "forward"))
_OF_PHOTOGRAPHS = {
    "toy": (1.41, 2.6, 5.5, 180.0, 28.0, 4.0, 0.0),
    "realestate10k": (0.87, 0.7, 10.0, 0.0, 0.0, 0.0, 1.0),
    "co3d": (1.4, 0.5, 40.0, 90.0, 15.0, 10.0, 0.0),
    "captures": (1.1, 1.0, 40.0, 30.0, 0.0, 4.0, 0.0),
}
BEFORE_BY_RULE = {
    rule: {f"sample.{name}": value for name, value in zip((*_PHOTOGRAPH, *_TARGET_CAMERA), values, strict=True)}
    for rule, values in _OF_PHOTOGRAPHS.items()
}
OF_SCENES = ("radiance_field", "pixelnerf")  # models; others are younger than any setting of the model here
KINDS = ("model", "model.encoder")  # groups whose settings depend on their name
# Settings that add arrays to the optimiser's state, by whether they are 0.
SHAPING = ("train.optimizer.skip_spikes",)
ABSENT = "(absent)"


def complete(saved: dict[str, Any]) -> dict[str, Any]:
    """Saved settings (nested), and those that could not be made when they were saved, as the run did without them."""
    settings = current_settings(copy.deepcopy(saved), tell=False)
    before = BEFORE | _before_by_rule(saved) | _model_name(saved)
    if before.get("model.name") not in OF_SCENES:
        before = {name: value for name, value in before.items() if not _below(name, ("model",))}
    for name, value in before.items():
        *path, field = name.split(".")
        group = settings
        for part in path:
            group = group.setdefault(part, {}) if isinstance(group, dict) else None
        # What is no group of settings is left for `from_dict` to refuse.
        if isinstance(group, dict):
            group.setdefault(field, value)
    return with_defaults(settings)


def _before_by_rule(saved: Any) -> dict[str, Any]:
    try:
        return BEFORE_BY_RULE.get(saved["data"]["view_sampling"]["rule"], {})
    except (KeyError, TypeError):  # no settings of a run: left for `from_dict` to refuse
        return {}


def _model_name(saved: Any) -> dict[str, Any]:
    """Of settings that are none of a run: as if they were of scenes, for `from_dict` to refuse."""
    model = saved.get("model") if isinstance(saved, Mapping) else None
    return {"model.name": model_name(model)} if isinstance(model, Mapping) else {}


def check_same_config(saved: Mapping[str, Any], config: Config, workdir: str | pathlib.Path) -> list[str]:
    """The differences that do not stop a run from resuming, one 'field: saved -> now' each.

    Raises:
      UserError: listing those that do, the fields that define what is trained.
    """
    new, old = flatten(config), flatten(saved)
    names = [name for name in {**old, **new} if old.get(name, ABSENT) != new.get(name, ABSENT)]
    for kind in KINDS:  # no setting of one kind of encoder (or of model) can be compared with another kind's
        if f"{kind}.name" in names:
            names = [name for name in names if name == f"{kind}.name" or not _below(name, (kind,))]
    lines = {name: f"config.{name}: {old.get(name, ABSENT)!r} -> {new.get(name, ABSENT)!r}" for name in names}
    fatal = [lines[name] for name in names if _below(name, DEFINING) and not _below(name, INCIDENTAL)]
    if fatal:
        told = f" {fatal[0]}; " if len(fatal) == 1 else "\n  " + "\n  ".join(fatal) + "\n"
        raise UserError(
            f"{workdir} holds a checkpoint of another config (saved -> now):{told}choose another --workdir, or leave "
            "the saved settings as they are"
        )
    return [lines[name] for name in names]


def check_same_optimizer(saved: Mapping[str, Any], config: Config) -> None:
    """Makes sure that the optimiser keeps the arrays that it kept.

    Raises:
      UserError: naming the setting that is another one.
    """
    new, old = flatten(config), flatten(saved)
    for name in SHAPING:
        if bool(old[name]) != bool(new[name]):
            raise UserError(
                f"config.{name} was {old[name]!r} in this run and is {new[name]!r} now: the optimiser's saved state is "
                f"of another form; resume with --config.{name}={old[name]!r}, or start another run, with a --workdir "
                "of its own, from this one's parameters with --config.init_from"
            )


def tell_untrained_guidance(trained: Mapping[str, Any], config: Config) -> None:
    """Says it where samples are guided by a model that never saw an example without its context: they are pictures like
    others, and what guidance did to them means nothing.

    Args:
      trained: the settings that the model was trained with.
    """
    if config.sample.guidance != 1 and not trained["diffusion"]["guidance_dropout"]:
        logger.warning(
            f"warning: config.sample.guidance={config.sample.guidance:g}, but this model is trained with "
            "config.diffusion.guidance_dropout=0: guidance compares with what it says without context, which it never "
            "learns; sample it with --config.sample.guidance=1"
        )


def check_same_parameters(saved: Params, expected: Params, where: str) -> None:
    """Compares the names and shapes of two trees.

    Raises:
      UserError: listing every array that is missing from `saved`, unexpected in it, or of another shape.
    """
    old, new = ({_name(path): tuple(x.shape) for path, x in _leaves(tree)} for tree in (saved, expected))
    problems = [f"missing: {name} {new[name]}" for name in new if name not in old]
    problems += [f"unexpected: {name} {old[name]}" for name in old if name not in new]
    problems += [f"{name} is {old[name]}, not {new[name]}" for name in new if old.get(name, new[name]) != new[name]]
    if problems:
        raise UserError(f"the arrays in {where} are not those of this model:\n  " + "\n  ".join(problems))


def _leaves(tree: Any) -> list[tuple[tuple, Any]]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _below(name: str, groups: tuple[str, ...]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)
