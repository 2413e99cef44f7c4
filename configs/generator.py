"""Inversion of a generator: digits behind a part of a picture, sampled as latents of a frozen network that makes them.

    python -m dfm_jax.main --config=configs/generator.py --workdir=runs/generator
    python -m dfm_jax.main --config=configs/generator.py --workdir=runs/generator --mode=evaluate
    python -m dfm_jax.main --config=configs/generator.py --workdir=runs/generator --mode=sample

Needs nothing: the examples are made as they are read, and the generator's weights come with the package. They are what

    python -m dfm_jax.forward_models.train_glyph_decoder --out=FILE.npz

makes, for which there is `--config.model.decoder_file=FILE.npz`. Training sees parts of pictures in colour, and small
grey ones; never a latent. Expect a `total_variation` to the true odds of about 0.03 and a `mode_purity` of about 0.98
(`docs/evaluation.md` says what they are). `tiny` learns little.
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

from dfm_jax.config.variants import combine


def get_config(variant: str = "") -> ConfigDict:
    config = group(seed=0)
    config.model = group(name="generator", width=256, depth=3)
    config.diffusion = group(num_timesteps=1000, guidance_dropout=0.1, high_noise_from=600, high_noise_fraction=0.2)
    config.loss = group(estimate=0.25)
    config.train = group(num_steps=3000, batch_size=256, checkpoint_every=1000, keep_checkpoints=2)
    config.train.update(log_every=200, sample_every=1000)
    config.train.optimizer = group(learning_rate=0.002, warmup_steps=200, decay_steps=2800, b1=0.9, b2=0.99)
    config.train.optimizer.update(clip_norm=1.0, ema_decay=0.995)
    config.sample = group(num_scenes=8, num_samples=6, sampler="dpm-solver++", num_steps=25, spacing="log-snr")
    config.evaluate = group(num_scenes=48, num_samples=32)
    return combine(config, variant, *VARIANTS)


def tiny(config: ConfigDict) -> None:
    config.model.update(width=32, depth=1)
    config.train.update(num_steps=60, batch_size=32, checkpoint_every=20, log_every=10, sample_every=60)
    config.train.optimizer.update(warmup_steps=10, decay_steps=50)
    config.sample.update(num_scenes=2, num_samples=4, num_steps=4)
    config.evaluate.update(num_scenes=4, num_samples=8)


VARIANTS = ({"tiny": tiny},)
