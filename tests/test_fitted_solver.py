"""Solvers that are fitted: their form, their files, and that all that samples can use them."""

import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dfm_jax
from dfm_jax.commands.export_model import export_model
from dfm_jax.config.changes import with_sampling
from dfm_jax.config.command_line import read_config
from dfm_jax.diffusion.fitted_solver import FittedSolver, dpm_solver_as_fitted, fitted
from dfm_jax.diffusion.samplers import dpm_solver
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.diffusion.timesteps import uniform_timesteps
from dfm_jax.errors import UserError
from dfm_jax.examples import held_out_examples
from dfm_jax.forward_models.build import make_model
from dfm_jax.pages import plots
from dfm_jax.runs import fingerprints, packed
from dfm_jax.runs.checkpoints import Checkpoints
from dfm_jax.runs.retention import Retention
from dfm_jax.runs.saved_settings import saved_settings
from dfm_jax.runs.workdirs import shipped_file
from dfm_jax.sampling import solver_files
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.studies import few_steps, fit_solver
from dfm_jax.training.setup import make_train_setup
from tests.test_diffusion import normal
from tests.tiny import jit, optimised_jit

ROOT = pathlib.Path(__file__).resolve().parents[1]
LINEAR, SCRIPT = str(ROOT / "configs" / "linear.py"), ROOT / "examples" / "sample_exported.py"
SHIPPED = solver_files.file_beside("toy", 5)
KEY = jax.random.key(5)
HAND = np.array([999, 960, 910, 830, 400, -1])


def sample(sampler, plan, denoise, x_T, **settings):
    denoise_fn = lambda x_t, timestep, carry: (denoise(x_t, timestep), carry)
    return sampler(denoise_fn, x_T, cosine_schedule(), plan, **settings)


def as_fitted(times):
    """DPM-Solver++(2M) over these; one program, not one for each of its operations."""
    return jit(lambda: dpm_solver_as_fitted(cosine_schedule(), times))()


def made_up_solver():
    weights = jnp.array([[0, 0, 0], [-0.4, 0, 0], [0.2, -0.3, 0]], jnp.float32)
    return FittedSolver(jnp.array([999, 870, 300]), jnp.array([-2.0, 0.5]), weights)


@pytest.mark.parametrize("times", [HAND, [999, -1], [999, 850, -1], None], ids=["5", "1", "2", "3"])
def test_with_an_oracle_a_fitted_solver_returns_its_x0(times):
    """Solvers of other numbers of steps, some that extrapolate."""
    solver = made_up_solver() if times is None else as_fitted(times)
    x0 = normal(0, 2, 4, 3)
    watch = lambda timestep, x_t, x0: {"timestep": timestep, "x_t": x_t}
    got, seen = sample(fitted, solver, lambda x_t, timestep: x0, normal(1, 2, 4, 3), callback=watch)
    np.testing.assert_array_equal(got, x0)
    np.testing.assert_array_equal(seen["timestep"], solver.timesteps)
    # Its states are those of x0 and one noise: alpha^2 + sigma^2 = 1, at the levels that the solver says.
    noise = seen["x_t"][0]
    for x_t, log_snr in zip(seen["x_t"][1:], np.asarray(solver.log_snr, np.float64), strict=True):
        alpha, sigma = np.exp(log_snr) / np.hypot(1, np.exp(log_snr)), 1 / np.hypot(1, np.exp(log_snr))
        np.testing.assert_allclose(x_t, alpha * x0 + sigma * noise, atol=3e-4)  # x_T has a grain of signal


@pytest.mark.parametrize("times", [HAND, [999, 500, -1], uniform_timesteps(cosine_schedule(), 12), [999, -1]])
def test_dpm_solver_is_a_fitted_solver(times):
    x_T = normal(0, 4, 3)
    denoise = lambda x_t, timestep: jnp.tanh(2 * x_t) + timestep[:, None] / 2000
    again = sample(fitted, as_fitted(times), denoise, x_T)
    # float32, and another order of sums.
    np.testing.assert_allclose(again, sample(dpm_solver, np.asarray(times), denoise, x_T), rtol=1e-4, atol=1e-5)


def test_a_fitted_solver_carries_and_thresholds_as_others_do():
    solver = as_fitted(HAND)
    count = lambda x_t, timestep, seen: (jnp.full_like(x_t, 0.1) * (seen + 1), seen + 1)
    x0 = fitted(count, normal(0, 2, 3), cosine_schedule(), solver, carry=jnp.zeros(()))
    np.testing.assert_allclose(x0, 0.5, rtol=1e-6)


# --- files


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Of a linear model that is trained for a moment."""
    workdir = tmp_path_factory.mktemp("linear")
    config = read_config(LINEAR)
    model, setup = make_model(config), make_train_setup(config)
    state, step = setup.init(jax.random.key(0)), optimised_jit(setup.step)
    for n in range(200):
        state, _ = step(state, model.generate(config.seed, np.arange(n * 256, (n + 1) * 256)), KEY)
    with Checkpoints(workdir, keep=Retention(1)) as checkpoints:
        checkpoints.save_trees(200, config, ema=state.ema)
    return workdir


@pytest.fixture(scope="module")
def fitted_file(workdir):
    """A solver of three steps that is fitted to that model, beside it."""
    effort = ["--num_samples=64", "--batch_size=32", "--updates=40"]
    assert fit_solver.main([f"--workdir={workdir}", "--steps=3", *effort]) == 0
    return workdir / "solver-3.json"


def sampled(workdir, **settings):
    """Samples of held-out examples, which no fit has seen."""
    config = restore_config(workdir, **settings)
    trained = restore_trained(config, workdir)
    example, _ = held_out_examples(config, 256)
    return np.asarray(jit(DiffusionSampler.sample)(trained.diffusion(), example, jax.random.split(KEY, 256)).x0)


def restore_config(workdir, **settings):
    return with_sampling(read_config("", (), saved_settings(workdir)), settings)


def test_a_solver_is_fitted_from_the_command_line_and_nearer_than_any_other_of_as_many_steps(fitted_file, workdir):
    values = json.loads(fitted_file.read_text())
    assert values["timesteps"][0] == 999 and len(values["timesteps"]) == 3 and values["fit"]["same"] > 0.9
    long = sampled(workdir, sampler="dpm-solver++", spacing="log-snr", num_steps=250)
    error = lambda **settings: np.mean(np.square(sampled(workdir, num_steps=3, **settings) - long))
    ours = error(sampler="fitted")
    assert all(2 * ours < error(sampler=name, spacing="log-snr") for name in ("ddim", "dpm-solver++", "unipc"))


def test_what_is_fitted_to_is_of_the_training_split_and_of_no_samples_noise():
    model, config = make_model(read_config(LINEAR)), read_config(LINEAR)
    seen, _ = fit_solver.training_examples(config, 16)
    judged = model.generate(config.seed, np.arange(16), held_out=True)
    assert not np.isin(np.asarray(seen.context), np.asarray(judged.context)).any()
    noise = jax.random.key_data(jax.random.fold_in(jax.random.key(0), fit_solver.SEED))
    assert not any(np.array_equal(noise, jax.random.key_data(jax.random.key(seed))) for seed in range(100))


def test_a_file_holds_its_solver(fitted_file):
    values = solver_files.read(fitted_file)
    solver = solver_files.from_values(values)
    again = solver_files.to_values(solver, 1000)
    for name in solver_files.NUMBERS:
        flat = [np.hstack(each[name]) for each in (values, again)]
        np.testing.assert_allclose(*flat, atol=1e-5)
    assert np.all(np.triu(solver.weights) == 0)


def test_another_number_of_steps_than_the_files_is_an_error(fitted_file, workdir):
    with pytest.raises(UserError, match=r"is a solver of 3 steps, and config.sample.num_steps is 5"):
        sampled(workdir, sampler="fitted", num_steps=5, solver_file=str(fitted_file))
    with pytest.raises(UserError, match=r"there is no fitted solver of config.sample.num_steps=7 steps"):
        sampled(workdir, sampler="fitted", num_steps=7)


def changed(values, **changes):
    return json.dumps(values | changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "cannot be read"),
        ({"form": "other"}, "it does not say 'form'"),
        ({"weights": [[], [0.1], [0.1]]}, "weights must be 3 rows"),
        ({"weights": [[], ["a"], [0.1, 0.2]]}, "must be lists of numbers"),
        ({"timesteps": [999, 400, 850]}, "timesteps must fall"),
        ({"timesteps": [998, 850, 400]}, "timesteps must fall"),
        ({"timesteps": [999, 850.5, 400]}, "timesteps must be some"),
        ({"log_snr": [0.5, float("nan")]}, "log_snr must be 2 rising numbers"),
        ({"made_from": 3}, "what it was made from"),
        ({"num_timesteps": 500, "timesteps": [499, 300, 100]}, "was fitted to a model of 500 timesteps"),
    ],
)
def test_files_that_are_damaged_are_refused(change, message, fitted_file, workdir, tmp_path):
    file = tmp_path / "solver.json"
    text = fitted_file.read_text()
    file.write_text(text[:100] if change is None else changed(json.loads(text), **change))
    with pytest.raises(UserError, match=message):
        sampled(workdir, sampler="fitted", num_steps=3, solver_file=str(file))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps=1"], "a solver has 2 to 1000 steps"),
        ([], "give --steps=5, or --timesteps"),
        (["--steps=3", "--timesteps=999,500,100"], "give --steps=5, or --timesteps"),
        (["--timesteps=999,500,600"], "must fall from 999"),
        (["--timesteps=999,a"], "whole numbers are needed"),
        (["--steps=3", "--num_samples=5", "--batch_size=2"], "batches divide the samples"),
    ],
)
def test_mistakes_of_fitting_are_one_clear_error(arguments, message, workdir, capsys):
    assert fit_solver.main([f"--workdir={workdir}", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_timesteps_chosen_by_hand_are_dpm_solver_at_these(workdir, tmp_path, capsys):
    file = tmp_path / "hand.json"
    assert fit_solver.main([f"--workdir={workdir}", "--timesteps=999,850,400", f"--out={file}"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    solver = solver_files.from_values(printed)
    np.testing.assert_array_equal(solver.timesteps, [999, 850, 400])
    wanted = as_fitted([999, 850, 400, -1])
    np.testing.assert_allclose(solver.weights, wanted.weights, atol=1e-5)


def test_an_export_samples_with_its_solver_and_needs_none_of_this_package(fitted_file, workdir, tmp_path, monkeypatch):
    config = restore_config(workdir, sampler="fitted", num_steps=3)
    trained = restore_trained(config, workdir)
    files = export_model(trained, tmp_path, ("stablehlo", "parameters"))["parameters"]["files"]
    assert str(tmp_path / "solver-3.json") in files
    monkeypatch.setattr("sys.argv", ["sample_exported.py", str(tmp_path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    drawn = np.load(tmp_path / "samples.npy")

    example, _ = held_out_examples(config, len(drawn))
    noise = np.random.default_rng(0).normal(size=drawn.shape).astype("f")
    diffusion = restore_trained(config, tmp_path).diffusion()  # the export is a workdir, and its solver lies beside it

    @jit
    def sample(diffusion, example, noise):
        denoise_fn = diffusion.denoise_fn(diffusion.cache_context(example))
        return fitted(denoise_fn, noise, diffusion.schedule, diffusion.solver, carry=jnp.zeros_like(noise))

    # float32, and another order of sums.
    np.testing.assert_allclose(drawn, sample(diffusion, example, noise), atol=1e-4)


def test_what_stands_in_says_so_and_the_models_own_does_not(fitted_file, workdir, caplog, tmp_path):
    config = restore_config(workdir, sampler="fitted", num_steps=3)
    restore_trained(config, workdir)
    assert "stands in" not in caplog.text
    values = json.loads(fitted_file.read_text())
    other = tmp_path / "other.json"
    other.write_text(changed(values, made_from=values["made_from"] | {"parameters": "0", "name": "toy"}))
    restore_trained(restore_config(workdir, sampler="fitted", num_steps=3, solver_file=str(other)), workdir)
    assert "was fitted to another model (toy, step 200), and stands in for one of this model" in caplog.text


# --- the solvers that come with the package


@pytest.mark.parametrize("num_steps", [3, 4, 5])
def test_the_shipped_model_has_solvers_of_its_own(num_steps):
    file = solver_files.file_beside("toy", num_steps)
    params, step, _ = packed.read(shipped_file("toy"))
    made_from = solver_files.read(file)["made_from"]
    assert made_from["parameters"] == fingerprints.of_arrays(params) and made_from["step"] == step
    sampler = dfm_jax.load("toy", sampler="fitted", steps=num_steps)
    assert sampler.diffusion().solver.num_steps == num_steps


def test_a_model_without_a_solver_takes_the_shipped_ones(workdir, caplog):
    diffusion = restore_trained(restore_config(workdir, sampler="fitted", num_steps=5), workdir).diffusion()
    np.testing.assert_array_equal(diffusion.solver.timesteps, solver_files.read(SHIPPED)["timesteps"])
    assert "was fitted to another model (toy, step 6000), and stands in" in caplog.text


def test_without_a_solver_of_as_many_steps_the_door_says_which_there_are():
    with pytest.raises(UserError, match=r"num_steps=7 steps for toy: those that come with the package have .*3, 4, 5"):
        dfm_jax.load("toy", sampler="fitted", steps=7)
    sampler = dfm_jax.load("toy", sampler="fitted", steps=5)
    with pytest.raises(UserError, match="there is no fitted solver"):
        sampler.sampled_with(steps=7)


def test_points_of_few_steps(tmp_path):
    named = lambda points: [(point.name, point.settings["num_steps"]) for point in points]
    assert named(few_steps.points("toy", "unipc:3,fitted:5", [])) == [("unipc", 3), ("fitted", 5)]
    assert named(few_steps.points("toy", "", [str(SHIPPED)])) == [("toy.solver-5", 5)]
    every = named(few_steps.points("toy", "", []))
    assert {("fitted", 5), ("dpm-solver++", 15), ("unipc", 3)} <= set(every)
    assert ("fitted", 7) not in every
    with pytest.raises(UserError, match="SAMPLER:STEPS"):
        few_steps.points("toy", "unipc:many", [])
    students = few_steps.points("toy-distilled", "", [], few_steps.STEPS_OF_STUDENTS)
    assert named(students) == [("consistency", n) for n in (1, 2, 3, 4)]
    assert {each.settings["spacing"] for each in students} == {"high-noise"}


def test_few_steps_of_other_models_are_named_or_one_clear_error(tmp_path):
    records = [{"name": "fitted", "num_steps": n, "seconds": 0.1} for n in (3, 5)]
    (tmp_path / "few_steps.json").write_text(json.dumps({"records": records}))
    found = few_steps.other_records(f"teacher={tmp_path / 'few_steps.json'}")
    assert [(each["name"], each["num_steps"]) for each in found] == [("teacher: fitted", 3), ("teacher: fitted", 5)]
    assert few_steps.other_records("") == []
    # Whose odds are not known: what all have measured is drawn.
    mine = [{"name": "consistency", "num_steps": 1, "seconds": 0.05, "context_psnr": 30.0, "purity": 1.0}]
    plots.few_steps(tmp_path / "plot.png", mine + [each | {"context_psnr": 29.0} for each in found], None)
    assert (tmp_path / "plot.png").exists()
    (tmp_path / "other.json").write_text(json.dumps({"records": [{"name": "ddim", "seconds": 0.1}]}))
    for wrong in ("teacher", f"teacher={tmp_path / 'none.json'}", f"teacher={tmp_path / 'other.json'}"):
        with pytest.raises(UserError, match="that this command wrote"):
            few_steps.other_records(wrong)
