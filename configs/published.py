"""What configs share: variants, and the recipe of Tewari et al. 2023 (arXiv 2306.11719), as their code has it."""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group


def recipe() -> ConfigDict:
    """DiT-XL/2 at 64 x 64 pixels; a data set adds its own. What is not stated is off (settings: `dfm_jax/config/`)."""
    config = group(seed=0, image_size=64)
    config.data = group(dir="data", split="train", eval_split="test", num_threads=16, num_workers=4, prefetch=4)
    config.data.view_sampling = group(min_context=1, max_context=1, num_target=2)
    config.model = group(name="radiance_field", rendered_features=64, estimate_size=64)
    config.model.pixel_grid = "centres"  # published: 'corners'
    config.model.compute_dtype = "auto"  # bfloat16 on accelerators; published: 'float32'
    config.model.encoder = group(name="dit", depth=28, width=1152, num_heads=16, features=512, remat=True)
    config.model.conditioning_field = group(width=512, view_blocks=3, joint_blocks=2)
    config.model.scene_field = group(width=512, view_blocks=3, joint_blocks=2)
    config.model.ray_marching = group(num_coarse=64, num_fine=64, num_conditioning=32, chunk_size=0)
    config.diffusion = group(num_timesteps=1000, guidance_dropout=0.1)
    # `coarse` is ours, weighted as in mip-NeRF: published, that field is untrained. LPIPS needs `make lpips-weights`.
    config.loss = group(estimate=1.0, coarse=0.1, lpips=1.0, pixels="patch", patch_size=24)
    # More than a week of 8 A100; the published number of steps is not stated.
    config.train = group(num_steps=1_000_000, batch_size=8, log_every=100, sample_every=5000, watchdog_minutes=30.0)
    config.train.update(checkpoint_every=2000, checkpoint_minutes=20.0, keep_checkpoints=3, keep_every=100_000)
    config.train.update(accumulate=0, recompute="auto")
    config.train.optimizer = group(learning_rate=2e-5, warmup_steps=1000, decay_steps=7_000_000, b1=0.9, b2=0.99)
    config.train.optimizer.update(clip_norm=1.0, ema_decay=0.995, ema_every=10)
    config.sample = group(num_scenes=8, num_samples=4, num_steps=50, guidance=1.0, temperature=1.0)
    config.sample.update(threshold_quantile=0.95, context_cache_gb=4.0, video_frames=60)
    config.evaluate = group(num_scenes=100, num_target=4, num_samples=4)
    return config


def at_128(config: ConfigDict) -> None:
    """The last stage, which starts from 64 pixels."""
    config.image_size = config.model.estimate_size = 128
    config.model.encoder.position_grid = 16  # the codes of the 16 tokens a side that there were; published: 0


def pixelnerf(config: ConfigDict) -> None:
    """The same without diffusion, the first stage and the baseline: one answer, and nothing that makes several."""
    config.model.update(name="pixelnerf", estimate_size=0)
    config.model.conditioning_field = None
    config.model.ray_marching.num_conditioning = 0
    config.loss.update(estimate=0.0, lpips=0.0)
    config.diffusion.update(guidance_dropout=0.0, high_noise_fraction=0.0)
    config.sample.update(num_samples=1, num_steps=1, guidance=1.0)
    config.evaluate.num_samples = 1


def resnet34(config: ConfigDict, base: int | None = None) -> None:
    """The encoder of pixelNeRF in the place of the transformer; without `base`, with as many channels."""
    encoder = config.model.encoder
    absolute_pose = encoder.get("absolute_pose", False)
    config.model.encoder = group(name="resnet34", base=base or encoder.features // 8, absolute_pose=absolute_pose)


def partial_views(config: ConfigDict, observation: str, measured: str) -> None:
    """Target views of cameras that take no whole pictures in colour; `measured`: what data must know for it."""
    config.model.update(name="partial_views", observation=observation)
    config.data.measured = measured
    config.loss.update(coarse=0.0, lpips=0.0)


def lean(config: ConfigDict, num_fine: int | None = None) -> None:
    """Ours: a small proposal field says where to look, in place of a coarse field as large as the fine one."""
    field, marching = config.model.scene_field, config.model.ray_marching
    config.model.proposal = group(width=field.width // 4, view_blocks=1, joint_blocks=1)
    config.model.proposal.density_bias = field.get("density_bias", 0.0)
    marching.num_fine = num_fine or max(1, marching.num_coarse // 2)
    config.loss.update(coarse=0.0, interlevel=1.0)


def fine(config: ConfigDict, num_fine: int = 16) -> None:
    """The published way to look at rays, twice, also for models that look once."""
    config.model.ray_marching.num_fine = config.model.ray_marching.get("num_fine") or num_fine
    config.loss.coarse = 0.0 if config.model.name == "partial_views" else 0.1  # of colours


def few_steps(config: ConfigDict, num_steps: int) -> None:
    """As good as 50 of DDIM."""
    config.sample.update(sampler="dpm-solver++", num_steps=num_steps, spacing="log-snr")


def distilled(config: ConfigDict, teacher: str) -> None:
    """Learns where the steps of a trained model of this config end, to take them in one or two."""
    config.distillation = group(teacher=teacher, num_steps=10)
    config.diffusion.guidance_dropout = 0.0  # a student is not guided
    config.train.update(num_steps=540, batch_size=32, sample_every=270, checkpoint_every=50)
    config.train.optimizer.update(learning_rate=1.5e-3, warmup_steps=50, decay_steps=490, ema_decay=0.995)
    config.sample.update(sampler="consistency", spacing="high-noise", num_steps=2)


def shrink(config: ConfigDict, depth: int, width: int, samples: int) -> None:
    """A model for two CPU cores that looks once along a ray, where the coarse colour is the colour."""
    config.data.update(num_threads=2, num_workers=0)
    config.model.encoder.update(depth=depth, width=width, num_heads=4, features=32, remat=False)
    config.model.conditioning_field.update(width=32, view_blocks=2, joint_blocks=1)
    config.model.scene_field.update(width=64, view_blocks=2, joint_blocks=1)
    config.model.ray_marching.update(num_coarse=samples, num_fine=0, num_conditioning=samples, chunk_size=1024)
    config.loss.update(coarse=0.0, lpips=0.0)


def train_for_minutes(config: ConfigDict) -> None:
    """On two CPU cores, what `shrink` leaves of a model."""
    config.loss.patch_size = 12
    config.train.update(num_steps=300, batch_size=4, checkpoint_every=100, log_every=10, sample_every=150)
    config.train.optimizer.update(learning_rate=1e-3, warmup_steps=30, decay_steps=270, ema_decay=0.99, ema_every=1)


# Of all data sets that know what is asked for.
OBSERVATIONS = {
    "grey": lambda it: partial_views(it, "grey", ""),
    "depth": lambda it: partial_views(it, "depth", "depth"),
    "silhouette": lambda it: partial_views(it, "silhouette", "opacity"),
    "masked": lambda it: partial_views(it, "masked", "random_masks"),
}
