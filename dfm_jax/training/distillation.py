"""What a distilled model (the student) is trained on: the steps of its teacher, a trained model that needs many.

The student's answer to a noisy observation is, like any x0-prediction, an observation of the signal that it infers; it
should be that of the signal which the teacher ends with. Both are observed at the same queries: nothing is compared
with the truth.

Letters: `b` examples, `m` noise levels of each, `n` steps of the teacher, `...` the shape of an observation.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Float, Key

from dfm_jax.config import DistillationConfig, LossConfig
from dfm_jax.diffusion.consistency import choose_levels, pseudo_huber, state_between, step_along
from dfm_jax.diffusion.process import add_noise
from dfm_jax.forward_models.protocol import ForwardModel, Params, Prediction, SceneModel
from dfm_jax.forward_models.terms import mean_squared_error
from dfm_jax.losses import Metrics, weighted
from dfm_jax.sampling.diffusion_sampler import SCENE_NOISE_LEVEL, DiffusionSampler, Samples


@struct.dataclass
class Lesson:
    """Noisy observations, and what the student should make of them. The levels of an example are neighbours."""

    x_t: Array  # [b m, ...]
    timestep: Array  # [b m]
    query: Any  # leaves [b, ...]
    answer: Array  # [b m, ...] the observation at the query, in diffusion's range
    estimate: Any | None  # [b] of the teacher


def distillation_loss(
    params: Params,
    example: Any,
    key: Key[Array, ""],
    *,
    model: ForwardModel,
    teacher: DiffusionSampler,
    settings: DistillationConfig,
    weights: LossConfig,
    perceptual: Callable[[Array, Array], Array] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """As `losses.training_loss`, with the observations that the teacher ends with in the place of the truth; `target`
    is their pseudo-Huber distance.

    Args:
      key: the key of the step; it is folded with every example's global index.
      teacher: gets no gradient.
    """
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), 3))(example.index)
    noise_keys, level_keys, predict_keys = jnp.moveaxis(keys, 1, 0)
    query_keys, observe_keys = jnp.moveaxis(jax.vmap(jax.random.split)(predict_keys), 1, 0)
    teach = {"trajectory": trajectory, "consistency": consistency}[settings.method]
    student = jax.lax.stop_gradient(params)
    lesson = teach(teacher, student, model, example, (noise_keys, level_keys, query_keys), settings.levels)
    lesson = jax.lax.stop_gradient(lesson)

    m = len(lesson.timestep) // len(example.index)
    several = lambda tree: jax.tree.map(lambda x: jnp.repeat(x, m, axis=0), tree)
    context = several(model.encode_context(params, example))
    signal, estimate = model.infer(params, context, lesson.x_t, lesson.timestep)
    observation = model.observe(params, signal, several(lesson.query), several(observe_keys))
    prediction = Prediction(observation, lesson.answer, estimate)
    terms = model.loss_terms(several(example), prediction, weights, perceptual)
    terms["target"] = pseudo_huber(model.to_x0(observation) - lesson.answer, settings.huber)
    if estimate is not None:
        terms["estimate"] = mean_squared_error(model.to_x0(estimate), several(model.to_x0(lesson.estimate)))
    return weighted(terms, weights)


def trajectory(
    teacher: DiffusionSampler, student: Params, model: ForwardModel, example: Any, keys: tuple, count: int
) -> Lesson:
    """Samples as the teacher does: where each state of a trajectory leads is seen when it has ended (knowledge
    distillation, Luhman and Luhman 2021, of all levels). The last state is the finished sample, as scenes are inferred
    from it."""
    del student
    noise_keys, level_keys, query_keys = keys
    samples, (times, states) = teacher.sample(example, noise_keys, lambda t, x_t, x0: (t, x_t))
    level = finished_level(teacher)
    signal, estimate = teacher.scene(samples, level)
    query, answer = observed(teacher, model, example, signal, query_keys)
    times = jnp.append(times, round(level * teacher.schedule.num_timesteps))  # [n + 1]
    states = jnp.concatenate([states, samples.x0[None]])  # [n + 1, b, ...]
    count, n = min(count, len(times)), len(times) - 1
    chosen = choose_levels(level_keys, n + 1, count).reshape(-1)  # [b m]
    of_example = jnp.repeat(jnp.arange(len(example.index)), count)
    # The noisiest level, the last and that of the finished sample are as they are; the others stand for all below them.
    after = jnp.where((chosen == 0) | (chosen >= n - 1), chosen, chosen + 1)
    t, s = times[chosen], times[after]
    down = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (count,)))(level_keys).reshape(-1)
    timestep = t - jnp.floor(down * (t - s)).astype(t.dtype)
    x_t = state_between(teacher.schedule, states[chosen, of_example], states[after, of_example], t, s, timestep)
    return Lesson(x_t, timestep, query, answer[of_example], estimate)


def consistency(
    teacher: DiffusionSampler, student: Params, model: ForwardModel, example: Any, keys: tuple, count: int
) -> Lesson:
    """Consistency distillation (Song et al. 2023, algorithm 2; without an average of the student, as in Song and
    Dhariwal 2024): what the student says of an example with noise should be what it says after one step of the teacher
    further down. From the lowest level, the teacher ends in its sample itself."""
    del count
    noise_keys, level_keys, query_keys = keys
    schedule, times = teacher.schedule, jnp.asarray(teacher.times)
    x0, _ = model.target(example)
    number = jax.vmap(lambda k: jax.random.randint(k, (), 0, len(times) - 1))(level_keys)
    t, s = times[number], times[number + 1]
    x_t = add_noise(schedule, x0, t, jax.vmap(lambda k: jax.random.normal(k, x0.shape[1:]))(noise_keys))
    cache = teacher.cache_context(example)
    denoised, _ = teacher.denoise_fn(cache)(x_t, t, jnp.zeros_like(x_t))
    x_s = step_along(schedule, x_t, denoised, t, s)

    finished = Samples(denoised, cache.conditional(len(t)).context)
    signal, estimate = teacher.scene(finished, finished_level(teacher))
    query, end = observed(teacher, model, example, signal, query_keys)
    inferred = model.infer(student, model.encode_context(student, example), x_s, jnp.maximum(s, 0)).signal
    further = model.to_x0(model.observe(student, inferred, query))
    answer = jnp.where((s < 0).reshape(-1, *[1] * (end.ndim - 1)), end, further)
    return Lesson(x_t, t, query, answer, estimate)


def finished_level(teacher: DiffusionSampler) -> float:
    """The noise level that a finished sample is said to have when its signal is inferred, as a share of all."""
    return SCENE_NOISE_LEVEL if isinstance(teacher.model, SceneModel) else 0.0


def observed(
    teacher: DiffusionSampler, model: ForwardModel, example: Any, signal: Any, keys: Key[Array, "b"]
) -> tuple[Any, Array]:
    """What the student is asked of an example, and the teacher's answer for its signal, in diffusion's range."""
    query, _ = model.supervision(example, keys)
    return query, teacher.model.to_x0(teacher.model.observe(teacher.params, signal, query))
