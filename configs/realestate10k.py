"""RealEstate10K: one photograph of a room, and the rooms it could belong to. The paper's recipe, and a small one.

    python -m dfm_jax.data.prepare --format=realestate10k --source=DIR --data_dir=data
    python -m dfm_jax.main --config=configs/realestate10k.py:64 --workdir=runs/realestate10k_64
    python -m dfm_jax.main --config=configs/realestate10k.py:128 --workdir=runs/realestate10k_128 \
        --config.init_from=runs/realestate10k_64
    python -m dfm_jax.main --config=configs/realestate10k.py:64 --workdir=runs/realestate10k_64 --mode=sample

Needs the camera files and the frames (640 x 360 as published) of the clips, a `train` and a `test` split, accelerators
of 80 GB, and the weights of LPIPS (`make lpips-weights`; or train without, --config.loss.lpips=0); the published runs
took 8 A100 for 7 days. Expect, of 100 scenes at 64 x 64, FID 42.84 and KID 0.01 (the published figures, as cited by
later work; pixelNeRF: 195.4 and 0.14).

Numbers are those of Tewari et al. 2023 (arXiv 2306.11719) and its released code, except where a comment says so.

`:pixelnerf-resnet34`, `:64-resnet34` and `:128-resnet34` have the encoder of pixelNeRF in the place of the transformer.
Either encoder can start from ImageNet weights: --config.model.encoder.init_file=FILE, torchvision's
`resnet34-b627a593.pth` or, for the transformer, `DiT-XL-2-256x256.pt`.

Variants that end in `-lean` are faster: a small proposal field in the place of the coarse one, and half of the samples.
`:tiny-fine` is the published way to look at rays, at the size of `:tiny`.

`configs/realestate10k.py:pixelnerf` is the deterministic baseline of the same size. `configs/realestate10k.py:tiny` is
a small model for two CPU cores and few short clips, all in a `test` split; it takes minutes and learns the colours and
rough shapes of those clips:

    python -m dfm_jax.main --config=configs/realestate10k.py:tiny --workdir=runs/realestate10k_tiny
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

VARIANTS = (
    "pixelnerf",
    "64",
    "128",
    "tiny",
    "pixelnerf-resnet34",
    "64-resnet34",
    "128-resnet34",
    "64-lean",
    "128-lean",
    "tiny-lean",
    "tiny-fine",
)


def get_config(variant: str = "64") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/realestate10k.py has no variant '{variant}', only {', '.join(VARIANTS)}")
    size = variant.split("-")[0]
    config = group()
    config.seed = 0
    config.image_size = 128 if size == "128" else 64
    config.init_from = ""
    config.init_rule = "same"
    config.data = group(
        name="realestate10k",
        dir="data",
        split="train",
        eval_split="test",
        near=0.7,
        far=10.0,
        toy_scenes=0,
        view_sampling=group(
            rule="realestate10k",
            min_frame_gap=100,
            max_frame_gap=180,
            min_context=1,
            max_context=1,
            num_target=2,
            flip_probability=0.5,
            scale_jitter=0.0,
            again_probability=0.0,
        ),
        num_threads=16,
        num_workers=4,
        prefetch=4,
    )
    config.model = group(
        name="radiance_field",
        pixel_grid="centres",  # published: 'corners'
        compute_dtype="float32",  # 'bfloat16' where the accelerator has it: faster, and less memory
        rendered_features=64,
        estimate_size=config.image_size,
        # DiT-XL/2
        encoder=group(
            name="dit",
            depth=28,
            width=1152,
            num_heads=16,
            features=512,
            absolute_pose=False,
            # `:128` goes on from `:64`, whose 16 tokens a side it keeps the codes of; published: 0
            position_grid=16 if size == "128" else 0,
            remat=True,
            init_file="",
        ),
        conditioning_field=group(width=512, view_blocks=3, joint_blocks=2, density_bias=0.0),
        scene_field=group(width=512, view_blocks=3, joint_blocks=2, density_bias=0.0),
        proposal=None,
        ray_marching=group(num_coarse=64, num_fine=64, num_conditioning=32, chunk_size=128, background=0.0),
    )
    config.diffusion = group(
        num_timesteps=1000,
        guidance_dropout=0.1,
        high_noise_fraction=0.0,  # all timesteps alike
        high_noise_from=0,
    )
    config.loss = group(
        estimate=1.0,
        coarse=0.1,  # ours: the published code leaves the coarse field untrained; weight as in mip-NeRF
        interlevel=0.0,
        distortion=0.005,
        smoothness=0.002,
        lpips=1.0,  # needs its weights: `make lpips-weights`
        pixels="patch",
        patch_size=24,
    )
    config.train = group(
        num_steps=1_000_000,  # more than a week of 8 A100; the published number is not stated
        batch_size=16 if size == "128" else 24,  # 2 or 3 for each of 8 devices
        accumulate=1,
        checkpoint_every=2000,
        checkpoint_minutes=20.0,
        keep_checkpoints=3,
        keep_every=100_000,
        keep_best="",
        watchdog_minutes=30.0,
        log_every=100,
        sample_every=5000,
        optimizer=group(
            learning_rate=2e-5,
            warmup_steps=1000,
            decay_steps=7_000_000,
            b1=0.9,
            b2=0.99,
            clip_norm=1.0,
            ema_decay=0.995,
            ema_every=10,
            ema_memory="device",
            first_moment_dtype="float32",
            skip_spikes=0.0,
        ),
        mesh=group(data=-1, fsdp=1),
    )
    config.sample = group(
        num_scenes=8,
        num_samples=4,
        sampler="ddim",
        num_steps=50,
        spacing="uniform",
        guidance=2.0,
        guidance_from=0.0,
        guidance_to=1.0,
        guidance_rescale=0.0,
        guidance_parallel=1.0,
        guidance_momentum=0.0,
        guidance_bound=0.0,
        temperature=0.85,
        threshold_quantile=0.95,
        context_memory=4.0,
        autoregressive_step=0,  # long videos, as published: 150
        video_frames=60,
        video_path="interpolate",
        # A photograph without a camera: 60 degrees; one step into the room.
        photograph=group(focal_length=0.87, near=0.7, far=10.0),
        target_camera=group(azimuth=0.0, elevation=0.0, distance=0.0, forward=1.0),
    )
    config.evaluate = group(
        protocol="",  # 'configs/protocols/realestate10k.json': as published
        num_scenes=100,
        num_target=4,
        num_samples=4,
        inception_file="",
        sweep_samples=0,
    )
    if variant.endswith("-resnet34"):
        config.model.encoder = group(name="resnet34", base=64, absolute_pose=False, remat=False, init_file="")
    if size == "pixelnerf":
        make_deterministic(config)
    if size == "tiny":
        make_tiny(config)
    if variant == "tiny-fine":
        config.model.ray_marching.num_fine = 16
        config.loss.coarse = 0.1
    if variant.endswith("-lean"):
        make_lean(config)
    return config


def make_deterministic(config: ConfigDict) -> None:
    """The same at 64 pixels without diffusion: pixelNeRF, the baseline."""
    config.model.name = "pixelnerf"
    config.model.conditioning_field = None
    config.model.estimate_size = 0
    config.model.ray_marching.num_conditioning = 0
    config.loss.update(estimate=0.0, lpips=0.0)
    config.diffusion.guidance_dropout = 0.0
    config.sample.update(num_samples=1, num_steps=1, guidance=1.0)
    config.evaluate.num_samples = 1


def make_lean(config: ConfigDict) -> None:
    """Ours: a small proposal field says where to look, in place of a coarse field as large as the fine one."""
    field, marching = config.model.scene_field, config.model.ray_marching
    config.model.proposal = group(
        width=field.width // 4, view_blocks=1, joint_blocks=1, density_bias=field.density_bias
    )
    marching.num_fine = max(1, marching.num_coarse // 2)
    config.loss.update(coarse=0.0, interlevel=1.0)


def make_tiny(config: ConfigDict) -> None:
    """Some minutes on two CPU cores, for short clips."""
    config.image_size = 32
    config.data.update(split="test", num_threads=2, num_workers=0)
    config.data.view_sampling.update(min_frame_gap=3, max_frame_gap=10)
    config.model.update(rendered_features=16, estimate_size=16)
    config.model.encoder.update(depth=3, width=96, num_heads=4, features=32, remat=False)
    config.model.conditioning_field.update(width=32, view_blocks=2, joint_blocks=1, density_bias=0.2)
    config.model.scene_field.update(width=64, view_blocks=2, joint_blocks=1, density_bias=0.2)
    config.model.ray_marching.update(num_coarse=16, num_fine=0, num_conditioning=16, chunk_size=1024)
    config.loss.update(coarse=0.0, lpips=0.0, patch_size=12)  # without a fine pass the coarse colour is the colour
    config.train.update(num_steps=300, batch_size=4, checkpoint_every=100, log_every=10, sample_every=150)
    config.train.optimizer.update(learning_rate=1e-3, warmup_steps=30, decay_steps=270, ema_decay=0.99, ema_every=1)
    config.sample.update(num_scenes=3, num_samples=3, num_steps=20, guidance=1.0, temperature=1.0, video_frames=24)
    config.evaluate.update(num_scenes=3, num_target=2, num_samples=2)
