"""Runs side by side: parts are measured alone, the best sample counts as best, different views are refused, and whether
evaluations differ is what a paired bootstrap says."""

import dataclasses
import json
import runpy

import numpy as np
import pytest

from dfm_jax.errors import UserError
from dfm_jax.evaluation import paired_bootstrap, scene_store
from dfm_jax.studies import compare, compared_evaluations, compared_samples
from tests.test_scores import made_scores

SIZE = 16


@pytest.fixture(autouse=True)
def distance(monkeypatch):
    """In place of LPIPS, whose weights are not here: the mean difference."""
    monkeypatch.setattr(compared_samples.lpips, "load_default", lambda: lambda a, b: np.abs(a - b).mean())


def write_run(workdir, error_hidden, error_visible, samples=3, seed=0):
    """A sampled run whose samples are off by given amounts; sample j by (1 + j) times that."""
    rng = np.random.default_rng(seed)
    folder = workdir / "samples" / "scene_00"
    folder.mkdir(parents=True)
    hidden = np.zeros((SIZE, SIZE), bool)
    hidden[:, : SIZE // 2] = True
    truth = rng.uniform(0.3, 0.5, (SIZE, SIZE, 3)).astype(np.float32)
    error = np.where(hidden[..., None], error_hidden, error_visible)
    drawn = np.stack([truth + error * (1 + j) for j in range(samples)]).astype(np.float32)
    np.savez(folder / "arrays.npz", context=truth, truth=truth, samples=drawn, hidden=hidden)
    scenes = [{"name": "a", "arrays": "scene_00/arrays.npz"}]
    (workdir / "samples" / "samples.json").write_text(json.dumps({"scenes": scenes}))
    return workdir


def samples_of(folder, *errors, **others):
    """The numbers of one such run."""
    run = write_run(folder / "run", *errors, **others)
    return compare.compare({"run": str(run)}, folder / "out")[0]["samples"]["run"]


def test_parts_are_measured_alone(tmp_path):
    results = samples_of(tmp_path, 0.1, 0.01, samples=1)
    assert results["hidden"]["psnr"] == pytest.approx(20.0, abs=1e-3)  # dB: images are float32, an error of 1e-7 in 0.1
    # dB: images are float32, an error of 1e-7 in 0.01.
    assert results["visible"]["psnr"] == pytest.approx(40.0, abs=1e-3)
    # dB: images are float32.
    assert results["all"]["psnr"] == pytest.approx(-10 * np.log10((0.01 + 0.0001) / 2), abs=1e-3)
    assert results["visible"]["lpips"] == pytest.approx(0.005, abs=1e-5)
    assert results["hidden"]["lpips"] + results["visible"]["lpips"] == pytest.approx(results["all"]["lpips"], abs=1e-6)
    assert results["hidden"]["ssim"] < results["visible"]["ssim"] < 1


def test_the_mean_and_the_best_of_the_samples(tmp_path):
    results = samples_of(tmp_path, 0.1, 0.1)["all"]
    assert results["psnr_best"] == pytest.approx(20.0, abs=1e-3)  # dB: images are float32
    # dB: images are float32.
    assert results["psnr"] == pytest.approx(np.mean([-20 * np.log10(0.1 * k) for k in (1, 2, 3)]), abs=1e-3)
    assert results["lpips_best"] == pytest.approx(0.1, abs=1e-5) and results["lpips"] == pytest.approx(0.2, abs=1e-5)
    assert results["ssim_best"] > results["ssim"]


def test_a_perfect_run(tmp_path):
    results = samples_of(tmp_path, 0.0, 0.0)["all"]
    assert results["ssim"] == pytest.approx(1.0, abs=1e-5) and results["lpips"] == 0


def test_command_writes_a_picture_and_prints_the_numbers(tmp_path, capsys):
    runs = [f"{name}={write_run(tmp_path / name, 0.1 * k, 0.02)}" for k, name in enumerate(("one", "two"), start=1)]
    assert compare.main([*runs, f"--out={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr()
    numbers = json.loads(printed.out.strip().splitlines()[-1])
    assert numbers == json.loads((tmp_path / "out" / "comparison.json").read_text())
    found = numbers["samples"]
    assert found["one"]["hidden"]["psnr"] > found["two"]["hidden"]["psnr"] and numbers["left_out"] == {}
    assert len([line for line in printed.err.splitlines() if line.startswith("hidden")]) == 2
    assert (tmp_path / "out" / "samples.png").stat().st_size > 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "what it hides" in page and "<td>20.00</td>" in page and 'src="samples.png"' in page


def test_runs_on_other_views_are_refused(tmp_path):
    runs = {name: str(write_run(tmp_path / name, 0.1, 0.1, seed=seed)) for seed, name in enumerate("ab")}
    with pytest.raises(UserError, match="b and a were not sampled on the same views"):
        compare.compare(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("runs", "message"), [(["x=nowhere"], "x was neither evaluated nor sampled"), (["nowhere"], "is not NAME=WORKDIR")]
)
def test_mistakes_are_one_clear_error(tmp_path, capsys, runs, message):
    assert compare.main([*runs, f"--out={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_parts_that_nobody_knows_are_left_out():
    image = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    scene = compared_samples.SampledScene("a", image, image, image[None] + 0.1, None)
    measures, left_out = compared_samples.metrics(SIZE)
    assert compared_samples.measure([scene], measures).keys() == {"all"} and left_out == []
    assert compared_samples.picture({"run": [dataclasses.replace(scene)]}).dtype == np.uint8


def test_measures_that_cannot_be_had_are_left_out_and_said(monkeypatch):
    def load_default():
        raise UserError("there are no weights")

    monkeypatch.setattr(compared_samples.lpips, "load_default", load_default)
    measures, left_out = compared_samples.metrics(8)
    assert measures.keys() == {"psnr"}
    assert left_out[0].startswith("SSIM is left out: it needs 11 pixels") and "there are no weights" in left_out[1]


EARLIER = ("evaluation.compare", "evaluation.compare_evaluations", "studies.compare_evaluations")


@pytest.mark.parametrize("earlier", EARLIER)
def test_earlier_names_answer_with_what_to_use(earlier):
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"dfm_jax.{earlier}", run_name="__main__")
    assert ended.value.code.startswith(f"error: dfm_jax.{earlier} is dfm_jax.studies.compare now: python -m dfm_jax.")


# --- evaluations


def write_evaluation(workdir, psnr, names=None, seed=0, version=()):
    """An evaluation of a scene for each PSNR, of two samples of equal quality."""
    folder, rng = workdir / "evaluation", np.random.default_rng(seed)
    store = scene_store.SceneStore(folder, {"made from": "nothing"})
    names = names or [f"scene-{i}" for i in range(len(psnr))]
    image = rng.random((8, 8, 3))
    images = {"context": image[None], "truth": image[None], "samples": np.stack([image[None]] * 2), "estimate": image}
    for i, value in enumerate(psnr):
        store.write(i, made_scores([[value], [value]], name=names[i], variance=value / 100), images)
        if i in version:
            path = folder / "scenes" / f"{i:05d}.json"
            path.write_text(path.read_text().replace('"tsed"', '"tsed_of_before"'))
    numbers = {"step": 3, "deterministic": False, "settings": {"num_samples": 2}, "psnr": float(np.mean(psnr))}
    numbers |= {"num_scenes": len(psnr), "num_samples": 2 * len(psnr)}
    (folder / "metrics.json").write_text(json.dumps(numbers))
    views = {"frames": "source", "examples": [{"scene": name, "context": [0], "target": [1]} for name in names]}
    (folder / "protocol.json").write_text(json.dumps(views))
    return workdir


def test_hidden_attributes_and_the_ranks_of_truths_are_compared(tmp_path):
    """Of runs that have them: a model with one answer has no ranks, and earlier evaluations have neither."""
    scalar = {"levels": [0.5, 0.8, 0.95], "coverage": [0.5, 0.7, 0.9], "p": 0.25}
    attributes = {name: {"total_variation": value} for name, value in (("side", 0.02), ("shape", 0.04))}
    told = {
        "both": {"attributes": attributes, "scalars": {"height": {**scalar, "of_odds": {**scalar, "p": 0.5}}}},
        "one": {"attributes": attributes, "scalars": {}},
        "earlier": {},
    }
    for name, numbers in told.items():
        path = write_evaluation(tmp_path / name, [20.0, 21.0]) / "evaluation" / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | numbers))
    result, _ = compare.compare({name: str(tmp_path / name) for name in told}, tmp_path / "out")
    assert result["evaluations"]["both"]["attributes"] == attributes
    runs = {name: compared_evaluations.load_run(tmp_path / name / "evaluation") for name in told}
    table = {title: values for title, values, _ in compared_evaluations.rows(runs)}
    assert table["Side: total variation"] == ["0.020", "0.020", ""]
    assert table["Shape: total variation"] == ["0.040", "0.040", ""]
    assert table["Height: coverage of 80%"] == ["70.0%", "", ""] and table["Height: p of ranks"] == ["0.5", "", ""]


def test_evaluations_are_compared_by_scene(tmp_path, capsys):
    """A difference that is the same on all scenes is real, however much the scenes differ."""
    rng = np.random.default_rng(0)
    scenes = rng.normal(20, 5, 12)
    better, alike = scenes + rng.normal(0.5, 0.2, 12), scenes + rng.normal(0, 1.0, 12)
    runs = {"first": scenes, "better": better, "alike": alike}
    arguments = [f"{name}={write_evaluation(tmp_path / name, psnr)}" for name, psnr in runs.items()]
    assert compare.main([*arguments, f"--out={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    found = {name: result["differences"][name]["psnr"] for name in ("better", "alike")}
    assert found["better"]["mean"] == pytest.approx(np.mean(better - scenes))
    assert found["better"]["low"] > 0 and found["better"]["p"] < 0.001 and found["better"]["num_scenes"] == 12
    assert found["alike"]["low"] < 0 < found["alike"]["high"] and found["alike"]["p"] > 0.05
    assert {name: row["psnr"] for name, row in result["evaluations"].items()} == {
        name: pytest.approx(np.mean(psnr)) for name, psnr in runs.items()
    }
    page = (tmp_path / "out" / "index.html").read_text()
    assert "better against first" in page and page.count(">better</td>") >= 1 and ">not told apart</td>" in page
    assert any(line.startswith("psnr ") and line.endswith("*") for line in printed.err.splitlines())


def test_folders_of_evaluations_stand_for_their_runs(tmp_path):
    runs = {name: str(write_evaluation(tmp_path / name, [20.0] * 6) / "evaluation") for name in "ab"}
    result, _ = compare.compare(runs, tmp_path / "out")
    assert result["differences"]["b"]["psnr"]["p"] == 1 and "samples" not in result


def test_what_only_some_runs_have_is_left_out_and_said(tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        write_evaluation(tmp_path / name, [20.0] * 3)
        write_run(tmp_path / name, 0.1, 0.1, seed=seed)
    write_evaluation(tmp_path / "c", [20.0] * 3)
    runs = {name: str(tmp_path / name) for name in "abc"}
    result, _ = compare.compare({name: runs[name] for name in "ac"}, tmp_path / "out")
    assert result["left_out"] == {"samples": f"c has none: run --mode=sample with --workdir={runs['c']} first"}
    result, _ = compare.compare({name: runs[name] for name in "ab"}, tmp_path / "out")
    assert "b and a were not sampled on the same views" in result["left_out"]["samples"]
    assert "Left out: samples: b and a were not sampled" in (tmp_path / "out" / "index.html").read_text()
    assert result["differences"]["b"]["psnr"]["low"] is None  # of three scenes there is no interval
    assert "Left out" in capsys.readouterr().err


def test_scenes_of_another_version_have_means_but_no_intervals(tmp_path):
    versions = {"a": (), "b": (2,)}
    runs = {name: str(write_evaluation(tmp_path / name, [20.0] * 6, version=at)) for name, at in versions.items()}
    result, _ = compare.compare(runs, tmp_path / "out")
    assert result["differences"] == {} and result["evaluations"]["b"]["psnr"] == 20
    assert "Whether the differences are real is not known" in (tmp_path / "out" / "index.html").read_text()


# --- the paired bootstrap


def differences_of(values, scenes=None, seed=0):
    values = np.asarray(values, float)[:, None]
    scenes = [str(i) for i in range(len(values))] if scenes is None else scenes
    return paired_bootstrap.compare_paired(np.zeros_like(values), values, scenes, seed)[0]


def test_the_interval_of_many_scenes_is_that_of_normal_theory():
    values = np.random.default_rng(0).normal(0.3, 2.0, 400)
    found = differences_of(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    # Of 10 000 resamples, a quantile at 2.5 % is known to about 2 % of the half width.
    assert found.low == pytest.approx(values.mean() - half, abs=0.08 * half)
    # The same: about 2 % of the half width, and four times that is allowed.
    assert found.high == pytest.approx(values.mean() + half, abs=0.08 * half)


def test_intervals_hold_the_truth_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(paired_bootstrap, "RESAMPLES", 400)
    rng, count = np.random.default_rng(0), 400
    found = [differences_of(rng.normal(1.0, 1.0, 30), seed=i) for i in range(count)]
    held = np.mean([each.low <= 1 <= each.high for each in found])
    assert 0.90 < held < 0.98  # 0.95, a little less for 30 scenes; standard deviation 0.011
    honest = [differences_of(rng.normal(0.0, 1.0, 30), seed=i).p for i in range(count)]
    assert 0.02 < np.mean(np.array(honest) < 0.05) < 0.10  # about 0.05


def test_examples_of_one_scene_are_no_evidence_of_their_own():
    """Ten copies of each of eight scenes say no more than the eight."""
    values = np.random.default_rng(0).normal(0.5, 1.0, 8)
    one = differences_of(values)
    copied = differences_of(np.repeat(values, 10), [str(i // 10) for i in range(80)])
    assert (copied.mean, copied.low, copied.high) == pytest.approx((one.mean, one.low, one.high))
    assert copied.num_scenes == 8
    careless = differences_of(np.repeat(values, 10))
    assert careless.high - careless.low < 0.5 * (one.high - one.low)


def test_measures_that_are_not_known_everywhere():
    first, second = np.zeros((9, 3)), np.ones((9, 3))
    first[:3, 0], second[4:, 1], second[:, 2] = np.nan, np.nan, np.nan
    found = paired_bootstrap.compare_paired(first, second, [str(i) for i in range(9)])
    assert (found[0].mean, found[0].num_scenes, found[0].is_real) == (1.0, 6, True)
    assert (found[1].mean, found[1].num_scenes, found[1].low) == (1.0, 4, None) and found[2] is None
    same = paired_bootstrap.compare_paired(second, second, [str(i) for i in range(9)])[0]
    assert (same.mean, same.p, same.is_real) == (0.0, 1.0, False)


def test_memory_is_bounded(monkeypatch):
    whole = differences_of(np.random.default_rng(0).normal(0, 1, 50))
    monkeypatch.setattr(paired_bootstrap, "AT_ONCE", 1000)
    most, count = [], paired_bootstrap._times_drawn
    monkeypatch.setattr(paired_bootstrap, "_times_drawn", lambda drawn: most.append(drawn.size) or count(drawn))
    assert differences_of(np.random.default_rng(0).normal(0, 1, 50)) == whole and max(most) <= 1000
