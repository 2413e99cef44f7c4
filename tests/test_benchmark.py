"""`--mode=benchmark`, as a user starts it, but of small matrices; and what it makes of what it measured."""

import json
import math

import jax
import pytest

from dfm_jax import platforms
from dfm_jax.config.command_line import read_config
from dfm_jax.errors import UserError
from dfm_jax.profiling import programs
from dfm_jax.profiling.benchmark import benchmark
from dfm_jax.profiling.measure import REFUSALS, checked_to_fit, compile_program
from dfm_jax.profiling.synthetic import synthetic_example
from tests.programs import ROOT, environment, run_command

SMALL = (
    "--config.model.encoder.depth=1", "--config.sample.num_steps=2", "--config.train.batch_size=4",
    "--config.model.ray_marching.num_coarse=4", "--config.image_size=16", "--config.model.encoder.width=16",
    "--config.model.scene_field.view_blocks=1", "--config.model.conditioning_field.view_blocks=1",
)  # fmt: skip
PARTS = {"matrix product", "preparation", "encoder", "denoising step", "sample", "video frame", "training step"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    arguments = (
        *("main", 10**6, "dfm_jax.main"),
        f"--config={ROOT / 'configs' / 'toy.py'}:tiny",
        "--mode=benchmark",
        f"--config.data.dir={empty}",
        *SMALL,
    )
    return run_command("tests.launched", *arguments, cwd=empty, env=environment(DFM_JAX_LPIPS="nowhere.npz"))


def test_it_ends_in_one_json_object_of_finite_numbers(measured):
    assert measured.returncode == 0, measured.stderr
    result = json.loads(measured.stdout.splitlines()[-1])
    for name in ("encoder_s", "denoise_step_s", "sample_s", "train_step_s", "render_rays_per_s", "train_peak_bytes"):
        assert math.isfinite(result[name]) and result[name] > 0, name
    assert result["flops"].keys() == result["matmul_share"].keys() == result["runs"].keys() == PARTS
    assert all(0 < share < 1.5 for share in result["matmul_share"].values())
    assert result["resident_peak_bytes"] > result["train_peak_bytes"]
    # Two steps of sampling are at least twice a denoising step's work.
    assert result["flops"]["sample"] > 2 * result["flops"]["denoising step"]


def test_it_prints_a_table_and_says_what_it_could_not_measure(measured):
    lines = measured.stdout.splitlines()[:-1]
    assert all(any(line.startswith(part) for line in lines) for part in PARTS)
    assert json.loads(measured.stdout.splitlines()[-1])["load_views_per_s"] is None
    assert "reading is not measured" in measured.stderr


def test_what_the_device_refuses_is_a_line_of_the_result(monkeypatch, capsys):
    """Another program than those that are chosen would be compiled, and fail the test."""

    def refuse(self, name, **settings):
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: Out of memory: {name}")

    monkeypatch.setitem(programs.PRODUCT_SIDE, "cpu", 64)
    monkeypatch.setattr(programs.Inference, "compile", refuse)
    config = read_config(str(ROOT / "configs" / "toy.py") + ":tiny")
    result = benchmark(config, ["prepare", "denoise"])
    assert result["failed"].keys() == {"preparation", "denoising step"}
    assert result["failed"]["preparation"] == "out of memory: RESOURCE_EXHAUSTED: Out of memory: preparation"
    assert result["runs"].keys() == {"matrix product"} and result["matmul_flops_per_s"] > 0
    assert result["denoise_step_s"] is None and result["load_views_per_s"] is None
    assert "preparation      out of memory" in capsys.readouterr().out


def test_a_program_that_takes_more_than_the_machine_has_is_not_started(monkeypatch):
    compiled = compile_program(lambda x: x @ x, jax.ShapeDtypeStruct((4, 4), "float32"))
    assert checked_to_fit(compiled) is compiled
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(platforms, "memory_bytes", lambda: compiled.peak_bytes - 1.0)
    with pytest.raises(REFUSALS, match=r"it takes 0\.0 GB, and this machine has 0\.0"):
        checked_to_fit(compiled)


def test_a_program_that_does_not_exist_is_one_clear_error():
    with pytest.raises(UserError, match="--programs=denoize is not known: choose of prepare,encoder,denoise"):
        benchmark(read_config(str(ROOT / "configs" / "toy.py")), ["denoise", "denoize"])


@pytest.mark.parametrize("file", ["configs/co3d.py:128", "configs/captures.py"])
def test_made_up_input_has_the_shapes_of_the_config(file):
    config = read_config(file)
    example, views = synthetic_example(config, 3), config.data.view_sampling
    assert example.context.images.shape == (3, views.max_context, config.image_size, config.image_size, 3)
    assert example.target.camera.intrinsics.shape == (3, views.num_target, 3, 3)
    assert bool((example.near > 0).all() and (example.far > example.near).all())
