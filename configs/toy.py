"""Procedural scenes on two CPU cores: the embedded default.

    python -m dfm_jax.main --config=configs/toy.py --workdir=runs/toy
    python -m dfm_jax.main --workdir=runs/toy --mode=sample

Needs nothing: boxes whose back has a colour that the front does not tell are generated in `data.dir` (with
`data.toy_scenes=0`, those of `prepare --format=toy` are taken). Trains in six minutes. Expect the context view at 24 dB
or better, and the hidden side red, green or blue in about 0.5, 0.3 and 0.2 of the samples.

Variants combine, as in `:tiny,lean`. `tiny` runs all of the program in a minute; `demo` is what `make demo` trains in
two; `calibrated` trains for half an hour, and knows guidance; `distilled` learns to sample as the model that ships in
one step or two. `pixelnerf` is the deterministic baseline; `resnet34` has its encoder. `fine` samples each ray twice,
as published; `lean` too, but first with a small proposal field. `masked`, `grey`, `depth` and `silhouette` train on
target views that are no whole pictures in colour (docs/forward-models.md).
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

from dfm_jax.config.variants import combine

from . import published


def get_config(variant: str = "") -> ConfigDict:
    config = group(seed=0, image_size=24)
    config.data = group(name="toy", dir="data", split="train", eval_split="test", near=2.6, far=5.5, toy_scenes=2000)
    config.data.update(num_threads=2, prefetch=4)
    # Context: the front; targets: the back, then front or anywhere. This rule knows no gap.
    config.data.view_sampling = group(rule="toy", min_frame_gap=1, max_frame_gap=1)
    config.data.view_sampling.update(min_context=1, max_context=1, num_target=2)
    config.model = group(name="radiance_field", rendered_features=16, estimate_size=8)
    config.model.encoder = group(name="dit", depth=3, width=96, num_heads=4, features=32)
    config.model.conditioning_field = group(width=32, view_blocks=2, joint_blocks=1, density_bias=0.4)
    config.model.scene_field = group(width=64, view_blocks=2, joint_blocks=1, density_bias=0.4)
    config.model.ray_marching = group(num_coarse=12, num_conditioning=12, chunk_size=1024)  # all rays at once
    config.diffusion = group(num_timesteps=1000, high_noise_fraction=0.5, high_noise_from=800)  # colours: 850 to 980
    config.loss = group(estimate=1.0, pixels="random", patch_size=8)
    config.train = group(num_steps=1600, batch_size=8, log_every=20, sample_every=800, checkpoint_every=200)
    adam = group(
        learning_rate=1e-3, warmup_steps=100, decay_steps=1500, b1=0.9, b2=0.99, clip_norm=1.0, ema_decay=0.999
    )
    config.train.update(keep_checkpoints=2, optimizer=adam)
    config.sample = group(num_scenes=4, num_samples=6, num_steps=30, video_frames=24, video_path="orbit")
    # A photograph without a camera: the toy's own.
    config.sample.update(context_cache_gb=4.0, photograph=group(focal_length=1.41, near=2.6, far=5.5))
    config.sample.target_camera = group(azimuth=180.0, elevation=28.0, distance=4.0)
    config.evaluate = group(num_scenes=120, num_target=4, num_samples=6, sweep_samples=240)
    return combine(config, variant, *VARIANTS)


def calibrated(config: ConfigDict) -> None:
    config.data.view_sampling.context_as_target_probability = 0.25
    config.model.ray_marching.num_coarse = 16
    config.diffusion.guidance_dropout = 0.1  # to show what guidance does
    config.train.num_steps, config.train.sample_every, config.train.optimizer.decay_steps = 6000, 2000, 5900
    published.few_steps(config, 15)


def distilled(config: ConfigDict) -> None:
    calibrated(config)
    published.distilled(config, teacher="toy")


def demo(config: ConfigDict) -> None:
    config.train.update(num_steps=400, sample_every=0)
    config.train.optimizer.update(learning_rate=1.5e-3, warmup_steps=50, decay_steps=350, ema_decay=0.99)
    published.few_steps(config, 15)


def tiny(config: ConfigDict) -> None:
    config.model.encoder.update(depth=2, width=48)
    config.model.ray_marching.update(num_coarse=8, num_conditioning=8)
    config.data.toy_scenes, config.loss.patch_size = 64, 6
    config.train.update(num_steps=60, batch_size=4, checkpoint_every=20, log_every=10, sample_every=60)
    config.train.optimizer.update(warmup_steps=10, decay_steps=50)
    config.sample.update(num_scenes=2, num_samples=2, num_steps=4, video_frames=8, scenes_in_3d=0)
    config.evaluate.update(num_scenes=8, num_target=2, num_samples=2, sweep_samples=8)


VARIANTS = (
    {"calibrated": calibrated, "distilled": distilled, "demo": demo, "tiny": tiny},
    {"pixelnerf": published.pixelnerf, **published.OBSERVATIONS},
    {"resnet34": lambda it: published.resnet34(it, base=8)},
    {"lean": lambda it: published.lean(it, num_fine=8), "fine": lambda it: published.fine(it, num_fine=12)},
)
