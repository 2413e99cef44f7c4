"""Students of a trained model: where its trajectories end, and what they may and may not see of them."""

import dataclasses
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config.command_line import read_config
from dfm_jax.config.training import DistillationConfig
from dfm_jax.diffusion.consistency import choose_levels, pseudo_huber, state_between, step_along
from dfm_jax.diffusion.process import add_noise
from dfm_jax.diffusion.samplers import ddim
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import UserError
from dfm_jax.evaluation.calibration import calibrate
from dfm_jax.forward_models.linear import LinearModel
from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Samples
from dfm_jax.training import distillation
from dfm_jax.training.distillation import distillation_loss
from dfm_jax.training.loop import train
from dfm_jax.training.teacher import load_teacher
from tests.test_diffusion import normal
from tests.tiny import LOSS, UNCHUNKED, jit, random_params, tiny_example, tiny_model

SCHEDULE = cosine_schedule()
METHODS = ("trajectory", "consistency")
LINEAR_CONFIG = read_config("configs/linear.py:tiny")
LINEAR = LinearModel(1000, num_knots=5)


# --- the mathematics


def test_pseudo_huber_is_the_root_mean_square_far_out_and_its_square_close_by():
    error = normal(0, 3, 4, 5)
    rms = np.sqrt(np.mean(np.square(error), axis=(1, 2)))
    # A limit, at a finite value; float32.
    np.testing.assert_allclose(pseudo_huber(error, 1e-4), rms, rtol=1e-3)
    # A limit, at a finite value; float32.
    np.testing.assert_allclose(pseudo_huber(error, 100.0) * 200, rms**2, rtol=0.01)
    assert float(pseudo_huber(jnp.zeros((1, 2)), 0.1)[0]) == 0


def test_of_two_truths_the_likelier_one_is_the_best_answer_to_pseudo_huber():
    """Of squares it is their mean, which is none of them: why few steps blur."""
    truths, odds = jnp.array([-1.0, 1.0]), jnp.array([0.6, 0.4])
    answers = jnp.linspace(-1, 1, 201)
    cost = lambda c: jnp.array([pseudo_huber((truths - answer)[:, None], c) @ odds for answer in answers])
    assert abs(answers[jnp.argmin(cost(0.03))] + 1) < 0.05
    assert abs(answers[jnp.argmin(cost(30.0))] + 0.2) < 0.02


def test_a_step_along_the_flow_is_ddims_and_its_last_ends_in_x0():
    x_T, x0 = normal(0, 2, 6), normal(1, 2, 6)
    t, s = jnp.array([999, 700]), jnp.array([700, 300])
    times = np.stack([t, s, [-1, -1]], axis=1)
    for i in range(2):
        oracle = lambda x_t, timestep, carry, i=i: (x0[i : i + 1], carry)
        _, states = ddim(oracle, x_T[i : i + 1], SCHEDULE, times[i], callback=lambda t, x_t, x0: x_t)
        ours = step_along(SCHEDULE, x_T[i : i + 1], x0[i : i + 1], t[i : i + 1], s[i : i + 1])
        np.testing.assert_allclose(ours, states[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(step_along(SCHEDULE, x_T, x0, t, jnp.full(2, -1)), x0)


def test_states_between_those_of_a_trajectory_lie_on_it():
    x0, noise, levels = normal(0, 3, 6), normal(1, 3, 6), jnp.array([999, 700, 300])
    state = lambda level: add_noise(SCHEDULE, x0, level, noise)
    t, s, at = levels, jnp.array([700, 300, 300]), jnp.array([910, 700, 300])
    between = state_between(SCHEDULE, state(t), state(s), t, s, at)
    # Multiplied by noise rates and divided again, in float32.
    np.testing.assert_allclose(between, state(at), rtol=1e-4, atol=1e-5)


def test_levels_are_the_noisiest_and_different_others():
    chosen = np.asarray(choose_levels(jax.random.split(jax.random.key(0), 50), 6, 4))
    assert chosen.shape == (50, 4) and np.all(chosen[:, 0] == 0)
    assert all(len(set(row)) == 4 and set(row) <= set(range(6)) for row in chosen.tolist())
    assert set(chosen[:, 1:].ravel()) == {1, 2, 3, 4, 5}


# --- what a student learns


def teacher_of(model, params, **settings):
    sample = dataclasses.replace(LINEAR_CONFIG.sample, num_steps=3, **settings)
    return DiffusionSampler(model, params, SCHEDULE, sample)


def loss_of(model, method):
    settings = DistillationConfig(teacher="a teacher", method=method)
    return jit(
        jax.value_and_grad(partial(distillation_loss, model=model, settings=settings, weights=LOSS), has_aux=True)
    )


def linear_params(*, of_noise: float):
    """Of which `of_noise` says how much an answer depends on what is noised."""
    params = LINEAR.init(jax.random.key(0))
    known, seen = normal(0, 2, 1, 2, 3), normal(1, 2, 1, 2, 3)
    signal = jnp.broadcast_to(jnp.concatenate([known, of_noise * seen], axis=2), params["signal"].shape)
    return {"signal": signal, "estimate": normal(2, 2, 2, 3)}


@pytest.mark.parametrize("method", METHODS)
def test_a_student_that_is_where_its_teacher_ends_has_nothing_to_learn(method):
    """A teacher whose answers do not depend on the noise is its own best student."""
    example, key = LINEAR.generate(0, np.arange(4)), jax.random.key(1)
    params, loss = linear_params(of_noise=0.0), loss_of(LINEAR, method)
    (value, metrics), gradient = loss(params, example, key, teacher=teacher_of(LINEAR, params))
    assert float(value) == 0 and float(metrics["target"]) == 0 and float(metrics["estimate"]) == 0
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(gradient)) == 0
    other = jax.tree.map(lambda x: x + 0.1, params)
    assert float(loss(other, example, key, teacher=teacher_of(LINEAR, params))[0][0]) > 0.01
    # One whose answers do has: what it says at the first level is not where it ends.
    params = linear_params(of_noise=0.5)
    assert float(loss(params, example, key, teacher=teacher_of(LINEAR, params))[0][0]) > 0.01


def test_from_the_lowest_level_the_teacher_ends_in_its_sample():
    """The boundary condition of consistency, of a teacher with one step: clean data is where it is."""
    params, example = linear_params(of_noise=0.5), jax.device_put(LINEAR.generate(0, np.arange(4)))
    teacher = teacher_of(LINEAR, params)
    teacher = teacher.replace(settings=dataclasses.replace(teacher.settings, num_steps=1))
    keys = tuple(jax.random.split(jax.random.key(n), 4) for n in range(3))
    student = jax.tree.map(lambda x: x + 1, params)  # which is not asked
    lesson = distillation.consistency(teacher, student, LINEAR, example, keys, 1)
    x0, _ = teacher.denoise_fn(teacher.cache_context(example))(lesson.x_t, lesson.timestep, jnp.zeros((4, 2)))
    signal, _ = teacher.scene(Samples(x0, example))
    np.testing.assert_allclose(lesson.answer, LINEAR.observe(params, signal, lesson.query), rtol=1e-5)


MODEL = tiny_model(num_fine=0, chunk_size=UNCHUNKED)


@pytest.fixture(scope="module")
def of_scenes():
    """Loss and gradients of a student and of its teacher, and those of the student where the truth is another one."""
    student, key = random_params(MODEL, 1), jax.random.key(3)
    settings = DistillationConfig(teacher="a teacher")

    def loss(params, teacher, example):
        return distillation_loss(params, example, key, model=MODEL, teacher=teacher, settings=settings, weights=LOSS)

    program = jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True))
    example, teacher = tiny_example(), teacher_of(MODEL, random_params(MODEL))
    elsewhere = example.replace(target=example.target.replace(images=1 - example.target.images))
    return program(student, teacher, example), program(student, teacher, elsewhere)


def test_a_teacher_of_scenes_is_frozen_and_its_student_is_not(of_scenes):
    (value, _), (student, teacher) = of_scenes[0]
    assert np.isfinite(value) and value > 0
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(teacher.params)) == 0
    for name, part in student.items():
        assert max(float(np.abs(x).max()) for x in jax.tree.leaves(part)) > 0, name


def test_no_truth_is_needed(of_scenes):
    one, other = of_scenes
    jax.tree.map(np.testing.assert_array_equal, one[0], other[0])


def test_evaluation_follows_a_student_over_few_steps_of_its_own():
    student, teacher = (calibrate.points_of(read_config(f"configs/toy.py{variant}")) for variant in (":distilled", ""))
    assert student == [("consistency", "high-noise", steps) for steps in calibrate.FEW_STEPS]
    assert not set(student) & set(teacher) and len(teacher) == len(calibrate.SETTINGS) * len(calibrate.STEPS)


# --- runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distilled")
    assert train(run_config(), folder / "teacher") == 0
    return folder


def run_config(*overrides):
    settings = ["train.num_steps=4", "train.batch_size=4", "train.checkpoint_every=2", "train.sample_every=0"]
    return read_config("configs/linear.py:tiny", [f"--config.{setting}" for setting in (*settings, *overrides)])


def test_a_student_starts_from_its_teacher_and_ends_the_same_when_it_is_stopped(folder, capsys):
    config = run_config(f"distillation.teacher={folder / 'teacher'}", "distillation.num_steps=3")
    assert train(config, folder / "whole") == 0
    assert f"starting from the averaged parameters of step 4 in {folder / 'teacher'}" in capsys.readouterr().err
    shutil.copytree(folder / "whole", folder / "stopped")
    shutil.rmtree(folder / "stopped/checkpoints/4")
    assert train(config, folder / "stopped") == 0
    whole, again, first = (restore_params(folder / name)[0] for name in ("whole", "stopped", "teacher"))
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert np.abs(whole["signal"] - first["signal"]).max() > 0


def test_a_teacher_is_sampled_as_it_says_but_for_the_steps(folder):
    own = load_teacher(run_config(f"distillation.teacher={folder / 'teacher'}")).settings
    assert own == LINEAR_CONFIG.sample
    fewer = load_teacher(run_config(f"distillation.teacher={folder / 'teacher'}", "distillation.num_steps=2"))
    assert fewer.settings == dataclasses.replace(own, num_steps=2)


def test_who_cannot_teach_is_refused(folder):
    config = read_config("configs/toy.py:tiny", [f"--config.distillation.teacher={folder / 'teacher'}"])
    with pytest.raises(UserError, match=r"cannot teach this model: config\.model\.name is 'linear' there and"):
        load_teacher(config)
    for sampler in ("ddpm", "consistency", "fitted"):
        drawn = run_config(f"distillation.teacher={folder / 'teacher'}", f"distillation.sampler={sampler}")
        with pytest.raises(UserError, match="no trajectory of noise levels to learn: name another"):
            load_teacher(drawn)
    with pytest.raises(UserError, match="nowhere"):
        load_teacher(run_config("distillation.teacher=nowhere"))
