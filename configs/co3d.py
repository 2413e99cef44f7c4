"""CO3D: one to three photographs of an object, and the objects they could show. The paper's recipe.

Three stages: a deterministic pixelNeRF, then diffusion at 64 and at 128 pixels, each from the one before.

    python -m dfm_jax.main --config=configs/co3d.py:pixelnerf --workdir=runs/co3d_pixelnerf
    python -m dfm_jax.main --config=configs/co3d.py:64 --workdir=runs/co3d_64 \
        --config.init_from=runs/co3d_pixelnerf --config.init_rule=pixelnerf
    python -m dfm_jax.main --config=configs/co3d.py:128 --workdir=runs/co3d_128 --config.init_from=runs/co3d_64
    python -m dfm_jax.main --workdir=runs/co3d_128 --mode=sample

Needs a data set `data/co3d` of one category with a `train` and a `test` split, its scenes divided by their scale (the
mean over frames of the median foreground depth) and multiplied by 10, accelerators of 80 GB, and the weights of LPIPS
(`make lpips-weights`; or train without, --config.loss.lpips=0). The published runs took the 500 best sequences of a
category, 8 A100 and 7 days; 128 x 128 with batch 1 was reported not to fit 80 GB. Expect, on hydrants, PSNR
17.47, LPIPS 0.42 and FID 84.63 (the published figures, as cited by later work; pixelNeRF: 17.93, 0.54 and 180.20).

Variants combine, as in `:128,lean`. `64` and `128` are pixels; `tiny` is a small model of the same form for two CPU
cores and a few sequences. `pixelnerf` is the first stage. `resnet34` has pixelNeRF's encoder in the place of the
transformer; either can start from ImageNet weights: --config.model.encoder.init_file=FILE, torchvision's
`resnet34-b627a593.pth` or `DiT-XL-2-256x256.pt`. `lean` is faster: a small proposal field in the place of the coarse
one, and half of the samples; `fine` is the published way to look at rays, for `tiny`.
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

from dfm_jax.config.variants import combine

from . import published


def get_config(variant: str = "64") -> ConfigDict:
    config = published.recipe()
    config.data.update(name="co3d", near=0.5, far=40.0)  # sampling as published: --config.data.near=1.0
    # The gap between frames is (20 to 40) * 3.
    config.data.view_sampling.update(rule="co3d", min_frame_gap=60, max_frame_gap=120, max_context=3, scale_jitter=0.2)
    config.model.encoder.absolute_pose = True
    config.model.ray_marching.num_conditioning = 64
    config.loss.lpips = 0.2
    config.train.batch_size = 8  # 1 for each of 8 devices
    config.sample.autoregressive_step = 0  # long videos, as published: 41
    config.sample.video_path = "dataset"
    # A photograph without a camera: of a phone held upright; a quarter around the object.
    config.sample.photograph = group(focal_length=1.4, near=0.5, far=40.0)
    config.sample.target_camera = group(azimuth=90.0, elevation=15.0, distance=10.0)
    config.evaluate.index = ""  # 'configs/protocols/co3d.json': as published
    return combine(config, variant, *VARIANTS)


def tiny(config: ConfigDict) -> None:
    """About a minute on two CPU cores, for sequences of ten frames or more."""
    published.shrink(config, depth=2, width=48, samples=12)
    config.image_size = 24
    config.data.view_sampling.update(min_frame_gap=1, max_frame_gap=4)
    config.model.update(rendered_features=16, estimate_size=12)
    config.loss.patch_size = 8
    config.train.update(num_steps=60, batch_size=2, checkpoint_every=20, log_every=10, sample_every=60)
    config.train.optimizer.update(learning_rate=1e-3, warmup_steps=10, decay_steps=50, ema_decay=0.99, ema_every=1)
    config.sample.update(num_scenes=1, num_samples=2, num_steps=4, video_frames=8)
    config.evaluate.update(num_scenes=1, num_target=2, num_samples=2)


def pixelnerf(config: ConfigDict) -> None:
    """From two views; 16 scenes for each that diffusion takes."""
    published.pixelnerf(config)
    config.data.view_sampling.update(min_context=2, max_context=2)
    config.loss.patch_size = min(20, config.loss.patch_size)
    config.train.batch_size *= 16


VARIANTS = (
    {"64": None, "128": published.at_128, "tiny": tiny},
    {"pixelnerf": pixelnerf},
    {"resnet34": published.resnet34},
    {"lean": published.lean, "fine": published.fine},
)
