"""Motion from one frame: a dense motion field is sampled, and the frame warped along it; on two CPU cores.

    python -m dfm_jax.main --config=configs/motion.py --workdir=runs/motion
    python -m dfm_jax.main --workdir=runs/motion --mode=evaluate
    python -m dfm_jax.main --workdir=runs/motion --mode=sample

Needs nothing: frames of a disc on a textured ground are made as they are read. Training sees pairs of frames and never
a flow. A frame does not tell whether the disc will go up (0.5), down to the left (0.3) or down to the right (0.2), nor
how fast. Trains in four minutes. Expect a `total_variation` of the directions of at most 0.06, and the best of 6
samples to miss the disc's flow by 1.6 pixels (exact draws: 0.9).

Variants combine, as in `:frames,tiny`. `tiny` runs all of the program in a minute. `regression` is the deterministic
flow network, to compare with. `frames` takes pairs of frames from clips that are prepared (`data.name`), such as
RealEstate10K's or one's own videos.
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

from dfm_jax.config.variants import combine


def get_config(variant: str = "") -> ConfigDict:
    config = group(seed=0)
    config.model = group(name="motion", width=32, moving=group(size=24))
    config.model.encoder = group(name="dit", depth=3, width=96, num_heads=4, features=16)
    config.diffusion = group(num_timesteps=1000, high_noise_fraction=0.4, high_noise_from=700)
    config.loss = group(prior=1.0)
    config.train = group(num_steps=1600, batch_size=16, log_every=50, sample_every=800, checkpoint_every=400)
    adam = group(learning_rate=1e-3, warmup_steps=100, decay_steps=1500, b1=0.9, b2=0.99, clip_norm=1.0)
    adam.ema_decay = 0.998
    config.train.update(keep_checkpoints=2, optimizer=adam)
    config.sample = group(num_scenes=6, num_samples=6, sampler="dpm-solver++", num_steps=20, spacing="log-snr")
    config.evaluate = group(num_scenes=100, num_samples=6)
    return combine(config, variant, *VARIANTS)


def regression(config: ConfigDict) -> None:
    config.model.deterministic = True
    config.diffusion.high_noise_fraction = 0.0
    config.train.num_steps, config.train.optimizer.decay_steps = 800, 700
    config.sample.update(num_samples=1, num_steps=1)
    config.evaluate.num_samples = 1
    if config.model.moving:
        config.evaluate.num_scenes = 600


def frames(config: ConfigDict) -> None:
    """A frame and the next: with all frames of a video, a larger gap says more."""
    config.image_size = 32
    config.data = group(name="realestate10k", dir="data", split="train", eval_split="test", near=0.7, far=10.0)
    config.data.update(num_threads=2, prefetch=4)
    config.data.view_sampling = group(rule="video", min_frame_gap=1, max_frame_gap=1, flip_probability=0.5)
    config.data.view_sampling.update(min_context=1, max_context=1, num_target=1)
    config.model.moving = None
    config.evaluate.update(num_scenes=6, num_samples=6)


def tiny(config: ConfigDict) -> None:
    config.model.width = 16
    config.model.encoder.update(depth=1, width=32, num_heads=2, features=16)
    config.train.update(num_steps=60, batch_size=8, checkpoint_every=20, log_every=10, sample_every=60)
    config.train.optimizer.update(warmup_steps=10, decay_steps=50)
    config.sample.update(num_scenes=2, num_steps=min(4, config.sample.num_steps))
    config.evaluate.num_scenes = 4


VARIANTS = ({"frames": frames}, {"regression": regression}, {"tiny": tiny})
