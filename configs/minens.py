"""Minens: one side of a figure, and the other sides that it could have. Viewset diffusion's set, made for ambiguity.

    python -m dfm_jax.data.prepare --format=minens --source=DIR --data_dir=data
    python -m dfm_jax.main --config=configs/minens.py --workdir=runs/minens
    python -m dfm_jax.main --workdir=runs/minens --mode=sample

DIR holds the arrays that viewset diffusion's scripts make, `imgs_training.npy`, `cameras_training.npy`, ...: figures
of 48 x 48 pixels, whose rays run from 3.5 to 6.5. Published figures: none are known here, for this model or others.
Viewset diffusion measures the best of 1, 5, 10, 20 and 100 samples of 200 examples, and the PSNR of the mean of
samples, after 200,000 steps on one accelerator of 24 GB; what this takes was not measured. Test pictures have
backgrounds of several colours, where training pictures lie on white.

Variants combine, as in `:tiny,lean`. `48` is the published size; `tiny` is a small model for two CPU cores and few
figures, which learns colours and rough shapes in minutes. `pixelnerf` is the deterministic baseline; `resnet34` has its
encoder in the place of the transformer. `lean` is faster by a small proposal field; `fine` is the published way, for
`tiny`.
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

from dfm_jax.config.variants import combine

from . import published


def get_config(variant: str = "48") -> ConfigDict:
    config = published.recipe()
    config.image_size = 48
    config.data.update(name="minens", near=3.5, far=6.5)
    config.data.view_sampling.update(rule="captures", min_frame_gap=1, max_frame_gap=3)  # all other views of a figure
    config.model.update(rendered_features=32, estimate_size=48)
    config.model.encoder.update(depth=12, width=384, num_heads=6, features=128)
    config.model.conditioning_field.update(width=128, density_bias=0.2)
    config.model.scene_field.update(width=256, density_bias=0.2)
    config.model.ray_marching.update(num_coarse=48, num_fine=48, chunk_size=512, background=1.0)
    config.loss.lpips = 0.0  # 1.0 is sharper, and needs its weights: `make lpips-weights`
    config.train.update(num_steps=200_000, batch_size=16, keep_every=0)
    config.train.optimizer.update(learning_rate=2e-4, decay_steps=200_000, ema_every=1)
    # A picture without a camera: as the set's own; half around the figure.
    config.sample.photograph = group(focal_length=3.798, near=3.5, far=6.5)
    config.sample.target_camera = group(azimuth=180.0, distance=5.0)
    config.evaluate.update(num_scenes=200, num_target=2)  # of the few views of a figure
    return combine(config, variant, *VARIANTS)


def tiny(config: ConfigDict) -> None:
    """Some minutes on two CPU cores."""
    published.shrink(config, depth=3, width=96, samples=24)
    config.image_size = 24
    config.model.update(rendered_features=16, estimate_size=12)
    published.train_for_minutes(config)
    config.sample.update(num_scenes=2, num_samples=2, num_steps=20, video_frames=24)
    config.evaluate.update(num_scenes=2, num_samples=2)


VARIANTS = (
    {"48": None, "tiny": tiny},
    {"pixelnerf": published.pixelnerf},
    {"resnet34": published.resnet34},
    {"lean": published.lean, "fine": published.fine},
)
