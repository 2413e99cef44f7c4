"""ShapeNet-SRN cars: one picture of a car, and the cars that it could show.

    python -m dfm_jax.data.prepare --format=srn --source=DIR --data_dir=data
    python -m dfm_jax.main --config=configs/srn.py --workdir=runs/srn
    python -m dfm_jax.main --workdir=runs/srn --mode=sample

DIR holds `cars_train`, `cars_val` and `cars_test` as pixelNeRF's users have them: 128 x 128 pixels on white, seen from
a distance of 1.3. Rays run from 0.8 to 1.8, as with pixelNeRF and viewset diffusion; for chairs say
--config.data.near=1.25 and --config.data.far=2.75. Figures that were published for this model: none are known. Viewset
diffusion, the nearest peer with code, takes two accelerators of 48 GB; what this takes was not measured.

Variants combine, as in `:tiny,lean`. `128` is the published size; `tiny` is a small model for two CPU cores and few
cars, which learns colours and rough shapes in minutes. `pixelnerf` is the deterministic baseline; `resnet34` has its
encoder in the place of the transformer. `lean` is faster by a small proposal field; `fine` is the published way, for
`tiny`.
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

from dfm_jax.config.variants import combine

from . import published


def get_config(variant: str = "128") -> ConfigDict:
    config = published.recipe()
    config.image_size = 128
    config.data.update(name="srn", near=0.8, far=1.8)
    # Views are in no order: gaps are places among the neighbours, half of the 50 of a training car.
    config.data.view_sampling.update(rule="captures", min_frame_gap=1, max_frame_gap=25, max_context=2)
    config.model.update(rendered_features=32, estimate_size=128)
    config.model.encoder.update(depth=12, width=384, num_heads=6, features=128)
    config.model.conditioning_field.update(width=128, density_bias=0.2)
    config.model.scene_field.update(width=256, density_bias=0.2)
    config.model.ray_marching.update(num_coarse=64, num_fine=64, chunk_size=512, background=1.0)
    config.loss.lpips = 0.0  # 1.0 is sharper, and needs its weights: `make lpips-weights`
    config.train.update(num_steps=100_000, keep_every=0)
    config.train.optimizer.update(learning_rate=2e-4, decay_steps=100_000, ema_every=1)
    # A picture without a camera: as the set's own; a quarter around the car.
    config.sample.photograph = group(focal_length=131.25 / 128, near=0.8, far=1.8)
    config.sample.target_camera = group(azimuth=90.0, distance=1.3)
    return combine(config, variant, *VARIANTS)


def tiny(config: ConfigDict) -> None:
    """Some minutes on two CPU cores."""
    published.shrink(config, depth=3, width=96, samples=24)
    config.image_size = 32
    config.data.view_sampling.max_context = 1
    config.model.update(rendered_features=16, estimate_size=16)
    published.train_for_minutes(config)
    config.sample.update(num_scenes=2, num_samples=2, num_steps=20, video_frames=24)
    config.evaluate.update(num_scenes=2, num_target=2, num_samples=2)


VARIANTS = (
    {"128": None, "tiny": tiny},
    {"pixelnerf": published.pixelnerf},
    {"resnet34": published.resnet34},
    {"lean": published.lean, "fine": published.fine},
)
