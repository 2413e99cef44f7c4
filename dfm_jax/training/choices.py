"""What a run leaves to the program, settled before the training step is made (`config.automatic`)."""

import contextlib
import logging
import pathlib

import jax

from dfm_jax import platforms
from dfm_jax.config import Config
from dfm_jax.config.automatic import AUTO, Device, for_training, told, with_dtype
from dfm_jax.errors import UserError
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.runs.barriers import gather
from dfm_jax.runs.saved_settings import saved_settings

logger = logging.getLogger(__name__)


def settle(config: Config, workdir: str | pathlib.Path) -> tuple[Config, Config]:
    """The config that is stored with the run, which says the networks' number format; and the one that its step is
    made by, in which nothing is left open. What was chosen is logged."""
    device = this_device()
    trained = _trained_dtype(workdir) if config.model.compute_dtype == AUTO else ""
    stored = with_dtype(config, device.platform, trained)
    made = fitted(stored, device)
    if chosen := told(config, made):
        logger.info(f"chosen for {device.count} {device.platform} of {device.memory_bytes / 1e9:.0f} GB: {chosen}")
    return stored, made


def fitted(config: Config, device: Device | None = None) -> Config:
    """The config with all that a training step is compiled by, for the devices that are here or another one."""
    count = sum(x.size for x in jax.tree.leaves(parameter_shapes(make_model(config))))
    return for_training(config, device or this_device(), count)


def this_device() -> Device:
    """Of all processes the one with the least memory: they must make the same program."""
    return Device(jax.default_backend(), min(gather(platforms.memory_bytes())), jax.device_count())


def _trained_dtype(workdir: str | pathlib.Path) -> str:
    """Of the run's latest checkpoint; '' where there is none."""
    with contextlib.suppress(UserError):  # what is wrong with one is told where it is restored
        return saved_settings(workdir)["model"].get("compute_dtype", "")
    return ""
