"""Your own photographs: captures whose cameras are known, each scaled alike and with bounds of its own.

    python -m dfm_jax.data.prepare --format=transforms --source=DIR --data_dir=data --name=captures
    python -m dfm_jax.main --config=configs/captures.py --workdir=runs/captures
    python -m dfm_jax.main --config=configs/captures.py --workdir=runs/captures --mode=sample

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
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group


def get_config(variant: str = "64") -> ConfigDict:
    if variant not in ("64", "tiny"):
        raise ValueError(f"configs/captures.py has no variant '{variant}', only ':64' and ':tiny'")
    config = group()
    config.seed = 0
    config.image_size = 64
    config.init_from = ""
    config.init_rule = "same"
    config.data = group(
        name="captures",
        dir="data",
        split="train",
        eval_split="train",
        near=0.0,  # each scene's own
        far=0.0,
        toy_scenes=0,
        view_sampling=group(
            rule="captures",
            min_frame_gap=1,  # places among the neighbours: half of a ring of 16 photographs
            max_frame_gap=8,
            min_context=1,
            max_context=3,
            num_target=2,
            flip_probability=0.5,
            scale_jitter=0.1,  # what `prepare` makes alike is not exactly so
            again_probability=0.0,
        ),
        num_threads=16,
        num_workers=2,
        prefetch=4,
    )
    config.model = group(
        name="radiance_field",
        pixel_grid="centres",
        compute_dtype="float32",  # 'bfloat16' where the accelerator has it: faster, and less memory
        rendered_features=32,
        estimate_size=64,
        encoder=group(
            name="dit",
            depth=12,
            width=384,
            num_heads=6,
            features=128,
            absolute_pose=False,
            position_grid=0,
            remat=True,
            init_file="",
        ),
        conditioning_field=group(width=128, view_blocks=3, joint_blocks=2, density_bias=0.2),
        scene_field=group(width=256, view_blocks=3, joint_blocks=2, density_bias=0.2),
        proposal=None,
        ray_marching=group(num_coarse=48, num_fine=48, num_conditioning=32, chunk_size=512, background=0.0),
    )
    config.diffusion = group(
        num_timesteps=1000,
        guidance_dropout=0.1,
        high_noise_fraction=0.0,  # all timesteps alike
        high_noise_from=0,
    )
    config.loss = group(
        estimate=1.0,
        coarse=0.1,
        interlevel=0.0,
        distortion=0.005,
        smoothness=0.002,
        lpips=0.0,  # 1.0 is sharper, and needs its weights: `make lpips-weights`
        pixels="patch",
        patch_size=24,
    )
    config.train = group(
        num_steps=50_000,
        batch_size=8,
        accumulate=1,
        checkpoint_every=2000,
        checkpoint_minutes=20.0,
        keep_checkpoints=3,
        keep_every=0,
        keep_best="",
        watchdog_minutes=30.0,
        log_every=100,
        sample_every=5000,
        optimizer=group(
            learning_rate=2e-4,
            warmup_steps=1000,
            decay_steps=50_000,
            b1=0.9,
            b2=0.99,
            clip_norm=1.0,
            ema_decay=0.995,
            ema_every=1,
            ema_memory="device",
            first_moment_dtype="float32",
            skip_spikes=0.0,
        ),
        mesh=group(data=-1, fsdp=1),
    )
    config.sample = group(
        num_scenes=6,  # views
        num_samples=4,
        sampler="ddim",
        num_steps=50,
        spacing="uniform",
        guidance=1.0,
        guidance_from=0.0,
        guidance_to=1.0,
        guidance_rescale=0.0,
        guidance_parallel=1.0,
        guidance_momentum=0.0,
        guidance_bound=0.0,
        temperature=1.0,
        threshold_quantile=0.95,
        context_memory=4.0,
        autoregressive_step=0,
        video_frames=60,
        video_path="interpolate",
        # A photograph without a camera: of a phone; a step around what stands ahead.
        photograph=group(focal_length=1.1, near=1.0, far=40.0),
        target_camera=group(azimuth=30.0, elevation=0.0, distance=4.0, forward=0.0),
    )
    config.evaluate = group(
        protocol="",
        num_scenes=24,  # views
        num_target=2,
        num_samples=4,
        inception_file="",
        sweep_samples=0,
    )
    if variant == "tiny":
        make_tiny(config)
    return config


def make_tiny(config: ConfigDict) -> None:
    """Some minutes on two CPU cores."""
    config.image_size = 32
    config.data.update(num_threads=2, num_workers=0)
    config.data.view_sampling.update(max_context=1)
    config.model.update(rendered_features=16, estimate_size=16)
    config.model.encoder.update(depth=3, width=96, num_heads=4, features=32, remat=False)
    config.model.conditioning_field.update(width=32, view_blocks=2, joint_blocks=1)
    config.model.scene_field.update(width=64, view_blocks=2, joint_blocks=1)
    config.model.ray_marching.update(num_coarse=24, num_fine=0, num_conditioning=24, chunk_size=1024)
    config.loss.update(coarse=0.0, patch_size=12)  # without a fine pass the coarse colour is the colour
    config.train.update(num_steps=300, batch_size=4, checkpoint_every=100, log_every=10, sample_every=150)
    config.train.optimizer.update(learning_rate=1e-3, warmup_steps=30, decay_steps=270, ema_decay=0.99)
    config.sample.update(num_scenes=4, num_samples=2, num_steps=20, video_frames=24)
    config.evaluate.update(num_scenes=4, num_samples=2)
