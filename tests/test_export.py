"""`--mode=export`: what it writes is the model, and needs neither this package nor its libraries."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import linear
from dfm_jax.commands import export_scenes
from dfm_jax.commands.export import export
from dfm_jax.commands.stablehlo import to_example, to_inputs
from dfm_jax.config.reading import from_dict
from dfm_jax.data import make_toy
from dfm_jax.data.loading import pipeline, toy_data
from dfm_jax.denoiser import cache_context, guided_denoise
from dfm_jax.diffusion.samplers import ddim
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.diffusion.timesteps import uniform_timesteps
from dfm_jax.errors import UserError
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.runs import fingerprints
from dfm_jax.runs.checkpoints import Checkpoints, restore_params
from dfm_jax.runs.retention import Retention
from dfm_jax.runs.train_state import create
from dfm_jax.sampling import trained
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from tests.programs import PATIENCE
from tests.test_sample import tiny_config
from tests.tiny import jit

pytest.importorskip("flatbuffers", reason="jax.export needs it: install this package again")

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "sample_exported.py"
# Where an import of the package fails, whatever is installed.
ALONE = f"import runpy, sys; sys.modules['dfm_jax'] = None; runpy.run_path({str(SCRIPT)!r})"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A config, its parameters and what was exported of them."""
    workdir = tmp_path_factory.mktemp("run")
    config = from_dict(tiny_config(workdir / "data"))
    make_toy.ensure_toy(config.data, config.image_size)
    model = make_model(config)
    shapes, rng = parameter_shapes(model), np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    with Checkpoints(workdir, keep=Retention(1)) as checkpoints:
        checkpoints.save(7, create(params, optax.sgd(0.1)), config)
    export(config, workdir, workdir / "elsewhere")
    return config, model, params, workdir / "elsewhere"


def test_the_script_is_short_and_imports_nothing_of_ours():
    assert len(SCRIPT.read_text().splitlines()) <= 40
    assert "import dfm_jax" not in SCRIPT.read_text() and "from dfm_jax" not in SCRIPT.read_text()


def test_without_the_package_the_same_images_are_drawn(exported):
    config, model, params, folder = exported
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    drawn = np.load(folder / "samples.npy")

    settings, size = config.sample, config.image_size
    data = toy_data.find_toy(config.data, size)
    example, _ = pipeline.evaluation_examples(data, image_size=size, num_scenes=settings.num_scenes)
    guide = DiffusionSampler.from_config(config, params).guidance
    noise = np.random.default_rng(0).normal(size=(settings.num_scenes, size, size, 3)).astype("f")

    @jit
    def sample(params, example, noise):
        schedule = cosine_schedule(config.diffusion.num_timesteps)
        cache = cache_context(params, model, example, guided=True)

        def denoise_fn(x, timestep, average):
            denoised, _ = guided_denoise(params, model, x, timestep, cache, guide, average)
            return denoised.x0, average

        times = uniform_timesteps(schedule, settings.num_steps)
        return ddim(denoise_fn, noise, schedule, times, carry=jnp.zeros_like(noise))

    assert settings.guidance != 1 and settings.temperature == 1
    # Another program: float32's rounding, grown by guidance.
    np.testing.assert_allclose(drawn, sample(params, example, noise), atol=2e-5)


def test_what_is_exported_is_a_workdir_to_sample_from(exported):
    config, _, params, folder = exported
    ema, step, saved = restore_params(folder)
    assert step == 7 and saved["image_size"] == config.image_size
    jax.tree.map(np.testing.assert_array_equal, ema, params)


def test_it_is_for_all_platforms_and_any_number_of_scenes(exported):
    read = jax.export.deserialize((exported[3] / "denoiser.jax_export").read_bytes())
    assert set(read.platforms) == {"cpu", "cuda", "tpu"}
    about = json.loads((exported[3] / "export.json").read_text())
    assert len(about["alpha_bar"]) == 1000 and about["parameters"] == fingerprints.of_arrays(exported[2])
    params, inputs = (dict(np.load(exported[3] / f"{name}.npz")) for name in ("params", "inputs"))
    size = about["image_size"]
    three = {name: np.resize(x, (3, *x.shape[1:])) for name, x in inputs.items()}  # the script draws two
    x0 = read.call(params, three, jnp.zeros((3, size, size, 3)), jnp.full(3, 500))
    assert x0.shape == (3, size, size, 3) and np.isfinite(x0).all()


def test_inputs_are_what_the_denoiser_needs_of_an_example(exported):
    config, model, params, _ = exported
    data = toy_data.find_toy(config.data, config.image_size)
    example, _ = pipeline.evaluation_examples(data, image_size=config.image_size, num_scenes=2)
    again = to_example(to_inputs(example), example)
    context = jit(lambda example: model.encode_context(params, example))
    jax.tree.map(np.testing.assert_array_equal, context(example), context(again))


def test_scenes_are_sampled_and_exported_and_the_next_time_found(exported, tmp_path, monkeypatch):
    config, _, _, folder = exported
    few = dataclasses.replace(config.sample, num_scenes=1, num_samples=2)
    config = dataclasses.replace(config, sample=few)
    restored, restore = [], trained.restore_params
    monkeypatch.setattr(trained, "restore_params", lambda workdir: restored.append(workdir) or restore(workdir))
    told = export(config, folder, tmp_path, ["transforms", "parameters"], num_views=2)
    assert restored == [folder]  # once for both kinds
    assert json.loads(json.dumps(told)) == told
    assert (told["frame"], told["scale"], told["psnr_to_field"]) == ("source", 1.0, None)
    assert told["formats"].keys() == {"transforms", "parameters"} and told["formats"]["transforms"]["views"] == 2
    folders = [tmp_path / "scene_00" / f"sample_0{j}" / "transforms" for j in range(2)]
    assert [pathlib.Path(file) for file in told["formats"]["transforms"]["files"]] == folders
    assert all(pathlib.Path(file).exists() for file in told["files"])
    assert not (tmp_path / "denoiser.jax_export").exists()  # it was not asked for
    monkeypatch.setattr(export_scenes, "sample_scenes", None)
    again = export(config, folder, tmp_path, ["colmap"], num_views=2)
    assert again["formats"].keys() == {"colmap"} and again["formats"]["colmap"]["views"] == 2
    assert not folders[0].exists() and (tmp_path / "params.npz").exists()


def test_formats_that_cannot_be_are_one_clear_error(exported, tmp_path):
    config, _, _, folder = exported
    with pytest.raises(UserError, match=r"no format 'obj'; there are .*points, .*, stablehlo, parameters"):
        export(config, folder, tmp_path, ["stablehlo", "obj"])
    with pytest.raises(UserError, match="num_views is a number from 1"):
        export(config, folder, tmp_path, ["points"], num_views=0)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file: exports go to a folder"):
        export(config, folder, tmp_path / "file", ["points"])
    with pytest.raises(UserError, match="--format=points needs a model of scenes"):
        export(from_dict(linear.get_config()), folder, tmp_path, ["points"])
    (tmp_path / "scene_1").mkdir()
    with pytest.raises(UserError, match="holds scene_1 of something else"):
        export(config, folder, tmp_path, ["points"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "scene_1"]


def test_without_data_there_are_no_inputs_and_without_a_checkpoint_nothing(exported, tmp_path, capsys):
    config, _, _, folder = exported
    with pytest.raises(UserError, match="no checkpoint"):
        export(config, tmp_path)
    remembering = dataclasses.replace(config, sample=dataclasses.replace(config.sample, guidance_momentum=-0.5))
    with pytest.raises(UserError, match="guidance_momentum=0"):
        export(remembering, folder)
    elsewhere = from_dict(tiny_config(tmp_path / "nowhere"))
    assert not (folder.parent / ".export.incomplete").exists()
    export(elsewhere, folder)  # what was exported can be exported
    assert "without inputs.npz: there is no data set" in capsys.readouterr().err
    assert not (folder / "export" / "inputs.npz").exists()
