"""Every number of every config is checked where it is read, and what passes is of use to what it feeds."""

import collections
import contextlib
import dataclasses
import math
import pathlib
import typing
from typing import Annotated

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config import Config, ForwardModelConfig, MeshConfig
from dfm_jax.config.command_line import read_config
from dfm_jax.config.limits import Range
from dfm_jax.config.model import MODELS
from dfm_jax.config.reading import ConfigError, _types, from_dict
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.diffusion.timesteps import log_snr_timesteps, uniform_timesteps
from dfm_jax.errors import UserError
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.runs.retention import Retention
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.training import sharding
from dfm_jax.training.optimizers import learning_rate_schedule, make_optimizer
from tests.test_configs import VARIANTS, load

ROOT = pathlib.Path(__file__).resolve().parents[1]
VALUES = (-1, 0, math.nan, math.inf, 10**30)


def numbers(values, path=()):
    """The paths of all numbers of a nested dict."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, (*path, name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, name)


def replaced(values, path, value):
    """A nested dict with another value at a path."""
    changed = dict(values)
    changed[path[0]] = value if len(path) == 1 else replaced(values[path[0]], path[1:], value)
    return changed


def value_at(values, path):
    for name in path:
        values = values[name]
    return values


# Of configs with the same settings, one: whether a number can be used depends on its setting.
OF_EACH_KIND = {frozenset(numbers(load(*names).to_dict())): names for names in VARIANTS}.values()


@pytest.mark.parametrize(("name", "variant"), OF_EACH_KIND)
def test_a_number_that_cannot_be_used_is_one_line_that_names_it(name, variant):
    values, refused = load(name, variant).to_dict(), collections.Counter()
    for path in numbers(values):
        for value in VALUES:
            try:
                from_dict(replaced(values, path, value))
            except ConfigError as error:
                assert "\n" not in str(error) and str(error).startswith("config.")
                assert path[-1] in str(error), (path, value, error)
                refused[path] += 1
    assert min(refused[path] for path in numbers(values)) >= 3  # nan, and both ends or infinity


def limits(section=Config, path=()):
    """The ranges of all numbers of a config by their paths; of a part that may be of several kinds, those of each."""
    for name, hint in _types(section).items():
        kinds = set(MODELS.values()) if hint == ForwardModelConfig else (hint, *typing.get_args(hint))
        groups = [g for g in kinds if isinstance(g, type) and dataclasses.is_dataclass(g)]
        for group in groups:
            yield from limits(group, (*path, name))
        kind, *notes = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
        if kind in (int, float):
            yield (*path, name), next((note for note in notes if isinstance(note, Range)), None)


def test_every_number_has_a_range():
    assert [".".join(path) for path, limit in limits() if limit is None] == []
    assert len({path for path, _ in limits()}) > 80


@pytest.mark.parametrize(
    ("limit", "good", "bad"),
    [
        (Range(1, 5), (1, 5), (0, 6, -1)),
        (Range(0.0, 1.0, open_above=True), (0.0, 0.999), (1.0, -1e-9, math.nan)),
        (Range(1.0, 9.0, open_below=True, off=0), (0.0, 1.5, 9.0), (1.0, 0.5, -1.0, math.inf)),
        (Range(1, 8, off=-1), (-1, 1), (0, -2, 9)),
    ],
)
def test_a_range_says_what_it_takes(limit, good, bad):
    assert [limit.problem(value) for value in good] == [""] * len(good)
    assert all(repr(value) in limit.problem(value) for value in bad)


# --- what is let through works


def let_through(values, *prefixes, largest=True):
    """Configs that differ from `values` in one number below these prefixes: in an unusual one that is taken."""
    ranges = {}
    for path, limit in limits():
        ranges.setdefault(path, []).append(limit)
    for path in numbers(values):
        if any(path[: len(prefix)] == prefix for prefix in prefixes):
            ends = [end for limit in ranges[path] for end in (limit.least, limit.most)[: 1 + largest]]
            kind = type(value_at(values, path))
            for value in {kind(x) for x in (-1, 0, *ends)} - {value_at(values, path)}:
                with contextlib.suppress(ConfigError):
                    yield path, value, from_dict(replaced(values, path, value))


def toy(variant):
    return dataclasses.asdict(read_config(str(ROOT / "configs" / f"toy.py:{variant}")))


@pytest.mark.parametrize(
    ("variant", "part"), [("tiny", ("model",)), ("lean", ("model", "proposal")), ("resnet34", ("model", "encoder"))]
)
@pytest.mark.filterwarnings("error::RuntimeWarning")  # numpy's, for a constant that is not finite
def test_models_have_parameters(variant, part):
    """The largest ones as well, but not in seconds."""
    for path, value, config in let_through(toy(variant), part, largest=False):
        model = make_model(config)
        shapes = parameter_shapes(model)
        assert all(0 not in leaf.shape for leaf in jax.tree.leaves(shapes)), (path, value)


def test_optimisers_step():
    params = {"w": jnp.ones((2, 2))}
    for path, value, config in let_through(toy("tiny"), ("train", "optimizer")):
        settings = config.train.optimizer
        rate = learning_rate_schedule(settings)
        ends = (0, 1, settings.warmup_steps, settings.warmup_steps + settings.decay_steps, 2**30)
        rates = np.array([rate(jnp.int32(min(step, 2**31 - 1))) for step in ends])
        assert (rates >= 0).all() and (rates <= np.float32(settings.learning_rate)).all(), (path, value)
        tx = make_optimizer(settings)
        updates, _ = tx.update(params, tx.init(params), params)
        assert np.isfinite(updates["w"]).all(), (path, value)


def test_a_learning_rate_without_decay_stays_and_without_warm_up_starts_at_its_peak():
    settings = from_dict(toy("tiny")).train.optimizer
    rate = lambda step, **changes: float(learning_rate_schedule(dataclasses.replace(settings, **changes))(step))
    assert [rate(step, warmup_steps=0, decay_steps=0) for step in (0, 7, 10**9)] == [settings.learning_rate] * 3
    assert rate(0, decay_steps=0) == 0
    assert rate(5, decay_steps=0) == pytest.approx(settings.learning_rate / 2)  # of 10 steps of warm-up
    assert rate(10**6, decay_steps=0) == pytest.approx(settings.learning_rate)
    assert rate(0, warmup_steps=0) == pytest.approx(settings.learning_rate)
    assert rate(10**6, warmup_steps=0) == 0


def test_samplers_have_noise_levels():
    for path, value, config in let_through(toy("tiny"), ("diffusion",), ("sample",)):
        total, steps = config.diffusion.num_timesteps, min(config.sample.num_steps, 1000)
        schedule = cosine_schedule(min(total, 10**4))
        for spacing in (uniform_timesteps, log_snr_timesteps):
            times = np.asarray(spacing(schedule, min(steps, schedule.num_timesteps)))
            assert times[0] == schedule.num_timesteps - 1 and times[-1] == -1 and (np.diff(times) < 0).all()
        sampler = DiffusionSampler(None, {}, schedule, config.sample)
        low, high = sampler.guidance_interval or (0, schedule.num_timesteps)
        assert 0 <= low <= high <= schedule.num_timesteps, (path, value)
        assert sampler.guidance.bound > 0


def test_what_else_is_fed_takes_it():
    for _, _, config in let_through(toy("tiny"), ("train",), ("data",)):
        train, data = config.train, config.data
        Retention(train.keep_checkpoints, train.keep_every, train.keep_best).policy()
        grain.ReadOptions(data.num_threads, max(data.prefetch, data.num_threads))
        try:
            sharding.make_mesh(train.mesh)
        except UserError:
            assert train.mesh not in (MeshConfig(-1, 1), MeshConfig(1, 1))


def test_seeds_reach_all_that_draw():
    for seed in (0, 2**32 - 1):
        config = from_dict(replaced(toy("tiny"), ("seed",), seed))
        jax.random.key(config.seed)
        grain.MapDataset.source([1, 2]).seed(config.seed).shuffle()


def test_a_model_of_images_is_not_trained_on_single_pixels_because_nothing_is_said():
    settings = load("toy", "tiny").to_dict()
    del settings["loss"]["patch_size"]
    with pytest.raises(ConfigError, match=r"loss\.patch_size must be at least 1"):
        from_dict(settings)
