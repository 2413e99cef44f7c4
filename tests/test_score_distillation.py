"""The study of score distillation: what a method costs, what is measured, that it goes on, and what it refuses. The
gradients themselves are tested with closed forms in `test_distillation.py`."""

import dataclasses
import json
import pathlib
import types
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config.command_line import read_config
from dfm_jax.diffusion.distillation import Prior
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import UserError
from dfm_jax.pages import causes_page, distillation_page, unlike_page
from dfm_jax.rendering.ray_sampling import coarse_distances
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.structs import Camera
from dfm_jax.studies.score_distillation import __main__ as command
from dfm_jax.studies.score_distillation import causes, pictures, scene_target, study, unlike
from dfm_jax.studies.score_distillation.methods import (
    PARTICLES,
    SAMPLED,
    Family,
    Method,
    estimate_of,
    first_carry,
    method_of,
)
from dfm_jax.studies.score_distillation.voxels import Voxels
from tests.tiny import jit

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
SCHEDULE = cosine_schedule(1000)


# --- methods


def test_names_have_a_family_and_a_scale():
    assert method_of("sds-7.5").scale == 7.5 and method_of("sds-7.5").evaluations == 2
    assert method_of("sds-1") == Method("sds") and method_of("sds").evaluations == 1
    assert method_of("dpm-solver++").family == "dpm-solver++"
    assert method_of("cfg++").scale == 0.6 and method_of("nfsd-3").scale == 3


@pytest.mark.parametrize("name", ["sdss", "sds-", "sds-much", "csd-2", "-1", "7.5"])
def test_other_names_are_one_clear_error(name):
    with pytest.raises(UserError, match="--methods"):
        method_of(name)


OPTIMISED = [f for f in get_args(Family) if f not in SAMPLED]


@pytest.mark.parametrize("name", [*OPTIMISED, "sds-7.5", "sdi-7.5"])
def test_a_step_evaluates_the_denoiser_as_often_as_it_says(name):
    method, calls = method_of(name), []
    kind = method.kind

    def denoiser(x_t, t):
        jax.debug.callback(lambda: calls.append(len(t)))
        return 0.5 * x_t

    @jit
    def step(x, keys, numbers):
        method = kind.with_numbers(numbers)
        prior = Prior(SCHEDULE, denoiser, denoiser)
        carry = first_carry(method, keys[0], x)
        estimate = estimate_of(method, lambda known: prior, lambda known: denoiser, x)
        return estimate(x, None, jnp.array(0.5), keys, carry)[0]

    gradient = step(jnp.ones((PARTICLES, 2)), jax.random.split(jax.random.key(0), PARTICLES), method.numbers)
    jax.effects_barrier()
    assert len(calls) == method.evaluations and set(calls) == {PARTICLES}
    assert np.isfinite(gradient).all()


# --- grids


def camera() -> Camera:
    return Camera(jnp.eye(4)[None], jnp.array([[[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]]]))


NEAR, FAR = jnp.array([1.0]), jnp.array([3.0])


def test_fog_of_one_density_is_rendered_as_the_formula_says():
    voxels = Voxels(size=8, num_samples=16, background=0.25)
    grid = jnp.concatenate([jnp.full((1, 8, 8, 8, 1), 1.5), jnp.full((1, 8, 8, 8, 3), 2.0)], axis=-1)
    seen = jit(lambda grid: voxels.render(grid, camera(), NEAR, FAR, 4))(grid)
    density = 10 * np.log1p(np.exp(1.5 - 3.7))
    step = float(jnp.diff(coarse_distances(NEAR, FAR, 16))[0, 0])
    opacity = 1 - np.exp(-density * step * 15)
    colour = 1 / (1 + np.exp(-2.0))
    # All rays are within the cube up to their last samples, which are a little beyond its far side where they slant.
    np.testing.assert_allclose(seen, opacity * colour + (1 - opacity) * 0.25, atol=5e-3)


def test_outside_of_the_cube_there_is_nothing_and_a_grid_is_looked_up_where_it_lies():
    voxels = Voxels(size=9, num_samples=32, background=0.0)
    away = camera().replace(camera_to_world=jnp.diag(jnp.array([1.0, -1, -1, 1]))[None])
    opaque = jnp.full((1, 9, 9, 9, 4), 8.0)
    see = jit(lambda grid, camera: voxels.render(grid, camera, NEAR, FAR, 8))
    assert float(jnp.abs(see(opaque, away)).max()) < 1e-6
    # A wall in front of the half with x > 0: the first axis is x, and the picture's right half is bright.
    half = jnp.full((1, 9, 9, 9, 4), -30.0).at[0, 5:].set(8.0)
    seen = np.asarray(see(half, camera()))[0, ..., 0]
    assert seen[:, 5:].min() > 0.9 and seen[:, :3].max() < 0.1


def test_drawn_distances_are_the_even_ones_on_average():
    voxels = Voxels(size=8, num_samples=32, jitter=True)
    grid = voxels.start(jax.random.split(jax.random.key(0), 1)) + 2
    see = jit(lambda key: voxels.render(grid, camera(), NEAR, FAR, 4, keys=key[None]))
    drawn = np.stack([see(key) for key in jax.random.split(jax.random.key(1), 200)])
    even = jit(lambda grid: voxels.render(grid, camera(), NEAR, FAR, 4))(grid)
    assert drawn.std(0).max() > 1e-4
    # The mean of 200 draws.
    np.testing.assert_allclose(drawn.mean(0), even, atol=4 * drawn.std(0).max() / 200**0.5 + 1e-3)


# --- the command


@pytest.fixture
def untrained_linear(monkeypatch):
    """The linear model with parameters that are all zero stands for a trained one."""

    def restore(config, workdir):
        model = study.make_model(config)
        trained_with = {"diffusion": {"guidance_dropout": config.diffusion.guidance_dropout}}
        return Sampler(model.init(jax.random.key(0)), config, 1, str(workdir), trained_with)

    monkeypatch.setattr(study, "restore_trained", restore)


def run(tmp_path, capsys, *arguments):
    code = command.main([f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}", *arguments])
    printed = capsys.readouterr()
    return code, printed


def test_of_vectors_it_measures_moments_and_goes_on_where_it_ended(tmp_path, capsys, monkeypatch, untrained_linear):
    arguments = [f"--config={CONFIGS / 'linear.py'}:tiny", "--evaluations=6", "--results=32"]
    code, printed = run(tmp_path, capsys, *arguments, "--methods=sds-1,ddim,sdi")
    assert code == 0 and "left out: sdi" in printed.err
    first = json.loads(printed.out)
    assert set(first["methods"]) == {"sds-1", "ddim"} and first["methods"]["sds-1"]["evaluations"] == 6
    assert {"mean_error", "covariance_error", "diversity", "seconds"} <= first["methods"]["ddim"].keys()
    assert first["methods"]["sds-1"]["covariance_error"] > 0.9  # zero parameters predict one point

    made = []
    results = pictures.results
    monkeypatch.setattr(pictures, "results", lambda *args: made.append(args[4].family) or results(*args))
    code, printed = run(tmp_path, capsys, *arguments, "--methods=sds-1,csd,ddim")
    second = json.loads(printed.out)
    assert code == 0 and made == ["csd"] and second["methods"]["ddim"] == first["methods"]["ddim"]
    (tmp_path / "out/results/image-csd-6-32.npz").write_bytes(b"damaged")
    assert run(tmp_path, capsys, *arguments, "--methods=csd", "--config.seed=1")[0] == 0 and made == ["csd", "csd"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods=,"], "names none"),
        (["--methods=ddim,sdd"], "no method 'sdd'"),
        (["--evaluations=0"], "no number above 0"),
        (["--target=video"], "invalid choice"),
        ([f"--config={CONFIGS / 'linear.py'}:tiny", "--target=scene"], "needs a model of scenes"),
        ([f"--config={CONFIGS / 'linear.py'}:tiny", "--config.diffusion.guidance_dropout=0.0"], "without context"),
        ([f"--config={CONFIGS / 'toy.py'}:tiny,pixelnerf"], "deterministic"),
        ([f"--config={CONFIGS / 'toy.py'}:tiny,depth"], "this study reads colours"),
    ],
)
def test_mistakes_are_one_clear_error(tmp_path, capsys, untrained_linear, arguments, message):
    code, printed = run(tmp_path, capsys, *arguments)
    assert code and message in printed.err and "Traceback" not in printed.err and not printed.out


@pytest.mark.slow
def test_of_pictures_and_scenes_it_measures_the_odds(tmp_path, capsys):
    """The shipped model, of one scene: that all measures are there, and that one step moves neither far."""
    settings = [f"--config.data.dir={tmp_path / 'data'}", "--config.data.toy_scenes=16"]
    settings += ["--config.evaluate.num_scenes=1", "--config.evaluate.num_target=2"]
    arguments = [f"--out={tmp_path / 'out'}", "--methods=sds-1", "--evaluations=1", "--results=16"]
    assert command.main(["--workdir=toy", *arguments, "--target=image,scene", *settings]) == 0
    result = json.loads(capsys.readouterr().out)
    wanted = {"total_variation", "mode_purity", "counts", "saturation", "contrast", "diversity", "context_psnr"}
    wanted |= {"agreement", "evaluations", "seconds", "num_results"}
    for section in ("methods", "methods_3d"):
        assert result[section]["sds-1"].keys() == wanted and sum(result[section]["sds-1"]["counts"]) in (0, 16)
    assert result["methods"]["sds-1"]["saturation"] < 0.5 and 0 < result["honest"]["total_variation"] < 0.3
    page = (tmp_path / "out/index.html").read_text()
    assert "methods-pictures.png" in page and (tmp_path / "out/methods_3d.png").stat().st_size > 10_000


def test_the_page_says_who_kept_the_odds_and_who_burnt():
    measured = lambda distance, colours: {"total_variation": distance, "saturation": colours}
    result = {
        "methods": {"ddim": measured(0.03, 0.5), "sds-100": measured(0.4, 0.9), "csd": measured(0.3, 0.8)},
        "honest": {"limit": 0.08},
        "truth": {"saturation": 0.5},
    }
    said = distillation_page.verdict(result)
    assert said.startswith("ddim kept the odds") and "sds-100 and csd made colours" in said
    assert "None kept" in distillation_page.verdict({**result, "honest": {"limit": 0.01}})


# --- causes, and pictures that are unlike


def point(line, place, saturation):
    return {"line": line, "place": place, "saturation": saturation, "contrast": 0.2, "diversity": 0.1}


def test_causes_are_ranked_by_how_far_they_move_colours_along_a_line(tmp_path):
    found = {
        "scale": [point("sds", 1.0, 0.3), point("sds", 100.0, 0.9), point("ddim", 1.0, 0.5), point("ddim", 100.0, 0.6)],
        "mean": [point("1", "samples (DDIM)", 0.5), point("1", "SDS", 0.4)],
    }
    truth = {"saturation": 0.5, "contrast": 0.2}
    ranks = causes.ranking(found, truth)
    assert [row["cause"] for row in ranks] == ["scale", "mean"]
    assert [row["burn"] for row in ranks] == pytest.approx([0.8, 0.0])  # paler than the truth is not less burnt
    assert ranks[0]["saturation"] == pytest.approx(0.8) and ranks[0]["contrast"] == 0
    assert [(row["from"], row["to"]) for row in ranks] == [(1.0, 100.0), ("samples (DDIM)", "SDS")]
    assert ranks[0]["line"] == "sds" and ranks[0]["of_lines"] == pytest.approx({"sds": 0.8, "ddim": 0.2})
    result = {"causes": found, "ranking": ranks, "truth": truth, "step": 1}
    page = causes_page.write_page(tmp_path, result).read_text()
    assert "saturation from 0.60 at 1 (sds) to 1.80 at 100 (sds)" in page
    assert "scale of guidance (sds: by 80% from 1 to 100; saturation alone by 80%, contrast alone by 0%)" in page
    assert all((tmp_path / f"{name}.png").stat().st_size > 5_000 for name in found)


def test_a_cure_is_told_from_a_cause_by_the_place_with_the_most():
    cure = [point("30", 1.0, 0.6), point("30", 0.5, 0.55), point("30", 0.0, 0.9)]
    (row,) = causes.ranking({"parallel": cure}, {"saturation": 0.5, "contrast": 0.2})
    assert row["from"] == 0.5 and row["to"] == 0.0 and row["burn"] == pytest.approx(0.7)
    assert "(30: by 70% from 0.5 to 0;" in causes_page.order([row])


# The setting that a line of a cause varies, or one of two; and what else a setting brings along.
VARIED = {
    "scale": {"scale"},
    "noise": {"family"},
    "levels": {"levels", "last_levels"},
    "rate": {"rate"},
    "parallel": {"parallel"},
    "mean": {"family", "averaged"},
    "field": {"background", "density_bias"},
    "marching": {"jitter"},
}
BROUGHT = {"scale": {"guided"}, "family": {"scale", "guided", "last_levels"}, "levels": {"last_levels"}}


def test_every_variant_of_a_cause_changes_one_thing():
    config = read_config(f"{CONFIGS / 'toy.py'}:tiny", [])
    usual = dataclasses.asdict(scene_target.voxels_of(config))
    settings = lambda each: dataclasses.asdict(each.method) | {"averaged": each.averaged} | (each.voxels or {})
    assert causes.CAUSES.keys() == causes_page.CAUSES.keys() == VARIED.keys()
    for name, varied in VARIED.items():
        variants = causes.variants_of(config, name)
        assert all(variant.method.evaluations <= 8 for variant in variants)
        assert name == "mean" or settings(causes.Variant("", "")) | usual in [usual | settings(x) for x in variants]
        for line in {variant.line for variant in variants}:
            first, *others = (settings(variant) for variant in variants if variant.line == line)
            assert others
            for other in others:
                changes = {key for key in first if first[key] != other[key]}
                main = min(changes & varied, key=list(first).index)
                assert changes - {main} <= BROUGHT.get(main, set())
        places = [(variant.line, variant.place) for variant in variants]
        assert len(set(places)) == len(places)


def test_causes_that_cannot_be_are_told_before_anything_is_computed(tmp_path):
    config = read_config(f"{CONFIGS / 'toy.py'}:tiny", [])
    nowhere = dataclasses.replace(config, sample=dataclasses.replace(config.sample, target_camera=None))
    with pytest.raises(UserError, match="--causes=marching needs to know where cameras may be"):
        causes.study(nowhere, tmp_path / "run", tmp_path / "out", causes=["scale", "marching"], options=(1, 16))


def test_causes_are_compared_after_as_many_steps_whatever_these_cost(monkeypatch):
    asked = []
    monkeypatch.setattr(
        causes.pictures,
        "results",
        lambda config, params, example, n, method, evaluations: (
            asked.append(evaluations / method.evaluations) or (np.zeros((1, n, 2, 2, 3)), 0.0)
        ),
    )
    monkeypatch.setattr(causes.measures, "of_pictures", lambda scenes, images: {})
    scenes = types.SimpleNamespace(example=None)
    for variant in causes.CAUSES["noise"] + causes.CAUSES["mean"]:
        causes._measured(None, None, scenes, 32, variant)
    assert set(asked) == {32.0}


def test_roc_areas_say_at_which_step_pictures_are_told_from_held_out_ones(tmp_path):
    rng = np.random.default_rng(0)
    known = rng.normal(size=(3, 9, 3))
    others = rng.normal(size=(3, 9, 3))
    others[1:, :, 0] += 100  # by the context, from the second step on
    found = unlike.early({unlike.HELD_OUT: known, "noise": others})
    assert set(found) == {"noise"} and found["noise"]["context_error"][1:] == [1.0, 1.0]
    assert 0.1 < found["noise"]["context_error"][0] < 0.9 and 0.1 < found["noise"]["spread"][2] < 0.9
    measured = {"context_psnr": 20.0, "mode_purity": 0.5, "diversity": 0.1}
    kinds = {kind: {"ddim": measured, "estimate": {"mode_purity": 0.1}} for kind in (unlike.HELD_OUT, "noise")}
    shown = {kind: [np.zeros((4, 4, 3))] * 4 for kind in kinds}
    page = unlike_page.write_page(tmp_path, {"kinds": kinds, "early": found}, shown).read_text()
    assert "noise after the first step with" in page and "after the last with 1.00 (context error)" in page


@pytest.mark.parametrize(
    ("study_main", "arguments", "message"),
    [
        (causes.main, ["--causes=heat"], "no cause 'heat'"),
        (unlike.main, ["--methods=heat"], "no method 'heat'"),
        (causes.main, [f"--config={CONFIGS / 'linear.py'}:tiny"], "needs a model of scenes"),
        (unlike.main, [f"--config={CONFIGS / 'linear.py'}:tiny"], "needs a model of scenes"),
    ],
)
def test_mistakes_of_the_other_studies_are_one_clear_error(tmp_path, capsys, study_main, arguments, message):
    assert study_main([f"--workdir={tmp_path / 'run'}", *arguments])
    printed = capsys.readouterr()
    assert message in printed.err and "Traceback" not in printed.err and not printed.out
