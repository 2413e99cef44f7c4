"""Your own photographs: captures whose cameras are known, each scaled alike and with bounds of its own.

    python -m dfm_jax.data.prepare --format=transforms --source=DIR --data_dir=data --name=captures
    python -m dfm_jax.main --config=configs/captures.py --workdir=runs/captures
    python -m dfm_jax.main --workdir=runs/captures --mode=sample

`--format=colmap` and `--format=middlebury` go the same way. Every 8th photograph of a capture is kept from training
(`prepare --holdout`); `--mode=sample` shows photographs next to it, and compares what it makes with the truth:
`target_psnr` and `estimate_psnr` in `samples/samples.json`. Data sets with a split of their own for that (Blender's)
are sampled with `--config.data.eval_split=test`.

The prior that is learned is that of the captures it has seen: a single one is fitted, many alike are needed to imagine
what a photograph of another place hides. Needs an accelerator of 24 GB.

`configs/captures.py:tiny` is a small model for two CPU cores; it takes minutes and learns colours and rough shapes.
Expect, after 300 steps on instant-ngp's fox (43 photographs, 4 of those held out compared), 18.4 dB for the estimate
and 17.9 dB for samples, where the given photograph itself is at 13.3 dB of the truth:

    python -m dfm_jax.main --config=configs/captures.py:tiny --workdir=runs/captures_tiny

Variants combine, as in `:tiny,lean`: `64` (pixels) or `tiny`; `resnet34`, the encoder of pixelNeRF; `lean`, faster by a
small proposal field, or `fine`, the published way to look at rays, for `tiny`.
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

from dfm_jax.config.variants import combine

from . import published


def get_config(variant: str = "64") -> ConfigDict:
    config = published.recipe()
    config.data.update(name="captures", eval_split="train", near=0.0, far=0.0, num_workers=2)  # each scene's own bounds
    # Gaps are places among the neighbours: half of a ring of 16 photographs.
    config.data.view_sampling.update(rule="captures", min_frame_gap=1, max_frame_gap=8, max_context=3)
    config.data.view_sampling.update(flip_probability=0.5, scale_jitter=0.1)  # what `prepare` makes alike is not quite
    config.model.rendered_features = 32
    config.model.encoder.update(depth=12, width=384, num_heads=6, features=128)
    config.model.conditioning_field.update(width=128, density_bias=0.2)
    config.model.scene_field.update(width=256, density_bias=0.2)
    config.model.ray_marching.update(num_coarse=48, num_fine=48, chunk_size=512)
    config.loss.update(distortion=0.005, smoothness=0.002)
    config.loss.lpips = 0.0  # 1.0 is sharper, and needs its weights: `make lpips-weights`
    config.train.update(num_steps=50_000, keep_every=0)
    config.train.optimizer.update(learning_rate=2e-4, decay_steps=50_000, ema_every=1)
    config.sample.num_scenes = 6  # views
    # A photograph without a camera: of a phone; a step around what stands ahead.
    config.sample.photograph = group(focal_length=1.1, near=1.0, far=40.0)
    config.sample.target_camera = group(azimuth=30.0, distance=4.0)
    config.evaluate.update(num_scenes=24, num_target=2)  # views
    return combine(config, variant, *VARIANTS)


def tiny(config: ConfigDict) -> None:
    """Some minutes on two CPU cores."""
    published.shrink(config, depth=3, width=96, samples=24)
    config.image_size = 32
    config.data.view_sampling.max_context = 1
    config.model.update(rendered_features=16, estimate_size=16)
    published.train_for_minutes(config)
    config.sample.update(num_scenes=4, num_samples=2, num_steps=20, video_frames=24)
    config.evaluate.update(num_scenes=4, num_samples=2)


VARIANTS = (
    {"64": None, "tiny": tiny},
    {"resnet34": published.resnet34},
    {"lean": published.lean, "fine": published.fine},
)
