"""RealEstate10K: one photograph of a room, and the rooms it could belong to. The paper's recipe, and a small one.

    python -m dfm_jax.data.prepare --format=realestate10k --source=DIR --data_dir=data
    python -m dfm_jax.main --config=configs/realestate10k.py:64 --workdir=runs/realestate10k_64
    python -m dfm_jax.main --config=configs/realestate10k.py:128 --workdir=runs/realestate10k_128 \
        --config.init_from=runs/realestate10k_64
    python -m dfm_jax.main --workdir=runs/realestate10k_64 --mode=sample

Needs the camera files and the frames (640 x 360 as published) of the clips, a `train` and a `test` split, accelerators
of 80 GB, and the weights of LPIPS (`make lpips-weights`; or train without, --config.loss.lpips=0); the published runs
took 8 A100 for 7 days. Expect, of 100 scenes at 64 x 64, FID 42.84 and KID 0.01 (the published figures, as cited by
later work; pixelNeRF: 195.4 and 0.14).

Variants combine, as in `:128,lean`. `64` and `128` are pixels; `tiny` is a small model for two CPU cores and few short
clips, all in a `test` split, which learns their colours and rough shapes in minutes. `pixelnerf` is the deterministic
baseline. `resnet34` has pixelNeRF's encoder in the place of the transformer; either can start from ImageNet weights:
--config.model.encoder.init_file=FILE, torchvision's `resnet34-b627a593.pth` or `DiT-XL-2-256x256.pt`. `lean` is faster:
a small proposal field in the place of the coarse one, and half of the samples; `fine` is the published way, for `tiny`.
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

from dfm_jax.config.variants import combine

from . import published


def get_config(variant: str = "64") -> ConfigDict:
    config = published.recipe()
    config.data.update(name="realestate10k", near=0.7, far=10.0)
    config.data.view_sampling.update(rule="realestate10k", min_frame_gap=100, max_frame_gap=180, flip_probability=0.5)
    config.loss.update(distortion=0.005, smoothness=0.002, lpips=1.0)
    config.train.batch_size = 24  # 3 for each of 8 devices
    config.sample.update(guidance=2.0, temperature=0.85)
    config.sample.autoregressive_step = 0  # long videos, as published: 150
    config.sample.video_path = "interpolate"
    # A photograph without a camera: 60 degrees; one step into the room.
    config.sample.photograph = group(focal_length=0.87, near=0.7, far=10.0)
    config.sample.target_camera = group(forward=1.0)
    config.evaluate.index = ""  # 'configs/protocols/realestate10k.json': as published
    return combine(config, variant, *VARIANTS)


def at_128(config: ConfigDict) -> None:
    published.at_128(config)
    config.train.batch_size = 16


def tiny(config: ConfigDict) -> None:
    """Some minutes on two CPU cores, for short clips."""
    published.shrink(config, depth=3, width=96, samples=16)
    config.image_size = 32
    config.data.split = "test"
    config.data.view_sampling.update(min_frame_gap=3, max_frame_gap=10)
    config.model.update(rendered_features=16, estimate_size=16)
    config.model.conditioning_field.density_bias = config.model.scene_field.density_bias = 0.2
    published.train_for_minutes(config)
    config.sample.update(num_scenes=3, num_samples=3, num_steps=20, guidance=1.0, temperature=1.0, video_frames=24)
    config.evaluate.update(num_scenes=3, num_target=2, num_samples=2)


VARIANTS = (
    {"64": None, "128": at_128, "tiny": tiny},
    {"pixelnerf": published.pixelnerf},
    {"resnet34": published.resnet34},
    {"lean": published.lean, "fine": published.fine},
)
