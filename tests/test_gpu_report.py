"""The GPU report: at tiny sizes on the CPU, and what becomes of measurements that crash, hang or do not fit."""

import json
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.errors import UserError
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.profiling import gpu_page, maths_tests, pytorch_baseline, tasks, trace_summary
from dfm_jax.profiling.measure import Program, compile_program, describe, run_interleaved, showing_progress
from dfm_jax.profiling.measurement_plan import (
    PUBLISHED,
    SIZES,
    TESTS_OF_MATHS,
    TINY,
    make_plan,
    measurements,
)
from dfm_jax.profiling.session import Session, best_chunk, fit
from dfm_jax.profiling.synthetic_parameters import synthetic_parameters
from tests.programs import ROOT, environment, run_command
from tests.tiny import tiny_model

MEASURED = (
    "products, fp32", "copy", "attention of 1 x 16 tokens, forward and backward, ",
    "denoising step 64, bf16, chunks of 16", "marching alone",
)  # fmt: skip


def report(out, *arguments, **variables):
    command = "dfm_jax.profiling.gpu_report", f"--out={out}", "--sizes=tiny", *arguments
    return run_command(*command, env=environment(**variables))


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return out, report(out, *[f"--only={name}" for name in MEASURED])


def test_it_measures_what_was_asked_for_and_says_what_failed(reported):
    out, run = reported
    assert run.returncode == 0, run.stderr
    results = json.loads((out / "results.json").read_text())["results"]
    assert len(results) == len(MEASURED) + 1
    failed = {name: numbers["failed"] for name, numbers in results.items() if "failed" in numbers}
    # There is no cuDNN on a CPU, and that stops nothing.
    assert list(failed) == ["attention of 1 x 16 tokens, forward and backward, cudnn"], failed
    step = results["denoising step 64, bf16, chunks of 16"]
    assert step["chunk"] == 16 and step["flops"] > 0 and step["seconds"] > 0 and step["peak_bytes"] > 0
    assert results["products, fp32"]["relative_error"] < 1e-5
    assert "denoising step 64, bf16, chunks of 16" in run.stderr  # progress


def test_its_pages_say_what_was_measured_on_what_and_what_is_missing(reported):
    out, run = reported
    for text in ((out / "index.html").read_text(), (out / "gpu.md").read_text(), run.stdout):
        assert "Measured on one CPU" in text and "say nothing" in text
        assert "denoising step 64, bf16, chunks of 16" in text and "not reached" in text


@pytest.mark.slow
def test_the_whole_plan_runs_at_tiny_sizes(tmp_path):
    run = report(tmp_path, "--time=3000", "--yardstick=nowhere.py")
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    failed = {name: x["failed"] for name, x in results.items() if "failed" in x}
    assert run.returncode == 0 and results.keys() == {m.name for m in measurements(make_plan(TINY))}
    expected = lambda name: name.startswith("yardstick") or name.endswith("cudnn")
    assert [name for name in failed if not expected(name)] == [], failed
    assert results["resuming, deterministic"]["same_when_repeated"]
    for step in ("denoising", "training"):
        assert results[f"kernels of a {step} step 64, bf16"]["parts"]["field"] > 0


# --- the plan


def test_tests_of_the_maths_are_there():
    assert [name for name in TESTS_OF_MATHS if not (ROOT / "tests" / f"{name}.py").is_file()] == []


def test_names_are_unique_and_every_setting_can_be_read():
    for sizes in SIZES.values():
        every = list(measurements(make_plan(sizes)))
        assert len({m.name for m in every}) == len(every)
        session = Session(sizes, {})
        for m in every:
            if m.kind in ("inference", "training", "trace", "training trace", "lookups", "marching", "chained"):
                config, precision, chunk = (m.settings[x] for x in ("config", "precision", "chunk"))
                made = session.config(config, precision, chunk, m.settings.get("overrides", ()), "denoising")
                assert made.loss.lpips == 0
    assert session.config("co3d, three views", "bf16", 16, (), "denoising").data.view_sampling.max_context == 3


def test_published_sizes_are_the_published_configs_and_ordered_by_worth():
    session = Session(PUBLISHED, {})
    config = session.config("128", "tf32", 512, (), "denoising")
    assert (config.image_size, config.model.encoder.depth, config.model.encoder.width) == (128, 28, 1152)
    assert (config.model.compute_dtype, config.model.ray_marching.chunk_size) == ("float32", 512)
    names = [m.name for m in measurements(make_plan(PUBLISHED))]
    before = lambda first, then: names.index(first) < names.index(then)
    assert before("yardstick: denoising step 64, bf16", "tests of the maths")
    assert before("denoising step 64, bf16, chunks of 1024", "attention of 1 x 256 tokens, forward, cudnn")


def test_the_best_chunk_is_the_fastest_that_was_measured():
    step = "denoising step 64, bf16, chunks of"
    results = {f"{step} 512": {"seconds": 2.0}, f"{step} 4096": {"seconds": 1.0}, f"{step} 128": {"failed": "no"}}
    assert best_chunk(PUBLISHED, results, "denoising") == 4096
    assert best_chunk(PUBLISHED, {}, "denoising") in PUBLISHED.chunks
    session = Session(PUBLISHED, results)
    assert session.config("64", "bf16", "best", (), "denoising").model.ray_marching.chunk_size == 4096


# --- parts


def test_the_yardsticks_numbers_are_read_from_what_it_prints():
    class Fake:
        torch = types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: False))

        @staticmethod
        def denoise(size, runs, precision, full):
            print(json.dumps({"denoise_step_s": size / runs, "peak_rss_gb": 2.0}))

    numbers = pytorch_baseline.call(Fake, 4, what="denoise", size=8, precision="fp32")
    assert numbers == {"seconds": 2.0, "peak_bytes": 2e9, "runs": 4}


def test_tests_are_counted_and_those_that_fail_are_named(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    parametrized = "@pytest.mark.parametrize('x', ['a b', 'c'])\ndef test_b(x): assert x == 'c'\n"
    (tmp_path / "tests" / "test_some.py").write_text(f"import pytest\ndef test_a(): pass\n{parametrized}")
    monkeypatch.setattr(maths_tests, "ROOT", tmp_path)
    monkeypatch.setattr(maths_tests, "AT_ONCE", 1)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)  # options of this project's plugins
    *_, last = maths_tests.run(["test_some"], "")
    assert last["counts"] == {"passed": 2, "failed": 1} and last["code"] == 1
    assert last["not_passed"] == ["tests/test_some.py::test_b[a b]"]


def test_what_does_not_fit_is_a_failure_of_its_own_and_the_rest_runs():
    compiled = compile_program(lambda x: x @ x, jax.ShapeDtypeStruct((4, 4), jnp.float32))
    assert compiled.flops == 2 * 4**3

    def refuse():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes")

    programs = {"large": Program(compiled, refuse), "small": Program(compiled, lambda: compiled.call(jnp.eye(4)))}
    run_interleaved(programs, rounds=2)
    assert programs["large"].failure.startswith("out of memory: RESOURCE_EXHAUSTED") and not programs["large"].seconds
    assert len(programs["small"].seconds) == 2 and programs["small"].median_s > 0
    assert describe(RuntimeError(programs["large"].failure)) == programs["large"].failure


def test_the_memory_of_a_training_step_is_known_even_if_it_does_not_fit(monkeypatch):
    compiled = compile_program(lambda x: x @ x, jax.ShapeDtypeStruct((4, 4), jnp.float32))

    def refuse():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(tasks.Training, "compile", lambda self, **settings: compiled)
    monkeypatch.setattr(tasks.Training, "program", lambda self, compiled: Program(compiled, refuse))
    session = Session(TINY, {})
    (m,) = (m for m in measurements(make_plan(TINY)) if m.name == "training step co3d, three views, bf16")
    task = tasks.TASKS[m.kind](session, m.name, **m.settings)
    numbers = task.run(task.compile())
    assert numbers["failed"].startswith("out of memory") and numbers["peak_bytes"] == compiled.peak_bytes > 0
    assert "seconds" not in numbers and numbers["chunk"] == TINY.training_chunks[0]


def test_what_takes_long_says_so_while_it_runs(capsys):
    with showing_progress("sample", expected=90.0, every=0.05):
        time.sleep(0.3)
    assert "sample: 0 s of about 90 s" in capsys.readouterr().err


def test_made_up_parameters_have_the_models_shapes_and_an_ordinary_size():
    model = tiny_model()
    made = synthetic_parameters(model, jax.random.key(0))
    shapes = parameter_shapes(model)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)
    kernel = np.asarray(made["scene_field"]["coarse"]["point_in"]["kernel"])
    # Ten standard deviations of a spread that is estimated from 624 numbers.
    assert np.std(kernel) * np.sqrt(kernel.shape[0]) == pytest.approx(1, abs=0.3)


def test_arrays_of_another_format_or_half_the_batch_will_do():
    arrays = {"x": jnp.ones((2, 3)), "valid": jnp.ones(2, bool)}
    shape = lambda n, dtype: {
        "x": jax.ShapeDtypeStruct((n, 3), dtype),
        "valid": jax.ShapeDtypeStruct((n,), bool),
    }
    assert fit(arrays, shape(2, jnp.float32))["x"] is arrays["x"]
    half = fit(arrays, shape(4, jnp.bfloat16))
    assert half["x"].shape == (4, 3) and half["x"].dtype == jnp.bfloat16 and half["valid"].shape == (4,)
    assert fit(arrays, shape(3, jnp.float32)) is None and fit(arrays["x"], shape(2, jnp.float32)) is None
    # A number is no random key, and an index no float.
    assert fit(jnp.ones(1, jnp.int32), jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))) is None
    assert fit(jnp.ones(1, jnp.int32), jax.ShapeDtypeStruct((1,), jnp.float32)) is None


def test_kernels_are_summed_by_the_scope_that_they_come_from():
    event = lambda name, ms, **stats: types.SimpleNamespace(name=name, duration_ns=ms * 1e6, stats=list(stats.items()))
    stream = types.SimpleNamespace(
        name="Stream #7",
        events=[event("k1", 2, hlo_op="fusion.1"), event("k1", 3, hlo_op="fusion.1"), event("gemm_2", 4)],
    )
    sums = types.SimpleNamespace(name="XLA Ops", events=[event("fusion.1", 5, hlo_op="fusion.1")])
    planes = [
        types.SimpleNamespace(name="/device:GPU:0", lines=[stream, sums]),
        types.SimpleNamespace(name="/host:CPU", lines=[types.SimpleNamespace(name="t", events=[event("host", 99)])]),
    ]
    spent = trace_summary.total_by_kernel(planes)
    assert spent == {("k1", "fusion.1"): (pytest.approx(5e-3), 2), ("gemm_2", ""): (pytest.approx(4e-3), 1)}
    hlo = """HloModule jit_f, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

%fused_computation.1 (p.1: f32[4]) -> f32[4] {
  %p.1 = f32[4]{0} parameter(0)
  ROOT %add.7 = f32[4]{0} add(%p.1, %p.1), metadata={op_name="jit(f)/RadianceField.query/lookup/gather"}
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %fusion.1 = f32[4]{0} fusion(%p), kind=kLoop, calls=%fused_computation.1
  ROOT gemm.2 = f32[4]{0} custom-call(%p), metadata={op_name="jit(f)/DiTEncoder.encode_noisy/dot" source_line=1}
}"""
    summary = trace_summary.summarize(spent, trace_summary.origins(hlo))
    assert summary["parts"] == {"lookup": pytest.approx(5e-3), "encoder": pytest.approx(4e-3)}
    assert [k["runs"] for k in summary["kernels"]] == [2, 1]


# --- pages


def made_up_results():
    row = {
        "seconds": 0.01,
        "flops": 4e12,
        "peak_bytes": 6e9,
        "temp_bytes": 1e9,
        "compile_s": 30.0,
        "chunk": 1024,
        "rays": 4096,
    }
    return {
        "products, bf16": {"seconds": 1, "flops_per_s": 8e14, "relative_error": 1e-3, "flops": 1},
        "yardstick: denoising step 64, bf16": {"seconds": 0.05, "peak_bytes": 9e9},
        "yardstick: training step 64, bf16": {"failed": "out of memory: 73 GB"},
        "denoising step 64, bf16, chunks of 128": row | {"seconds": 0.02},
        "denoising step 64, bf16, chunks of 1024": row,
        "training step 64, bf16, chunks of 128": row | {"peak_bytes": 20e9},
        "training step co3d, three views, bf16": {k: v for k, v in row.items() if k != "seconds"}
        | {"failed": "out of memory: 31 GB", "peak_bytes": 31e9},
        "video frame 64, bf16": row,
        "resuming, by default": {"digest": "x", "same_when_repeated": False, "same_when_resumed": True, "steps": 6},
        "tests of the maths": {"counts": {"passed": 9, "failed": 1}, "not_passed": ["tests/test_a.py::b|c"]},
    }


def test_tables_say_what_was_reached_of_the_goals(tmp_path):
    data = {"card": "NVIDIA H100", "sizes": "published", "device": {"jax": "0.11.2"}, "results": made_up_results()}
    gpu_page.write(tmp_path, data, make_plan(PUBLISHED))
    text = (tmp_path / "gpu.md").read_text()
    assert "Measured on one NVIDIA H100" in text and "say nothing" not in text
    goals = {row.split(" | ")[0].strip("| "): row.split(" | ")[1:] for row in text.splitlines() if row.startswith("| ")}
    assert goals["denoising step 64, bf16: times as fast as PyTorch"] == ["5.00", "at least 3.00", "yes |"]
    assert goals["its share of the measured rate of bf16 products"] == ["50%", "at least 40%", "yes |"]
    assert goals["training step of co3d.py:128, three context views, AdamW: GB"] == ["31.0", "at most 30.0", "no |"]
    assert (
        "times as fast as PyTorch" in text and "training step 64, bf16: times" not in text
    )  # the yardstick did not fit
    assert "out of memory: 73 GB" in text and "done again other bits" in text and r"b\|c" in text
    assert "0.41 M" in text  # rays a second


def test_the_tables_go_between_two_marks_of_a_document(tmp_path):
    data = {"card": "CPU", "sizes": "tiny", "device": {}, "results": made_up_results()}
    page = tmp_path / "page.md"
    page.write_text(f"before\n{gpu_page.BEGIN}\nold\n{gpu_page.END}\nafter\n")
    gpu_page.insert(page, data, make_plan(TINY))
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text and "one CPU" in text
    gpu_page.insert(page, data, make_plan(TINY))
    assert page.read_text() == text
    page.write_text("no marks")
    with pytest.raises(UserError, match="must hold"):
        gpu_page.insert(page, data, make_plan(TINY))
