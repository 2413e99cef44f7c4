"""Runs side by side: parts are measured alone, the best sample counts as best, and different views are refused."""

import dataclasses
import json

import numpy as np
import pytest

from dfm_jax.errors import UserError
from dfm_jax.studies import compare

SIZE = 16


@pytest.fixture(autouse=True)
def distance(monkeypatch):
    """In place of LPIPS, whose weights are not here: the mean difference."""
    monkeypatch.setattr(compare.lpips, "load_default", lambda: lambda a, b: np.abs(a - b).mean())


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


def test_parts_are_measured_alone(tmp_path):
    results = compare.compare({"run": write_run(tmp_path / "run", 0.1, 0.01, samples=1)}, tmp_path / "out")["run"]
    assert results["hidden"]["psnr"] == pytest.approx(20.0, abs=1e-3)  # dB: images are float32, an error of 1e-7 in 0.1
    # dB: images are float32, an error of 1e-7 in 0.01.
    assert results["visible"]["psnr"] == pytest.approx(40.0, abs=1e-3)
    # dB: images are float32.
    assert results["all"]["psnr"] == pytest.approx(-10 * np.log10((0.01 + 0.0001) / 2), abs=1e-3)
    assert results["visible"]["lpips"] == pytest.approx(0.005, abs=1e-5)
    assert results["hidden"]["lpips"] + results["visible"]["lpips"] == pytest.approx(results["all"]["lpips"], abs=1e-6)
    assert results["hidden"]["ssim"] < results["visible"]["ssim"] < 1


def test_the_mean_and_the_best_of_the_samples(tmp_path):
    results = compare.compare({"run": write_run(tmp_path / "run", 0.1, 0.1)}, tmp_path / "out")["run"]["all"]
    assert results["psnr_best"] == pytest.approx(20.0, abs=1e-3)  # dB: images are float32
    # dB: images are float32.
    assert results["psnr"] == pytest.approx(np.mean([-20 * np.log10(0.1 * k) for k in (1, 2, 3)]), abs=1e-3)
    assert results["lpips_best"] == pytest.approx(0.1, abs=1e-5) and results["lpips"] == pytest.approx(0.2, abs=1e-5)
    assert results["ssim_best"] > results["ssim"]


def test_a_perfect_run(tmp_path):
    results = compare.compare({"run": write_run(tmp_path / "run", 0.0, 0.0)}, tmp_path / "out")["run"]["all"]
    assert results["ssim"] == pytest.approx(1.0, abs=1e-5) and results["lpips"] == 0


def test_command_writes_a_picture_and_prints_the_numbers(tmp_path, capsys):
    runs = [f"{name}={write_run(tmp_path / name, 0.1 * k, 0.02)}" for k, name in enumerate(("one", "two"), start=1)]
    assert compare.main([*runs, f"--out={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr()
    numbers = json.loads(printed.out.strip().splitlines()[-1])
    assert numbers == json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert numbers["one"]["hidden"]["psnr"] > numbers["two"]["hidden"]["psnr"]
    assert len([line for line in printed.err.splitlines() if line.startswith("hidden")]) == 2
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 0


def test_runs_on_other_views_are_refused(tmp_path):
    runs = {"a": write_run(tmp_path / "a", 0.1, 0.1), "b": write_run(tmp_path / "b", 0.1, 0.1, seed=1)}
    with pytest.raises(UserError, match="b and a were not sampled on the same views"):
        compare.compare(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("runs", "message"), [(["x=nowhere"], "run --mode=sample"), (["nowhere"], "is not NAME=WORKDIR")]
)
def test_mistakes_are_one_clear_error(tmp_path, capsys, runs, message):
    assert compare.main([*runs, f"--out={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_parts_that_nobody_knows_are_left_out():
    image = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    scene = compare.SampledScene("a", image, image, image[None] + 0.1, None)
    assert compare.measure([scene], compare.metrics()).keys() == {"all"}
    assert compare.picture({"run": [dataclasses.replace(scene)]}).dtype == np.uint8
