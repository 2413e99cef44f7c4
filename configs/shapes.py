"""Procedural scenes whose hidden side, hidden shape and hidden neighbour follow known odds: ambiguity by design.

    python -m dfm_jax.main --config=configs/shapes.py --workdir=runs/shapes
    python -m dfm_jax.main --workdir=runs/shapes --mode=evaluate

Needs nothing: walls that hide what stands behind them are generated in `data.dir` (with `data.toy_scenes=0`, those of
`prepare --format=shapes` are taken). Modelled on Minens, the set of viewset diffusion, so that the same metrics
can be set side by side. 5400 steps take about an hour on two CPU cores (1.75 a second). Expect each hidden attribute
within what honest draws of its odds come to, and nine of ten samples to show one case (docs/evaluation.md).

Variants combine, as in `:tiny,lean`. `tiny` runs all of the program in a minute. `pixelnerf` is the deterministic
baseline; `resnet34` has its encoder. `fine` samples each ray twice, as published; `lean` too, but first with a small
proposal field. `masked`, `grey`, `depth` and `silhouette` train on target views that are no whole pictures in colour
(docs/forward-models.md).
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

from dfm_jax.config.variants import combine

from . import published


def get_config(variant: str = "") -> ConfigDict:
    config = group(seed=0, image_size=32)
    config.data = group(name="shapes", dir="data", split="train", eval_split="test", near=2.8, far=5.2)
    config.data.update(toy_scenes=4000, num_threads=2, prefetch=4)
    # Context: the front; targets: the back, then front or anywhere. This rule knows no gap.
    config.data.view_sampling = group(rule="toy", min_frame_gap=1, max_frame_gap=1, min_context=1, max_context=1)
    config.data.view_sampling.update(num_target=2, context_as_target_probability=0.25)
    config.model = group(name="radiance_field", rendered_features=16, estimate_size=12)
    config.model.encoder = group(name="dit", depth=3, width=96, num_heads=4, features=32)
    config.model.conditioning_field = group(width=32, view_blocks=2, joint_blocks=1, density_bias=0.4)
    config.model.scene_field = group(width=64, view_blocks=2, joint_blocks=1, density_bias=0.4)
    config.model.ray_marching = group(num_coarse=20, num_conditioning=12, chunk_size=1024)  # all rays at once
    config.diffusion = group(num_timesteps=1000, high_noise_fraction=0.5, high_noise_from=750)
    config.loss = group(estimate=1.0, pixels="random", patch_size=10)
    config.train = group(num_steps=5400, batch_size=16, log_every=20, sample_every=1800, checkpoint_every=100)
    adam = group(
        learning_rate=1.4e-3, warmup_steps=100, decay_steps=5300, b1=0.9, b2=0.99, clip_norm=1.0, ema_decay=0.998
    )
    config.train.update(keep_checkpoints=2, optimizer=adam)
    config.sample = group(num_scenes=4, num_samples=6, video_frames=24, video_path="orbit")
    published.few_steps(config, 20)
    # A photograph without a camera: the set's own.
    config.sample.update(context_cache_gb=4.0, photograph=group(focal_length=1.65, near=2.8, far=5.2))
    config.sample.target_camera = group(azimuth=180.0, elevation=20.0, distance=4.0)
    config.evaluate = group(num_scenes=120, num_target=4, num_samples=6)
    return combine(config, variant, *VARIANTS)


def tiny(config: ConfigDict) -> None:
    config.model.encoder.update(depth=2, width=48)
    config.model.ray_marching.update(num_coarse=8, num_conditioning=8)
    config.data.toy_scenes, config.loss.patch_size = 64, 6
    config.train.update(num_steps=60, batch_size=4, checkpoint_every=20, log_every=10, sample_every=60)
    config.train.optimizer.update(warmup_steps=10, decay_steps=50)
    config.sample.update(num_scenes=2, num_samples=2, num_steps=4, video_frames=8, scenes_in_3d=0)
    config.evaluate.update(num_scenes=8, num_target=2, num_samples=2)


VARIANTS = (
    {"tiny": tiny},
    {"pixelnerf": published.pixelnerf, **published.OBSERVATIONS},
    {"resnet34": lambda it: published.resnet34(it, base=8)},
    {"lean": lambda it: published.lean(it, num_fine=10), "fine": lambda it: published.fine(it, num_fine=16)},
)
