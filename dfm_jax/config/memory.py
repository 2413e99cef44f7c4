"""How much memory a training step takes, roughly: enough to choose by, before anything is compiled.

Compared with what a GPU measured of published sizes (docs/gpu.md), it is between 18 % below, where nothing is computed
again, and 15 % above; what is chosen by it leaves a quarter of the memory (`automatic.SHARE`).
"""

import dataclasses
from collections.abc import Iterator

from dfm_jax.config.model import DiTConfig, FieldConfig, ModelConfig
from dfm_jax.config.schema import Config

# A DiT block's arrays that its gradient needs, in widths of a token.
OF_A_BLOCK = 18
# Channels that a ResNet34 keeps at its stem's resolution, and what is left where blocks are computed again.
OF_A_RESNET, OF_A_RESNET_AGAIN = 40, 12
FLOAT = 4


@dataclasses.dataclass(frozen=True)
class Needs:
    """Bytes on one device."""

    state: float  # parameters, optimiser, average
    temporary: float  # gradients and what is kept and worked on

    @property
    def total(self) -> float:
        return self.state + self.temporary


def training_needs(config: Config, num_devices: int, num_parameters: int) -> Needs:
    """Of a config in which nothing is left open."""
    optimizer = config.train.optimizer
    copies = 3 + (optimizer.ema_memory == "device")  # parameters, two moments, average
    state = num_parameters * (FLOAT * copies - (2 if optimizer.first_moment_dtype == "bfloat16" else 0))
    split = num_devices if config.train.mesh.fsdp == -1 else config.train.mesh.fsdp
    if config.distillation.teacher:  # which is at least as large as what learns from it
        state += num_parameters * FLOAT
    # Micro-batches add their gradients up in another copy.
    gradients = num_parameters * FLOAT * (1 + (config.train.accumulate > 1))
    temporary = gradients / split
    if isinstance(config.model, ModelConfig):
        scenes = config.train.batch_size / config.train.accumulate / num_devices
        temporary += scenes * (_rendering(config) + _encoder(config))
    return Needs(state / split, temporary)


def _rendering(config: Config) -> float:
    """Activations of one scene's fields: those kept, and those of the chunk that is worked on."""
    model, marching = config.model, config.model.ray_marching
    kept, working = 0.0, 0.0
    for rays, samples, field, views, keeps in _passes(config):
        of_views, joint = _activations(field, views)
        chunk = min(rays, marching.chunk_size)
        if rays > chunk:
            kept += rays * samples * (of_views * keeps[0] + joint * keeps[1])
            working = max(working, chunk * samples * (of_views + joint))
        else:  # nothing is computed again
            kept += rays * samples * (of_views + joint)
    return _itemsize(model) * (kept + working)


def _passes(config: Config) -> Iterator[tuple[int, int, FieldConfig, int, tuple[bool, bool]]]:
    """Rays, samples of each, field, views, and whether chunks keep the activations of views and those behind their
    average."""
    model, keep = config.model, config.model.ray_marching.keep
    context = config.data.view_sampling.max_context
    all_views = context + (not model.deterministic)
    yield target_rays(config), _samples(config), model.scene_field, all_views, (keep == "all", keep in ("all", "joint"))
    if model.conditioning_field is not None:
        keeps = keep != "distances"
        samples = model.ray_marching.num_conditioning
        yield model.estimate_size**2, samples, model.conditioning_field, context, (keeps, keeps)


def target_rays(config: Config) -> int:
    """Rays of one scene that a training step supervises, but for those of the estimate."""
    return config.data.view_sampling.num_target * config.loss.patch_size**2


def _itemsize(model: ModelConfig) -> int:
    return 2 if model.compute_dtype == "bfloat16" else FLOAT


def _activations(field: FieldConfig, views: int) -> tuple[int, int]:
    """Numbers of one sample: of all views, and after they are averaged."""
    return views * (2 * field.view_blocks - 1) * field.width, (2 * field.joint_blocks + 1) * field.width


def _samples(config: Config) -> int:
    """Of a ray, whose gradients are computed."""
    marching = config.model.ray_marching
    if not marching.num_fine:
        return marching.num_coarse
    if config.model.proposal is not None:
        return marching.num_fine
    return marching.num_coarse * (1 + (config.loss.coarse > 0)) + marching.num_fine


def _encoder(config: Config) -> float:
    """Activations of one scene's encoded views."""
    encoder = config.model.encoder
    itemsize = _itemsize(config.model)
    views = config.data.view_sampling.max_context + (not config.model.deterministic)
    if not isinstance(encoder, DiTConfig):
        channels = OF_A_RESNET_AGAIN if encoder.remat else OF_A_RESNET
        return views * itemsize * (config.image_size / 2) ** 2 * channels * encoder.base
    tokens = (config.image_size // 4) ** 2
    block = tokens * (OF_A_BLOCK * encoder.width + 2 * encoder.num_heads * tokens)
    blocks = block + encoder.depth * tokens * encoder.width if encoder.remat else encoder.depth * block
    return views * itemsize * (blocks + 4 * config.image_size**2 * encoder.features)
