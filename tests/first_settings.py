"""Settings as a run saved them before any was added, and checkpoints of such runs."""

import json

# Of configs/toy.py:tiny, at that time.
FIRST = {
    "data": {
        "dir": "data",
        "eval_split": "test",
        "far": 5.5,
        "name": "toy",
        "near": 2.6,
        "num_threads": 2,
        "num_workers": 0,
        "prefetch": 4,
        "split": "train",
        "toy_scenes": 64,
        "view_sampling": {
            "flip_probability": 0.0,
            "max_context": 1,
            "max_frame_gap": 1,
            "min_context": 1,
            "min_frame_gap": 1,
            "num_target": 2,
            "rule": "toy",
            "scale_jitter": 0.0,
        },
    },
    "diffusion": {"guidance_dropout": 0.0, "high_noise_fraction": 0.5, "high_noise_from": 800, "num_timesteps": 1000},
    "image_size": 24,
    "init_from": "",
    "loss": {"coarse": 0.0, "distortion": 0.0, "estimate": 1.0, "patch_size": 6, "pixels": "random", "smoothness": 0.0},
    "model": {
        "compute_dtype": "float32",
        "conditioning_field": {"density_bias": 0.4, "joint_blocks": 1, "view_blocks": 2, "width": 32},
        "encoder": {"absolute_pose": False, "depth": 2, "features": 32, "num_heads": 4, "remat": False, "width": 48},
        "estimate_size": 12,
        "pixel_grid": "centres",
        "ray_marching": {"background": 0.0, "chunk_size": 1024, "num_coarse": 8, "num_conditioning": 8, "num_fine": 0},
        "rendered_features": 16,
        "scene_field": {"density_bias": 0.4, "joint_blocks": 1, "view_blocks": 2, "width": 64},
    },
    "sample": {
        "guidance": 1.0,
        "num_samples": 2,
        "num_scenes": 2,
        "num_steps": 4,
        "temperature": 1.0,
        "threshold_quantile": 1.0,
        "video_frames": 8,
        "video_path": "orbit",
    },
    "seed": 0,
    "train": {
        "accumulate": 1,
        "batch_size": 4,
        "checkpoint_every": 20,
        "keep_checkpoints": 2,
        "log_every": 10,
        "mesh": {"data": -1, "fsdp": 1},
        "num_steps": 60,
        "optimizer": {
            "b1": 0.9,
            "b2": 0.99,
            "clip_norm": 1.0,
            "decay_steps": 50,
            "ema_decay": 0.999,
            "ema_every": 1,
            "learning_rate": 0.001,
            "warmup_steps": 10,
        },
        "sample_every": 60,
    },
}

# What runs did before each of these settings could be made.
ADDED = {
    "init_rule": "same",
    "data.view_sampling.context_as_target_probability": 0.0,
    "data.view_sampling.roll": 0.0,
    "data.measured": "",
    "model.name": "radiance_field",
    "model.encoder.name": "dit",
    "model.encoder.init_file": "",
    "model.encoder.position_grid": 0,
    "model.proposal": None,
    "loss.interlevel": 0.0,
    "loss.lpips": 0.0,
    "loss.prior": 0.0,
    "train.checkpoint_minutes": 0.0,
    "train.keep_every": 0,
    "train.keep_best": "",
    "train.watchdog_minutes": 0.0,
    "train.optimizer.ema_memory": "device",
    "train.optimizer.first_moment_dtype": "float32",
    "train.optimizer.skip_spikes": 0.0,
    "sample.sampler": "ddim",
    "sample.spacing": "uniform",
    "sample.guidance_from": 0.0,
    "sample.guidance_to": 1.0,
    "sample.guidance_rescale": 0.0,
    "sample.guidance_parallel": 1.0,
    "sample.guidance_momentum": 0.0,
    "sample.guidance_bound": 0.0,
    "sample.autoregressive_step": 0,
    "sample.context_cache_gb": 0.0,
    "sample.reference_scenes": 24,
    "sample.scenes_in_3d": 1,
    "evaluate.index": "",
    "evaluate.num_scenes": 1,
    "evaluate.num_target": 1,
    "evaluate.num_samples": 1,
    "evaluate.inception_file": "",
    "evaluate.sweep_samples": 0,
}


def forget_settings(checkpoint, *names):
    """Makes a checkpoint one of a run that knew nothing of these settings, nor of checksums."""
    (checkpoint / "checksums.json").unlink(missing_ok=True)
    file = checkpoint / "config" / "metadata"
    settings = json.loads(file.read_text())
    for name in names:
        *path, field = name.split(".")
        group = settings
        for part in path:
            group = group[part]
        del group[field]
    file.write_text(json.dumps(settings))
