"""What a config leaves to the program ('auto', or 0), chosen by a device and its memory.

The number format is chosen once, when training begins, and stored: it is part of what a model is. All else only says
how a training step is computed, and is chosen anew in each run: rays in a chunk, what is computed again in the backward
pass, and the number of micro-batches. `memory.py` estimates what a choice takes.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from dfm_jax.config.memory import Needs, target_rays, training_needs
from dfm_jax.config.model import KEPT, ModelConfig
from dfm_jax.config.schema import Config

AUTO = "auto"
# Of a device's memory, what a training step may take: estimates are rough, and others want some.
SHARE = 0.75
# Of a machine's memory, what intermediate results may take before more is computed again. A CPU that reads what it kept
# from memory gains little over computing it, and the machine is seldom one's own.
CPU_SHARE = 1 / 16
CHUNKS = (1024, 512, 256, 128)  # rays, where all at once are too many
CPU_CHUNK = 32


@dataclasses.dataclass(frozen=True)
class Device:
    """What computes: one of `count` alike, which share the examples."""

    platform: str  # 'cpu', 'gpu', 'tpu'
    memory_bytes: float = float("inf")  # of one
    count: int = 1


def with_dtype(config: Config, platform: str, trained: str = "") -> Config:
    """The config with the number format of its networks.

    Args:
      trained: that of the model so far, if there is one: it stays.
    """
    if config.model.compute_dtype != AUTO:
        return config
    chosen = trained if trained not in ("", AUTO) else "float32" if platform == "cpu" else "bfloat16"
    return _changed(config, {"model": {"compute_dtype": chosen}})


def for_training(config: Config, device: Device, num_parameters: int) -> Config:
    """The config with all that a training step is compiled by; nothing is 'auto' or 0 any more."""
    config = with_dtype(config, device.platform)
    choices = list(_choices(config, device))
    fits = lambda choice, least: _fits(training_needs(choice, device.count, num_parameters), device, least)
    return next((choice for choice, least in choices if fits(choice, least)), choices[-1][0])


def _fits(needs: Needs, device: Device, least: bool) -> bool:
    """Whether a device holds it; where it is not the layout that keeps `least`, a CPU must hold it with ease."""
    if device.platform == "cpu" and needs.temporary > CPU_SHARE * device.memory_bytes and not least:
        return False
    return needs.total <= SHARE * device.memory_bytes


def _choices(config: Config, device: Device) -> Iterator[tuple[Config, bool]]:
    """From the fastest to the one that needs the least memory, and whether its layout keeps the least. Micro-batches
    cost less time than recomputation."""
    layouts = list(_layouts(config, device))
    for layout in layouts:
        for accumulate in _accumulations(config, device):
            settled = {"train": {"accumulate": accumulate, "recompute": "always"}}
            yield _changed(config, settled | layout), layout is layouts[-1]


def _accumulations(config: Config, device: Device) -> list[int]:
    """Numbers of micro-batches; a micro-batch is split over the devices."""
    settings = config.train
    if settings.accumulate:
        return [settings.accumulate]
    size = settings.batch_size
    return [n for n in range(1, size + 1) if size % n == 0 and (size // n) % device.count == 0] or [1]


def _layouts(config: Config, device: Device) -> Iterator[dict[str, Any]]:
    """How much is kept in a forward pass, as changes of a config."""
    model = config.model
    if not isinstance(model, ModelConfig):
        yield {}
        return
    marching = model.ray_marching
    remats, levels = (model.encoder.remat,), (marching.keep,)
    if config.train.recompute == AUTO:
        remats = (False, True) if model.encoder.remat else (False,)
        levels = tuple(reversed(KEPT[KEPT.index(marching.keep) :]))
    if marching.chunk_size:
        chunks = (marching.chunk_size,)
    elif device.platform == "cpu":
        chunks = (CPU_CHUNK,)
    else:  # a call of all rays keeps everything, and its kernels are the largest
        calls = sorted({target_rays(config), model.estimate_size**2 or target_rays(config)}, reverse=True)
        chunks = (*calls, *(chunk for chunk in CHUNKS if chunk < calls[-1]))
        levels = (levels[-1],)
    for chunk in chunks:
        for keep in levels:
            for remat in remats:
                yield {"model": {"encoder": {"remat": remat}, "ray_marching": {"chunk_size": chunk, "keep": keep}}}


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    """A dataclass with other values of some fields, nested."""
    inner = lambda name, value: _changed(getattr(config, name), value) if isinstance(value, dict) else value
    return dataclasses.replace(config, **{name: inner(name, value) for name, value in changes.items()})


def told(before: Config, after: Config) -> str:
    """What was chosen, for the log; '' where nothing was left open."""
    was, now = (dict(_choices_made(config)) for config in (before, after))
    return ", ".join(text for name, text in now.items() if was[name] != text)


def _choices_made(config: Config) -> Iterator[tuple[str, str]]:
    yield "dtype", f"networks in {config.model.compute_dtype}"
    if isinstance(config.model, ModelConfig):
        marching = config.model.ray_marching
        yield "chunk", f"chunks of {marching.chunk_size} rays"
        yield "keep", f"which keep {IN_WORDS[marching.keep]}"
        yield "remat", f"the encoder's blocks {'computed again' if config.model.encoder.remat else 'kept'}"
    yield "accumulate", f"micro-batches: {config.train.accumulate}"


IN_WORDS = {
    "distances": "their distances",
    "estimate": "the estimate's activations",
    "joint": "the estimate's activations and half of the scene's",
    "all": "all activations",
}
