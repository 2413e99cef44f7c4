"""`--mode=compile`: what is read from a compiled program, and what is said of one that does not fit."""

import importlib.util
import json
import pathlib
import runpy
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from configs import toy
from dfm_jax.config import MeshConfig
from dfm_jax.config.command_line import read_config
from dfm_jax.config.reading import from_dict
from dfm_jax.data import make_toy
from dfm_jax.data.loading import pipeline
from dfm_jax.data.loading.abstract import abstract_example
from dfm_jax.errors import UserError
from dfm_jax.models import lpips
from dfm_jax.profiling import compile_report, compile_table, tpu_topology
from dfm_jax.training import setup, sharding

ROOT = pathlib.Path(__file__).resolve().parents[1]

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="compiling for TPUs needs libtpu: pip install 'dfm_jax[tpu]'"
)


def test_memory_of_a_program_is_the_sum_of_its_parts():
    analysis = SimpleNamespace(
        argument_size_in_bytes=100,
        output_size_in_bytes=90,
        alias_size_in_bytes=80,
        temp_size_in_bytes=50,
        generated_code_size_in_bytes=7,
    )
    assert compile_report.needed(analysis) == compile_report.Memory(100, 50, 7, peak_bytes=167, fits=True)


def test_a_refusal_is_read():
    message = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 74.51G of "
        "15.75G hbm. Exceeded hbm capacity by 58.76G."
    )
    memory = compile_report.refused(message, argument_bytes=2**30)
    assert not memory.fits
    assert memory.peak_bytes == round(74.51 * 2**30)
    assert memory.temp_bytes == memory.peak_bytes - 2**30
    with pytest.raises(UserError, match="the compiler failed: INTERNAL: something else"):
        compile_report.refused("INTERNAL: something else", argument_bytes=0)


@pytest.fixture
def one_device(monkeypatch):
    """A slice of the device that is here; a TPU's compiler is needed for others."""
    monkeypatch.setattr(tpu_topology, "describe", lambda *_: jax.devices()[:1])
    monkeypatch.setattr(tpu_topology, "MEMORY_GIB", {jax.devices()[0].device_kind: 16})
    cached = jax.config.jax_enable_compilation_cache
    yield
    jax.config.update("jax_enable_compilation_cache", cached)


def test_both_programs_of_a_config_are_compiled_and_reported(one_device, capsys):
    """Also of a model without images."""
    config = read_config(str(ROOT / "configs" / "linear.py") + ":tiny")
    compile_report.compile_report(config, "v5e:1x1")
    printed = capsys.readouterr()
    line = json.loads(printed.out.splitlines()[-1])
    assert (line["topology"], line["devices"], line["batch_per_device"]) == ("v5e:1x1", 1, config.train.batch_size)
    for report in (line, line["denoising"]):
        assert report["fits"] and report["collectives"] == {} and report["flops"] > 0
        assert 0 < report["argument_bytes"] < report["peak_bytes"] < report["hbm_bytes"] == 16 * 2**30
    assert [text.split(",")[0] for text in printed.err.splitlines()[1:]] == ["training step", "denoising step"]


def test_a_program_that_does_not_fit_is_reported_and_is_one_clear_error(one_device, monkeypatch, capsys):
    refusal = compile_report.Memory(5 * 2**30, 25 * 2**30, None, 30 * 2**30, fits=False)
    monkeypatch.setattr(compile_report, "needed", lambda _: refusal)
    with pytest.raises(UserError, match=r"training step does not fit: a device needs 30\.00 GiB and has 16\.00"):
        compile_report.compile_report(read_config(str(ROOT / "configs" / "linear.py") + ":tiny"), "v5e:1x1")
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["fits"], line["peak_bytes"], line["denoising"]["fits"]) == (False, 30 * 2**30, False)


def test_the_denoising_step_is_the_one_that_sampling_runs():
    """With a guidance interval, the branch without context is computed within it only."""
    mesh = sharding.make_mesh(MeshConfig(1, 1), jax.devices()[:1])

    def choices(**settings) -> int:
        config = toy.get_config("tiny")
        config.sample.update(settings)
        program, arguments = compile_report.denoising_program(from_dict(config), mesh, 1)
        return str(program.trace(*arguments).jaxpr).count("cond[")

    assert choices(guidance=2.0, guidance_from=0.2) == choices(guidance=2.0) + 1


def test_the_table_has_its_earlier_name_as_well(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compile_table", "--help"])
    monkeypatch.delitem(sys.modules, "dfm_jax.profiling.compile_table")  # as where nothing has imported it yet
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("dfm_jax.evaluation.compile_table", run_name="__main__")
    printed = capsys.readouterr()
    assert ended.value.code == 0 and "--results" in printed.out
    assert "is dfm_jax.profiling.compile_table now" in printed.err


def test_libtpu_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'dfm_jax\[tpu\]'"):
        tpu_topology.describe("v5e:2x2")


def test_memory_of_chips_is_known_or_asked_for():
    assert tpu_topology.memory_bytes(SimpleNamespace(device_kind="TPU v5 lite")) == 16 * 2**30
    with pytest.raises(UserError, match="memory of 'TPU v99' is not known"):
        tpu_topology.memory_bytes(SimpleNamespace(device_kind="TPU v99"))


@pytest.mark.parametrize("topology", ["v5e", "v5e-16", "4x4", "v5e:4", "v5p:2x2x2x2"])
def test_what_is_no_topology_is_refused(topology, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "libtpu")
    with pytest.raises(UserError, match="such as v4:2x2x4"):
        tpu_topology.describe(topology)


def test_the_shapes_of_a_batch_are_those_that_are_read(tmp_path):
    config = toy.get_config("tiny")
    config.data.update(dir=str(tmp_path), toy_scenes=4)
    config.data.view_sampling.max_context = 3
    config = from_dict(config)
    data = make_toy.ensure_toy(config.data, config.image_size)
    batch = next(pipeline.training_batches(data, image_size=config.image_size, batch_size=2, seed=0))
    abstract = abstract_example(config, 2)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(lambda x: (x.shape, x.dtype), abstract)


def test_weights_need_not_be_there_to_compile(monkeypatch):
    monkeypatch.setenv(lpips.ENVIRONMENT, "nowhere.npz")
    config = toy.get_config("tiny")
    config.loss.update(pixels="patch", patch_size=16, lpips=1.0)
    mesh = sharding.make_mesh(MeshConfig(1, 1), jax.devices()[:1])
    _, arguments = compile_report.training_program(from_dict(config), mesh)
    needed = sorted(lpips.shapes().values())
    assert sorted(x.shape for x in jax.tree.leaves(arguments[3])) == needed
    with pytest.raises(UserError, match=r"no LPIPS weights at nowhere\.npz"):
        setup.make_train_setup(from_dict(config))


def test_bytes_on_a_device_are_those_of_its_part():
    mesh = sharding.make_mesh(MeshConfig(1, 1), jax.devices()[:1])
    placed = NamedSharding(mesh, P(("data", "fsdp")))
    array = jax.ShapeDtypeStruct((4, 3), jnp.float32, sharding=placed)
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=sharding.replicated(mesh))
    assert compile_report.bytes_per_device((array, key)) == 48 + 8


@needs_libtpu
@pytest.mark.parametrize(
    ("topology", "num_slices", "devices"), [("v5e:1x1", 1, 1), ("v5e:2x2", 2, 8), ("v4:2x2x1", 1, 4)]
)
def test_devices_of_slices(topology, num_slices, devices):
    found = tpu_topology.describe(topology, num_slices)
    assert len(found) == devices
    assert tpu_topology.memory_bytes(found[0]) in (16 * 2**30, 32 * 2**30)
    if num_slices > 1:
        mesh = sharding.make_mesh(MeshConfig(-1, 2), found)
        assert mesh.devices.shape == (4, 2)
        slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
        np.testing.assert_array_equal(slices, [[0, 0], [0, 0], [1, 1], [1, 1]])
        with pytest.raises(UserError, match="data must be a multiple of"):
            sharding.make_mesh(MeshConfig(1, -1), found)


@needs_libtpu
def test_a_tiny_config_fits_a_small_slice(capsys):
    config = toy.get_config("tiny")
    config.image_size = 8
    config.model.update(rendered_features=4, estimate_size=4)
    config.model.encoder.update(depth=1, width=16, num_heads=2, features=8)
    config.model.ray_marching.update(num_coarse=4, num_conditioning=4)
    config.loss.patch_size = 4
    compile_report.compile_report(from_dict(config), "v5e:2x2")
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["fits"] and line["denoising"]["fits"]
    assert line["devices"] == 4
    assert 0 < line["argument_bytes"] < line["peak_bytes"] < line["hbm_bytes"]
    assert line["collectives"]["all-reduce"]["count"] >= 1
    assert line["denoising"]["collectives"] == {}


def line(scenes, fits, topology="v5e:2x2"):
    report = {"config": "configs/co3d.py:128", "topology": topology, "options": [], "batch_per_device": scenes}
    sizes = {"argument_bytes": 2**30, "peak_bytes": scenes * 5 * 2**30, "hbm_bytes": 16 * 2**30, "flops": 3 * 10**12}
    sent = {"all-gather": {"count": 3, "bytes": 2**29}} if fits else None
    return report | sizes | {"devices": 4, "fits": fits, "collectives": sent, "compile_s": 61.0}


def test_the_table_tries_more_scenes_until_they_do_not_fit_and_once_only(tmp_path, monkeypatch):
    tried = []

    def run(config, topology, scenes, options):
        tried.append((topology, scenes))
        return line(scenes, scenes <= 2, topology)

    monkeypatch.setattr(compile_table, "run", run)
    for _ in range(2):
        for topology in ("v5e:2x2", "v5e:4x4"):
            compile_table.fill(tmp_path / "results.jsonl", "configs/co3d.py:128", topology, [])
    assert tried == [(topology, scenes) for topology in ("v5e:2x2", "v5e:4x4") for scenes in (1, 2, 4)]
    rows = compile_table.table(compile_table.read(tmp_path / "results.jsonl")).splitlines()[2:]
    assert rows[0] == "| `co3d.py:128` | v5e:2x2 | 4 | 2 | 1.0 GiB | 10.0 GiB | 16.0 GiB | 3.0 | 0.5 GiB | 61 s |"
    assert compile_table.table([line(1, False)]).splitlines()[2].split(" | ")[3] == "0"


def test_what_was_compiled_of_something_else_is_compiled_again_and_not_shown(tmp_path, monkeypatch, capsys):
    config, results, fits = str(ROOT / "configs" / "co3d.py") + ":128", tmp_path / "results.jsonl", [True]
    monkeypatch.setattr(compile_table, "MOST_SCENES", 1)
    monkeypatch.setattr(compile_table, "run", lambda config, topology, scenes, options: line(scenes, fits[0], topology))

    def fill():
        """Whether anything was compiled, and what was said of it."""
        capsys.readouterr()
        before = len(compile_table.read(results))
        compile_table.fill(results, config, "v5e:2x2", [])
        said = [text for text in capsys.readouterr().err.splitlines() if "again" in text]
        return len(compile_table.read(results)) - before, said

    assert fill() == (1, []) and fill() == (0, [])
    known = compile_table.made_from(config, [])
    assert known != compile_table.made_from(config, ["--config.train.batch_size=2"])
    monkeypatch.setattr(compile_table, "made_from", lambda *_: known | {"jax": "later"})
    fits[0] = False
    count, said = fill()
    assert count == 1 and f"of something else (jax: {known['jax']} -> later): compiling it again" in said[0]
    assert [row.split(" | ")[3] for row in compile_table.table(compile_table.read(results)).splitlines()[2:]] == ["0"]
