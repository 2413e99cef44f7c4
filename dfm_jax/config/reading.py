"""Settings from a config file: `configs/*.py` are plain `ml_collections` documents, and `from_dict` turns one into a
`Config`. It refuses, by name, every field that is missing, unknown or of the wrong type, and what does not go together.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from dfm_jax.config.schema import ENCODERS, INIT_RULES, SAMPLERS, SPACINGS, Config, EncoderConfig, ResNet34Config
from dfm_jax.errors import UserError


class ConfigError(UserError):
    """A setting is missing, unknown, of the wrong type or inconsistent with another one."""


def from_dict(values: Mapping[str, Any]) -> Config:
    """Typed settings from a (nested) mapping such as a ConfigDict.

    Raises:
      ConfigError: naming all missing, unknown and ill-typed fields at once, or the first inconsistency.
    """
    problems: list[str] = []
    config = _build(Config, values, "", problems)
    if problems:
        raise ConfigError("the config cannot be used:\n  " + "\n  ".join(problems))
    _check_consistency(config)
    return config


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """A (nested) mapping or dataclass of settings by dotted names, such as 'train.optimizer.b1'."""
    values = dataclasses.asdict(values) if dataclasses.is_dataclass(values) else values
    flat = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _build(cls: type, values: Any, prefix: str, problems: list[str]) -> Any:
    if not isinstance(values, Mapping) and not hasattr(values, "keys"):
        problems.append(f"config.{prefix.rstrip('.')} must be a group of fields, not {values!r}")
        return None
    kind = f" of encoder {values['name']!r}" if cls in ENCODERS.values() else ""
    types = typing.get_type_hints(cls)
    problems += [
        f"config.{prefix}{k} is not a setting{kind} (known here: {', '.join(types)})" for k in values if k not in types
    ]
    made = {}
    for name, hint in types.items():
        where = f"config.{prefix}{name}"
        if name not in values:
            problems.append(f"{where} is missing")
        elif hint == EncoderConfig:
            made[name] = _build_encoder(values[name], f"{prefix}{name}.", problems)
        elif group := _group(hint):
            absent = values[name] is None and group is not hint  # an optional group
            made[name] = None if absent else _build(group, values[name], f"{prefix}{name}.", problems)
        else:
            made[name] = _convert(hint, values[name], where, problems)
    return cls(**made) if len(made) == len(types) else None


def _build_encoder(values: Any, prefix: str, problems: list[str]) -> EncoderConfig | None:
    """The kind of encoder whose name the values give."""
    kind = values.get("name") if hasattr(values, "get") else None
    if kind in list(ENCODERS):  # a list takes what cannot be hashed, too
        return _build(ENCODERS[kind], values, prefix, problems)
    problems.append(f"config.{prefix}name must be one of {', '.join(ENCODERS)}, not {kind!r}")
    return None


def _group(kind: Any) -> type | None:
    """The dataclass of a field that is a group of fields, also an optional one; None for all others."""
    groups = [option for option in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(option)]
    return groups[0] if groups else None


def _convert(kind: type, value: Any, where: str, problems: list[str]) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        problems.append(f"{where} must be {kind.__name__}, not {value!r}")
    return value


def _check_consistency(config: Config) -> None:
    views, loss, model, train = config.data.view_sampling, config.loss, config.model, config.train
    marching, encoder, diffusion, sample = model.ray_marching, model.encoder, config.diffusion, config.sample
    evaluate = config.evaluate
    rules = [
        *_encoder_rules(config.model.encoder, config.image_size),
        (0 < config.data.near < config.data.far or config.data.near == config.data.far == 0,
         "data: 0 < near < far must hold, or both be 0 for each scene's own"),
        (1 <= views.min_context <= views.max_context, "data.view_sampling: min_context <= max_context must hold"),
        (1 <= views.min_frame_gap <= views.max_frame_gap,
         "data.view_sampling: min_frame_gap <= max_frame_gap must hold"),
        (views.num_target >= 1, "data.view_sampling.num_target must be at least 1"),
        (0 <= views.again_probability <= 1 and (views.again_probability == 0 or views.num_target > 1),
         "data.view_sampling.again_probability must lie in [0, 1], and above 0 needs num_target of at least 2"),
        (config.init_rule in INIT_RULES, f"init_rule must be one of {', '.join(INIT_RULES)}"),
        (model.pixel_grid in ("centres", "corners"), "model.pixel_grid must be 'centres' or 'corners'"),
        (model.compute_dtype in ("float32", "bfloat16"), "model.compute_dtype must be 'float32' or 'bfloat16'"),
        (not (config.init_from and encoder.init_file),
         "init_from brings an encoder of its own: leave model.encoder.init_file empty"),
        (marching.num_coarse >= 3, "model.ray_marching.num_coarse must be at least 3"),
        (loss.pixels in ("patch", "random"), "loss.pixels must be 'patch' or 'random'"),
        (1 <= loss.patch_size <= config.image_size, "loss.patch_size must lie between 1 and image_size"),
        (loss.coarse == 0 or marching.num_fine > 0, "loss.coarse needs model.ray_marching.num_fine > 0"),
        ((loss.interlevel > 0) == (model.proposal is not None),
         "loss.interlevel trains model.proposal: both or neither must be there"),
        (model.proposal is None or (marching.num_fine > 0 and loss.coarse == 0),
         "model.proposal needs model.ray_marching.num_fine > 0 and loss.coarse=0 (it has no colour)"),
        (loss.smoothness == 0 or loss.pixels == "patch", "loss.smoothness needs loss.pixels='patch'"),
        (loss.lpips == 0 or (loss.pixels == "patch" and loss.patch_size >= 16),
         "loss.lpips needs loss.pixels='patch' and loss.patch_size of at least 16; 0 leaves it out"),
        (train.accumulate >= 1 and train.batch_size % train.accumulate == 0,
         "train.batch_size must be a multiple of train.accumulate"),
        (min(train.checkpoint_every, train.keep_checkpoints) >= 1,
         "train: checkpoint_every and keep_checkpoints must be at least 1"),
        (min(train.checkpoint_minutes, train.watchdog_minutes) >= 0,
         "train: checkpoint_minutes and watchdog_minutes must be 0 (none) or positive"),
        (train.keep_every >= 0, "train.keep_every must be 0 (none) or positive"),
        (train.optimizer.ema_memory in ("device", "host"), "train.optimizer.ema_memory must be 'device' or 'host'"),
        (train.optimizer.first_moment_dtype in ("float32", "bfloat16"),
         "train.optimizer.first_moment_dtype must be 'float32' or 'bfloat16'"),
        (train.optimizer.skip_spikes == 0 or train.optimizer.skip_spikes > 1,
         "train.optimizer.skip_spikes must be 0 (none) or above 1"),
        (sample.video_path in ("interpolate", "orbit", "dataset"),
         "sample.video_path must be 'interpolate', 'orbit' or 'dataset'"),
        (min(sample.num_scenes, sample.num_samples, sample.video_frames) >= 1,
         "sample: num_scenes, num_samples and video_frames must be at least 1"),
        (0 <= sample.guidance_from < sample.guidance_to <= 1,
         "sample: 0 <= guidance_from < guidance_to <= 1 must hold"),
        (0 <= sample.guidance_rescale <= 1 and 0 <= sample.guidance_parallel <= 1,
         "sample: guidance_rescale and guidance_parallel must lie in [0, 1]"),
        (-1 < sample.guidance_momentum < 1 and sample.guidance_bound >= 0,
         "sample: guidance_momentum must lie in (-1, 1), guidance_bound must not be negative"),
        (sample.autoregressive_step >= 0, "sample.autoregressive_step must not be negative"),
        (sample.context_memory >= 0, "sample.context_memory must not be negative"),
        (min(evaluate.num_scenes, evaluate.num_samples, evaluate.num_target) >= 1,
         "evaluate: num_scenes, num_samples and num_target must be at least 1"),
        (evaluate.sweep_samples >= 0, "evaluate.sweep_samples must not be negative"),
        (0 < sample.threshold_quantile <= 1, "sample.threshold_quantile must lie in (0, 1]"),
        (sample.sampler in SAMPLERS, f"sample.sampler must be one of {', '.join(SAMPLERS)}"),
        (sample.spacing in SPACINGS, f"sample.spacing must be one of {', '.join(SPACINGS)}"),
        (1 <= sample.num_steps <= diffusion.num_timesteps, "sample.num_steps must lie in [1, num_timesteps]"),
        (0 <= diffusion.high_noise_from < diffusion.num_timesteps,
         "diffusion.high_noise_from must lie in [0, num_timesteps)"),
    ]  # fmt: skip
    rules += _pixelnerf_rules(config) if model.conditioning_field is None else _estimate_rules(config)
    for holds, message in rules:
        if not holds:
            raise ConfigError(f"config.{message}")


def _estimate_rules(config: Config) -> list[tuple[bool, str]]:
    model = config.model
    return [
        (model.estimate_size >= 1, "model.estimate_size must be at least 1"),
        (model.ray_marching.num_conditioning >= 3, "model.ray_marching.num_conditioning must be at least 3"),
    ]


def _pixelnerf_rules(config: Config) -> list[tuple[bool, str]]:
    """What has no meaning without a noisy view must be switched off, and not look as if it did something."""
    model, where = config.model, "without model.conditioning_field (pixelNeRF)"
    off = {
        "model.estimate_size": (model.estimate_size, 0),
        "model.ray_marching.num_conditioning": (model.ray_marching.num_conditioning, 0),
        "loss.estimate": (config.loss.estimate, 0.0),
        "diffusion.guidance_dropout": (config.diffusion.guidance_dropout, 0.0),
        "diffusion.high_noise_fraction": (config.diffusion.high_noise_fraction, 0.0),
        "sample.num_samples": (config.sample.num_samples, 1),
        "evaluate.num_samples": (config.evaluate.num_samples, 1),
        "sample.num_steps": (config.sample.num_steps, 1),
        "sample.guidance": (config.sample.guidance, 1.0),
        "sample.autoregressive_step": (config.sample.autoregressive_step, 0),
    }
    return [(value == needed, f"{name} must be {needed} {where}") for name, (value, needed) in off.items()]


def _encoder_rules(encoder: EncoderConfig, image_size: int) -> list[tuple[bool, str]]:
    if isinstance(encoder, ResNet34Config):
        return [(encoder.base >= 1, "model.encoder.base must be at least 1")]
    return [
        (image_size % 4 == 0, "image_size must be a multiple of 4 (a token covers 4 x 4 pixels)"),
        (encoder.width % encoder.num_heads == 0, "model.encoder.width must be a multiple of num_heads"),
        (encoder.width % 4 == 0, "model.encoder.width must be a multiple of 4 (position code)"),
    ]
