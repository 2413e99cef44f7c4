"""Procedural scenes on two CPU cores: the embedded default.

    python -m dfm_jax.main --config=configs/toy.py --workdir=runs/toy
    python -m dfm_jax.main --config=configs/toy.py --workdir=runs/toy --mode=sample

Needs nothing: the data set (a box on a disc, whose back has a random colour that the front does not tell) is generated
in `data.dir` in some seconds, under a name that says what is in it, `toy-2000-24px`; one that `prepare --format=toy`
made is taken if it holds what is asked for, or, with `data.toy_scenes=0`, whatever it holds. Trains in about six
minutes. Expect the context view re-rendered at 24 dB or better (24.7 in the pictures of `make demo`), and the hidden
side red, green or blue in about 0.5, 0.3 and 0.2 of the samples, in one colour each.

`configs/toy.py:tiny` runs all of the program in about a minute and learns little. `configs/toy.py:resnet34` has the
encoder of pixelNeRF in the place of the transformer, as narrow as fits two cores. `configs/toy.py:fine` looks at each
ray twice, as the published model does, and `configs/toy.py:lean` as well, but first with a small proposal field.
`configs/toy.py:calibrated` trains for half an hour, and knows guidance.
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

VARIANTS = ("", "calibrated", "pixelnerf", "tiny", "resnet34", "pixelnerf-resnet34", "lean", "fine")


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/toy.py has no variant '{variant}', only {', '.join(VARIANTS[1:])}")
    config = group()
    config.seed = 0
    config.image_size = 24
    config.init_from = ""
    config.init_rule = "same"
    config.data = group(
        name="toy",
        dir="data",
        split="train",
        eval_split="test",
        near=2.6,
        far=5.5,
        toy_scenes=2000,
        view_sampling=group(
            rule="toy",  # context: the front; targets: the back, then front or anywhere
            min_frame_gap=1,  # the toy rule knows no gap
            max_frame_gap=1,
            min_context=1,
            max_context=1,
            num_target=2,
            flip_probability=0.0,
            scale_jitter=0.0,
            again_probability=0.0,
        ),
        num_threads=2,
        num_workers=0,
        prefetch=4,
    )
    config.model = group(
        name="radiance_field",
        pixel_grid="centres",
        compute_dtype="float32",
        rendered_features=16,
        estimate_size=8,
        encoder=group(
            name="dit",
            depth=3,
            width=96,
            num_heads=4,
            features=32,
            absolute_pose=False,
            position_grid=0,
            remat=False,
            init_file="",
        ),
        conditioning_field=group(width=32, view_blocks=2, joint_blocks=1, density_bias=0.4),
        scene_field=group(width=64, view_blocks=2, joint_blocks=1, density_bias=0.4),
        proposal=None,
        # The chunk holds all rays of an image: at this size nothing need be computed twice to save memory.
        ray_marching=group(num_coarse=12, num_fine=0, num_conditioning=12, chunk_size=1024, background=0.0),
    )
    config.diffusion = group(
        num_timesteps=1000,
        guidance_dropout=0.0,  # guidance is not needed here
        high_noise_fraction=0.5,  # whether the hidden side is red, green or blue is decided at 850 to 980
        high_noise_from=800,
    )
    config.loss = group(
        estimate=1.0,
        coarse=0.0,  # without a fine pass the coarse colour is the colour
        interlevel=0.0,
        distortion=0.0,
        smoothness=0.0,
        lpips=0.0,
        pixels="random",
        patch_size=8,
    )
    config.train = group(
        num_steps=1600,
        batch_size=8,
        accumulate=1,
        checkpoint_every=200,
        checkpoint_minutes=0.0,
        keep_checkpoints=2,
        keep_every=0,
        keep_best="",
        watchdog_minutes=0.0,
        log_every=20,
        sample_every=800,
        optimizer=group(
            learning_rate=1e-3,
            warmup_steps=100,
            decay_steps=1500,
            b1=0.9,
            b2=0.99,
            clip_norm=1.0,
            ema_decay=0.999,
            ema_every=1,
            ema_memory="device",
            first_moment_dtype="float32",
            skip_spikes=0.0,
        ),
        mesh=group(data=-1, fsdp=1),
    )
    config.sample = group(
        num_scenes=4,
        num_samples=6,
        sampler="ddim",
        num_steps=30,
        spacing="uniform",
        guidance=1.0,
        guidance_from=0.0,
        guidance_to=1.0,
        guidance_rescale=0.0,
        guidance_parallel=1.0,
        guidance_momentum=0.0,
        guidance_bound=0.0,
        temperature=1.0,
        threshold_quantile=1.0,
        context_memory=4.0,
        autoregressive_step=0,
        video_frames=24,
        video_path="orbit",
        # A photograph without a camera: the toy's own.
        photograph=group(focal_length=1.41, near=2.6, far=5.5),
        target_camera=group(azimuth=180.0, elevation=28.0, distance=4.0, forward=0.0),
    )
    config.evaluate = group(
        protocol="",
        num_scenes=120,
        num_target=4,
        num_samples=6,
        inception_file="",
        sweep_samples=240,
    )
    if variant.endswith("resnet34"):
        config.model.encoder = group(name="resnet34", base=8, absolute_pose=False, remat=False, init_file="")
    if variant == "calibrated":
        make_calibrated(config)
    if variant.startswith("pixelnerf"):
        make_deterministic(config)
    if variant == "lean":
        make_lean(config)
    if variant == "fine":
        config.model.ray_marching.num_fine = 12
        config.loss.coarse = 0.1
    if variant == "tiny":
        make_tiny(config)
    return config


def make_calibrated(config: ConfigDict) -> None:
    """About half an hour on two CPU cores."""
    config.data.view_sampling.again_probability = 0.25
    config.model.ray_marching.num_coarse = 16
    config.diffusion.guidance_dropout = 0.1  # to show what guidance does
    config.train.update(num_steps=6000, sample_every=2000)
    config.train.optimizer.decay_steps = 5900
    config.sample.update(sampler="dpm-solver++", num_steps=15, spacing="log-snr")


def make_deterministic(config: ConfigDict) -> None:
    """The same without diffusion: pixelNeRF, the baseline."""
    config.model.name = "pixelnerf"
    config.model.conditioning_field = None
    config.model.estimate_size = 0
    config.model.ray_marching.num_conditioning = 0
    config.loss.estimate = 0.0
    config.diffusion.high_noise_fraction = 0.0
    config.sample.update(num_samples=1, num_steps=1)
    config.evaluate.num_samples = 1


def make_lean(config: ConfigDict) -> None:
    """A small proposal field says where to look, in place of a coarse field as large as the fine one (ours)."""
    config.model.proposal = group(width=16, view_blocks=1, joint_blocks=1, density_bias=0.4)
    config.model.ray_marching.num_fine = 8
    config.loss.update(coarse=0.0, interlevel=1.0)


def make_tiny(config: ConfigDict) -> None:
    """About a minute on two CPU cores, most of it compilation."""
    config.data.toy_scenes = 64
    config.model.encoder.update(depth=2, width=48)
    config.model.ray_marching.update(num_coarse=8, num_conditioning=8)
    config.loss.patch_size = 6
    config.train.update(num_steps=60, batch_size=4, checkpoint_every=20, log_every=10, sample_every=60)
    config.train.optimizer.update(warmup_steps=10, decay_steps=50)
    config.sample.update(num_scenes=2, num_samples=2, num_steps=4, video_frames=8)
    config.evaluate.update(num_scenes=8, num_target=2, num_samples=2, sweep_samples=8)
