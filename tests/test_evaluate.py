"""`--mode=evaluate`, the whole of it, on a tiny untrained model."""

import csv
import dataclasses
import json
import pathlib
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from configs import published
from dfm_jax import main
from dfm_jax.commands import evaluate as evaluation
from dfm_jax.commands import evaluated_views
from dfm_jax.commands.evaluate import evaluate
from dfm_jax.config.reading import from_dict
from dfm_jax.data import make_toy
from dfm_jax.errors import UserError
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.pages import evaluation_page
from dfm_jax.runs.checkpoints import Checkpoints
from dfm_jax.runs.retention import Retention
from dfm_jax.runs.train_state import create
from dfm_jax.sampling import batches, trained
from dfm_jax.studies import compare, compared_evaluations, steps_sweep
from tests.programs import environment, run_command
from tests.test_sample import SIZE, tiny_config

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCENES, TARGETS, SAMPLES = 3, 3, 2


def save_untrained(config, workdir, seed=0):
    """A checkpoint of a model with small random parameters."""
    model = make_model(config)
    shapes, rng = parameter_shapes(model), np.random.default_rng(seed)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    with Checkpoints(workdir, keep=Retention(1)) as checkpoints:
        checkpoints.save(7, create(params, optax.sgd(0.1)), config)


def evaluated_config(workdir):
    """That of a run whose data set is in its workdir."""
    values = tiny_config(workdir / "data", guidance=1.0)
    values.evaluate.update(num_scenes=SCENES, num_target=TARGETS, num_samples=SAMPLES, sweep_samples=2 * SAMPLES)
    return from_dict(values)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with an untrained model, and what its evaluation returned."""
    workdir = tmp_path_factory.mktemp("run")
    config = evaluated_config(workdir)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("DFM_JAX_LPIPS", str(workdir / "nowhere.npz"))
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", 2 * SAMPLES * SIZE**2)  # two scenes at once, and as many of a sweep
    monkeypatch.setattr(evaluation.calibrate, "STEPS", (1, 2))
    save_untrained(config, workdir)
    result = evaluate(config, workdir)
    yield SimpleNamespace(workdir=workdir, folder=workdir / "evaluation", config=config, result=result)
    monkeypatch.undo()


def test_everything_is_written_and_says_the_same(run):
    stored = json.loads((run.folder / "metrics.json").read_text())
    images = [dict(np.load(path)) for path in sorted((run.folder / "scenes").glob("*.npz"))]
    errors = [((x["samples"].astype(float) - x["truth"]) / 255) ** 2 for x in images]  # [n, t, h, w, 3] of each scene
    psnr = np.mean([-10 * np.log10(error.mean((2, 3, 4))) for error in errors])
    assert stored["psnr"] == pytest.approx(psnr, abs=0.05)  # the images have 8 bits
    variance = np.mean([(x["samples"][:, 0] / 255).var(0).mean() for x in images])
    # The images have 8 bits.
    assert stored["variance"] == pytest.approx(variance, abs=1e-3)
    assert (stored["num_scenes"], stored["num_samples"], stored["num_skipped"]) == (SCENES, SCENES * SAMPLES, 0)
    for name in ("total_variation", "mode_purity", "context_psnr", "psnr", "psnr_best", "depth_error"):
        assert np.isfinite(stored[name]), name
    rows = list(csv.DictReader((run.folder / "scenes.csv").open()))
    assert len(rows) == SCENES and np.mean([float(row["psnr"]) for row in rows]) == pytest.approx(stored["psnr"])
    assert len(list(csv.DictReader((run.folder / "scenes" / "00001.csv").open()))) == SAMPLES * TARGETS
    page = (run.folder / "index.html").read_text()
    assert "Are the odds right?" in page and 'src="sweep.png"' in page and (run.folder / "samples.png").is_file()


def test_what_cannot_be_measured_is_said(run):
    assert "there are no LPIPS weights" in run.result["left_out"]["lpips"]
    assert "inception_file" in run.result["left_out"]["fid, kid"]
    assert run.result["lpips"] is None and "fid" not in run.result and "vgg_fid" not in run.result


def test_the_sweep_covers_every_sampler_and_number_of_steps(run):
    records = run.result["sweep"]
    points = [((record["sampler"], record["spacing"]), record["num_steps"]) for record in records]
    assert points == [(setting, steps) for setting in evaluation.calibrate.SETTINGS for steps in (1, 2)]
    # One step is the same for every sampler.
    assert records[0]["counts"] == records[2]["counts"] == records[4]["counts"]


def test_few_steps_are_compared_with_many(run, monkeypatch):
    monkeypatch.setattr(steps_sweep, "STEPS", (1, 2))  # which are compiled for the evaluation
    monkeypatch.setattr(steps_sweep, "LONG", 6)
    monkeypatch.setattr(steps_sweep, "SAMPLERS", ("ddim", "dpm-solver++"))  # which are compiled as well
    result = steps_sweep.sweep(run.config, run.workdir, run.workdir / "steps")
    records = result["records"]
    assert [r["num_steps"] for r in records] == [1] * 4 + [2] * 4 + [6] * 2
    for record in records[1:4]:
        # One step is the same for every sampler, but another program: dB of float32 images.
        assert record["to_uniform"]["psnr"] == pytest.approx(records[0]["to_uniform"]["psnr"], abs=1e-3)
    few, many = records[0], records[4]  # DDIM, uniform
    assert many["to_uniform"]["psnr"] > few["to_uniform"]["psnr"]
    assert records[-1]["to_uniform"]["psnr"] == records[-2]["to_log-snr"]["psnr"]
    written = json.loads((run.workdir / "steps" / "steps.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert (run.workdir / "steps" / "steps.png").stat().st_size > 10_000


def test_an_evaluation_goes_on_where_it_was_interrupted(run):
    scene = run.folder / "scenes" / "00001.json"
    before = json.loads(scene.read_text())
    untouched = run.folder / "scenes" / "00002.json"
    when = untouched.stat().st_mtime_ns
    scene.unlink()
    again = evaluate(run.config, run.workdir)
    assert untouched.stat().st_mtime_ns == when
    after = json.loads(scene.read_text())
    # dB: alone in its batch, a scene runs through another program.
    np.testing.assert_allclose(after["psnr"], before["psnr"], atol=1e-3)
    assert again["psnr"] == pytest.approx(run.result["psnr"], abs=1e-3)  # dB: as above


def test_an_evaluation_of_another_model_of_the_same_step_is_none_of_this_one(run, tmp_path, capsys):
    shutil.copytree(run.folder, tmp_path / "evaluation")
    save_untrained(run.config, tmp_path, seed=1)
    settings = dataclasses.replace(run.config.evaluate, sweep_samples=0)
    other = evaluate(dataclasses.replace(run.config, evaluate=settings), tmp_path)
    said = capsys.readouterr().err
    assert "evaluation holds results of something else (parameters: " in said and "are there already" not in said
    assert other["step"] == run.result["step"] and other["psnr"] != run.result["psnr"]
    assert other["made_from"]["parameters"] != run.result["made_from"]["parameters"]
    assert other["made_from"]["data"] == run.result["made_from"]["data"]
    for name in ("metrics.json", "scenes/00002.npz"):
        assert (tmp_path / "evaluation-old-1" / name).read_bytes() == (run.folder / name).read_bytes()


def test_fewer_scenes_than_asked_for_are_said(run, capsys):
    config = make_toy.with_data_set(run.config)
    data = evaluated_views.open_data(config)
    settings = dataclasses.replace(config.evaluate, num_scenes=99)
    views = evaluated_views.choose_views(dataclasses.replace(config, evaluate=settings), data).views
    said = capsys.readouterr().err
    assert len(views) == len(data) == 16
    assert "evaluating 16 scenes instead of config.evaluate.num_scenes=99: split 'test' of " in said
    evaluated_views.choose_views(config, data)
    assert "instead of" not in capsys.readouterr().err
    settings = run.result["settings"] | {"num_scenes": 99}
    assert "99 images were asked for" in evaluation_page._opening(run.result | {"settings": settings})
    assert "asked for" not in evaluation_page._opening(run.result)


def test_an_index_file_decides_and_its_skips_are_counted(run, tmp_path):
    stored = json.loads((run.folder / "protocol.json").read_text())
    wanted = [stored["examples"][1], {"scene": "nowhere", "context": [0], "target": [1]}]
    wanted[1:1] = [stored["examples"][0] | {"target": [99]}]
    index = tmp_path / "index.json"
    index.write_text(json.dumps(stored | {"examples": wanted}))
    single = {"protocol_name": "pixelsplat-single", "index": str(index), "sweep_samples": 0}
    settings = dataclasses.replace(run.config.evaluate, **single)
    (tmp_path / "checkpoints").symlink_to(run.workdir / "checkpoints")
    result = evaluate(dataclasses.replace(run.config, evaluate=settings), tmp_path)
    assert (result["num_scenes"], result["num_skipped"]) == (1, 2)
    assert [skip["scene"] for skip in result["skipped"]] == [stored["examples"][0]["scene"], "nowhere"]
    page = (tmp_path / "evaluation" / "index.html").read_text()
    assert "2 examples of the index file were skipped" in page and "no such scene" in page
    assert "<h1>Evaluation with holes: 1 of 3 examples, 1 of 3 scenes (1 with no such scene, 1 with a frame" in page
    assert "Open-DiffusionGS" in page and "21.26" in page and "6474 scenes; here 1 examples" in page
    assert result["protocol"]["ours"] == {"psnr": result["psnr"], "ssim": None, "lpips": None}
    differences = " ".join(result["protocol"]["differences"])
    assert "8 x 8 pixels here, 256 x 256" in differences and "lpips is not measured: there are no LPIPS" in differences
    scene = json.loads((tmp_path / "evaluation" / "scenes" / "00000.json").read_text())
    numbers = {kind: [frame["number"] for frame in scene[f"{kind}_frames"]] for kind in ("context", "target")}
    assert numbers == {kind: wanted[0][kind] for kind in ("context", "target")}
    assert [frame["name"] for frame in scene["context_frames"]] == [f"{wanted[0]['context'][0]:02d}"]


def test_the_command_prints_the_numbers_as_its_last_line(run, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "evaluate", lambda config, workdir, out: {"psnr": 1.5})
    assert main._dispatch("evaluate", run.config, str(run.workdir), None) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"psnr": 1.5}


@pytest.fixture(scope="module")
def pixelnerf(run, tmp_path_factory):
    """The same of an untrained pixelNeRF, on the same views."""
    workdir = tmp_path_factory.mktemp("pixelnerf")
    values = tiny_config(run.workdir / "data", guidance=1.0)
    published.pixelnerf(values)
    values.evaluate.update(num_scenes=SCENES, num_target=TARGETS, sweep_samples=3)
    config = from_dict(values)
    save_untrained(config, workdir)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("DFM_JAX_LPIPS", str(workdir / "nowhere.npz"))
    yield SimpleNamespace(workdir=workdir, folder=workdir / "evaluation", result=evaluate(config, workdir))
    monkeypatch.undo()


def test_pixelnerf_is_evaluated_by_the_same_command(pixelnerf):
    result = pixelnerf.result
    assert result["deterministic"] and result["num_samples"] == SCENES
    assert result["mode_purity"] == 0  # grey noise is of no colour
    assert result["sweep"] == []  # it takes no steps
    assert result["variance"] == 0 and result["pairwise_lpips"] is None
    page = (pixelnerf.folder / "index.html").read_text()
    assert "one answer" in page and "Best of" not in page and "Diversity" not in page and "None" not in page


def test_pixelnerf_and_the_diffusion_model_are_compared_on_the_same_views(run, pixelnerf, tmp_path, capsys):
    arguments = [f"dfm={run.workdir}", f"pixelnerf={pixelnerf.workdir}", f"--out={tmp_path / 'out'}"]
    assert compare.main(arguments) == 0
    printed = capsys.readouterr()
    numbers = json.loads(printed.out.splitlines()[-1])
    assert numbers == json.loads((tmp_path / "out" / "comparison.json").read_text())
    for name, evaluated in (("dfm", run), ("pixelnerf", pixelnerf)):
        last = json.loads((evaluated.folder / "metrics.json").read_text())  # of the run that went on, above
        for key in ("psnr", "psnr_best", "total_variation", "mode_purity", "step"):
            assert numbers["evaluations"][name][key] == last[key], (name, key)
    table = {line[:34].strip(): line[34:].split() for line in printed.err.splitlines()}
    assert table["All that is hidden: purity"] == [f"{x.result['mode_purity']:.1%}" for x in (run, pixelnerf)]
    assert table["PSNR, best sample"] == [f"{run.result['psnr_best']:.1f}", "dB"]  # one answer has no best
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<th>dfm</th><th>pixelnerf</th>" in page and 'src="evaluations.png"' in page
    assert numbers["differences"]["pixelnerf"]["psnr"]["num_scenes"] == SCENES and "too few scenes" in page
    assert "psnr_best" not in numbers["differences"]["pixelnerf"]  # one answer has no best
    sheet = np.asarray(Image.open(tmp_path / "out" / "evaluations.png"))
    assert sheet.shape[0] > 2 * SCENES * 96


def test_what_must_be_known_of_compared_evaluations_is_said(run, pixelnerf):
    """Another checkpoint since, another number of samples, other weights: on copies with such numbers."""
    numbers = {}
    for name, evaluated in (("a", run), ("b", pixelnerf), ("c", run)):
        numbers[name] = json.loads((evaluated.folder / "metrics.json").read_text())
        numbers[name] |= {"fid": 1.0, "lpips": 0.5, "fvd": 2.0}
        numbers[name]["made_from"] |= dict.fromkeys(("features", "video"), "1" if name == "a" else "2")
    numbers["c"]["settings"]["num_samples"] = 50
    numbers["c"]["made_from"]["parameters"] = "of others"
    numbers["b"]["step"] = 8
    workdirs = {"a": run.workdir, "b": pixelnerf.workdir, "c": run.workdir}
    loaded = {name: compared_evaluations.load_run(workdir / "evaluation") for name, workdir in workdirs.items()}
    runs = {name: dataclasses.replace(loaded[name], numbers=numbers[name]) for name in workdirs}
    assert compared_evaluations.notes(workdirs, runs) == [
        "b: the evaluation is of step 8, and the latest checkpoint there is of step 7; run --mode=evaluate again to "
        "compare that.",
        "c: the evaluation is of step 7, but of other parameters than the checkpoint of that step that is there now; "
        "run --mode=evaluate again to compare that.",
        "The best of more samples is better: a of 2, c of 50.",
        "Measured with different weights, and left out: FID, FVD.",
        "Pictures are of the first 3 samples (there are: c 50).",
    ]
    titles = [title for title, *_ in compared_evaluations.rows(runs)]
    assert "LPIPS" in titles and not {"FID", "FVD"} & set(titles)
    unchanged = {name: loaded[name] for name in "ab"}
    assert compared_evaluations.notes({name: workdirs[name] for name in "ab"}, unchanged) == []


def test_what_cannot_be_compared_is_one_clear_error(run, pixelnerf, tmp_path, capsys):
    assert compare.main([f"a={run.workdir}", f"b={tmp_path}", f"--out={tmp_path}"]) == 1
    assert f"b has none: run --mode=evaluate with --workdir={tmp_path}" in capsys.readouterr().err
    assert compare.main(["runs/toy", f"--out={tmp_path}"]) == 1
    assert "'runs/toy' is not NAME=WORKDIR" in capsys.readouterr().err
    shutil.copytree(pixelnerf.folder, tmp_path / "evaluation")
    views = tmp_path / "evaluation" / "protocol.json"
    views.write_text(json.dumps(json.loads(views.read_text()) | {"examples": []}))
    assert compare.main([f"a={run.workdir}", f"b={tmp_path}", f"--out={tmp_path}"]) == 1
    printed = capsys.readouterr()
    assert "were not evaluated on the same views" in printed.err and not printed.out


def test_four_devices_measure_what_one_measures(run, tmp_path):
    """Scenes and samples side by side on them; where these are fewer, rays: `test_devices.py`."""
    if jax.device_count() > 1:
        pytest.skip("this process has several devices itself")
    variables = environment(devices=4, DFM_JAX_LPIPS=tmp_path / "nowhere.npz")
    done = run_command("tests.on_four_devices.evaluation", run.workdir, tmp_path, env=variables)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[4, 1]]
    one, four = run.folder, tmp_path / "evaluation"
    tables = [list(csv.DictReader((folder / "scenes.csv").open())) for folder in (one, four)]
    assert [len(table) for table in tables] == [SCENES, SCENES]
    for a, b in zip(*tables, strict=True):
        assert a["scene"] == b["scene"]
        numbers = [[float(x) for name, x in row.items() if x and name != "scene"] for row in (a, b)]
        # Other programs: float32's rounding through sampling and rendering, in dB and in distances.
        np.testing.assert_allclose(numbers[1], numbers[0], rtol=1e-3, atol=1e-4)
    numbers = [json.loads((folder / "metrics.json").read_text()) for folder in (one, four)]
    measured = [{name: x for name, x in row.items() if isinstance(x, float)} for row in numbers]
    assert measured[0].keys() == measured[1].keys() >= {"psnr", "total_variation", "context_psnr"}
    for name in measured[0].keys() - {"seconds"}:
        assert measured[1][name] == pytest.approx(measured[0][name], rel=1e-3, abs=1e-4), name  # as above


def test_the_numbers_of_a_run_in_a_bucket_are_written_here(run, tmp_path, monkeypatch):
    """As `--mode=sample` does; only what reads the bucket is replaced."""
    asked, restore = [], trained.restore_params

    def restore_params(workdir):
        asked.append(workdir)
        return restore(run.workdir)

    monkeypatch.setattr(trained, "restore_params", restore_params)
    monkeypatch.chdir(tmp_path)
    settings = dataclasses.replace(run.config.evaluate, num_scenes=1, sweep_samples=0)
    evaluate(dataclasses.replace(run.config, evaluate=settings), "gs://bucket/runs/far")
    assert asked == ["gs://bucket/runs/far"] and [path.name for path in tmp_path.iterdir()] == ["far"]
    stored = json.loads((tmp_path / "far" / "evaluation" / "protocol.json").read_text())
    assert stored["about"] == "evaluated in far" and len(stored["examples"]) == 1


def test_no_checkpoint_and_no_scenes_are_clear_errors(run, tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        evaluate(run.config, tmp_path)
    values = tiny_config(pathlib.Path(run.config.data.dir))
    values.evaluate.num_samples = 0
    with pytest.raises(UserError, match=r"config\.evaluate\.num_samples must be at least 1"):
        from_dict(values)
