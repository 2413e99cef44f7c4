"""A Gaussian vector seen through linear operators: the method where the right answer is known, in seconds on a CPU.

    python -m dfm_jax.main --config=configs/linear.py --workdir=runs/linear
    python -m dfm_jax.main --config=configs/linear.py --workdir=runs/linear --mode=evaluate
    python -m dfm_jax.main --config=configs/linear.py --workdir=runs/linear --mode=sample

Needs nothing: the examples are made as they are read. Training sees one-dimensional projections of signals in R^3 and
never a signal. Expect a `mean_error` of about 0.02 and a `covariance_error` of about 0.05 against the posterior in
closed form (`docs/evaluation.md` says what they are). `tiny` learns little.
"""

from ml_collections.config_dict import ConfigDict
from ml_collections.config_dict import create as group

from dfm_jax.config.variants import combine


def get_config(variant: str = "") -> ConfigDict:
    config = group(seed=0)
    config.model = group(name="linear", num_knots=33)
    config.diffusion = group(num_timesteps=1000, guidance_dropout=0.5)
    config.loss = group(estimate=1.0)
    config.train = group(num_steps=2000, batch_size=1024, checkpoint_every=1000, keep_checkpoints=2)
    config.train.update(log_every=200, sample_every=1000)
    config.train.optimizer = group(learning_rate=0.03, warmup_steps=50, decay_steps=1950, b1=0.9, b2=0.99)
    config.train.optimizer.update(clip_norm=10.0, ema_decay=0.99)
    config.sample = group(num_scenes=4, num_samples=512, sampler="dpm-solver++", num_steps=50, spacing="log-snr")
    config.evaluate = group(num_scenes=64, num_samples=4096)
    return combine(config, variant, *VARIANTS)


def tiny(config: ConfigDict) -> None:
    config.train.update(num_steps=60, batch_size=64, checkpoint_every=20, log_every=10, sample_every=60)
    config.train.optimizer.update(warmup_steps=10, decay_steps=50)
    config.sample.update(num_scenes=2, num_samples=16, num_steps=4)
    config.evaluate.update(num_scenes=4, num_samples=64)


VARIANTS = ({"tiny": tiny},)
