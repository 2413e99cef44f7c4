"""Numbers of the published code, where they are at hand; and that the comparison can fail."""

import os
import pathlib
import sys

import jax
import numpy as np
import pytest

from dfm_jax.interop.published import export_state
from tests import parity
from tests.published_state import model_of, small_config
from tests.tiny import random_params, random_rotations

BESIDE = pathlib.Path(__file__).resolve().parents[2] / "shared" / "fixtures"
FIXTURES = sorted(pathlib.Path(os.environ.get("DFM_JAX_FIXTURES", BESIDE)).glob("*.npz"))
META = {
    "size": 8, "depth": 1, "hidden": 16, "heads": 2, "feat": 8, "mlp_hidden": 16, "num_context": 2, "n_coarse": 4,
    "n_fine": 3, "n_cond": 4, "abs_pose": True, "near": 0.5, "far": 4.0, "guidance": 2.0, "ddim_steps": 2,
    "temperature": 0.9, "render_chunk": 64,
}  # fmt: skip
RENDERED_FEATURES = 5


def published(path: pathlib.Path) -> object:
    """A fixture as a parameter; gradients take long to compile."""
    with np.load(path) as arrays:
        marks = [pytest.mark.slow] if "out/patch_loss" in arrays else []
    return pytest.param(path, id=path.stem, marks=marks)


@pytest.mark.skipif(not FIXTURES, reason="no fixtures (shared/fixtures/*.npz beside the repository)")
@pytest.mark.parametrize("path", [published(path) for path in FIXTURES])
def test_the_published_numbers_are_met(path):
    with jax.default_matmul_precision("highest"):
        errors = parity.compare(str(path))
    assert {name: error for name, error in errors.items() if not error <= parity.TOLERANCE} == {}


def poses(rng: np.random.Generator, *shape: int) -> np.ndarray:
    pose = np.broadcast_to(np.eye(4), (*shape, 4, 4)).copy()
    pose[..., :3, :3] = random_rotations(rng, shape, 0.3)
    pose[..., :3, 3] = rng.uniform(-0.3, 0.3, (*shape, 3))
    return pose.astype(np.float32)


def made_up_inputs(b: int = 2, t: int = 2) -> dict[str, np.ndarray]:
    rng, v, size = np.random.default_rng(0), META["num_context"], META["size"]
    image = lambda *shape: rng.uniform(-1, 1, (*shape, 3, size, size)).astype(np.float32)
    chunk, chunks = META["render_chunk"], size**2 // META["render_chunk"]
    # Two branches of two steps for the target, then two video frames.
    draws = (META["ddim_steps"] * 2 + 2) * chunks
    uniform = lambda *shape: rng.uniform(size=(*shape, META["n_fine"])).astype(np.float32)
    return {
        "ctxt_rgb": image(b, v), "trgt_rgb": image(b, t), "noisy_trgt_rgb": image(b), "sampling_noise": image(b),
        "ctxt_c2w": poses(rng, b, v), "trgt_c2w": poses(rng, b, t),
        "ctxt_abs_camera_poses": poses(rng, b, v), "trgt_abs_camera_poses": poses(rng, b, t),
        "intrinsics": np.tile(np.float32([[1.1, 0, 0.5], [0, 1.1, 0.5], [0, 0, 1]]), (b, 1, 1)),
        "t": np.array([100, 700][:b]), "field_points": rng.uniform(-1, 3, (b, 50, 3)).astype(np.float32),
        "importance_uniforms_full_image": uniform(chunks, b * t * chunk),
        "importance_uniforms_sampling": uniform(draws, b * chunk),
    }  # fmt: skip


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A fixture of our own making (guided, with fine samples, two context views, two scenes), its outputs, and what
    computes them."""
    path = tmp_path_factory.mktemp("parity") / "made_up.npz"
    sizes = {"depth": META["depth"], "width": META["hidden"], "num_heads": META["heads"], "features": META["feat"]}
    changes = {f"model.encoder.{name}": value for name, value in sizes.items()}
    changes |= {f"model.{field}.width": META["mlp_hidden"] for field in ("scene_field", "conditioning_field")}
    changes |= {
        "image_size": META["size"],
        "loss.patch_size": 1,
        "loss.lpips": 0,
        "model.rendered_features": RENDERED_FEATURES,
    }
    model = model_of(small_config(**changes))
    state = export_state(random_params(model), model, {})
    arrays = {"meta": np.array(repr(META))} | {f"params/{name}": array for name, array in state.items()}
    arrays |= {f"inputs/{name}": array for name, array in made_up_inputs().items()}
    np.savez(path, **arrays)
    fixture = parity.Fixture(str(path))
    run = parity.program(fixture)
    outputs = jax.device_get(run(fixture.params))
    np.savez(path, **arrays, **{f"out/{name}": value for name, value in outputs.items()})
    return path, outputs, run


@pytest.fixture
def fixture_file(made_up, monkeypatch):
    """The file, whose outputs are not computed again."""
    path, outputs, _ = made_up
    monkeypatch.setattr(parity, "compute", lambda fx: dict(outputs))
    return path


def run_main(monkeypatch, path: pathlib.Path) -> int:
    monkeypatch.setattr(sys, "argv", ["parity", str(path)])
    return parity.main()


def changed(path: pathlib.Path, tmp_path: pathlib.Path, **changes: np.ndarray) -> pathlib.Path:
    np.savez(tmp_path / "changed.npz", **(dict(np.load(path)) | {k.replace("__", "/"): v for k, v in changes.items()}))
    return tmp_path / "changed.npz"


def test_equal_numbers_pass(fixture_file, monkeypatch, capsys):
    assert run_main(monkeypatch, fixture_file) == 0
    assert "ddim_trajectory" in capsys.readouterr().out


def test_a_perturbed_parameter_fails(made_up, tmp_path, monkeypatch):
    path, _, run = made_up
    monkeypatch.setattr(parity, "program", lambda fx: run)  # the same inputs: it is compiled once
    name = "params/model.pixelNeRF_joint.mlp_fine.blocks.4.fc_0.bias"
    errors = parity.compare(str(changed(path, tmp_path, **{name: np.load(path)[name] + 0.05})))
    wrong = {name for name, error in errors.items() if error > parity.TOLERANCE}
    behind = {"field_density_fine", "field_radiance_fine", "denoised_views_rgb", "denoised_views_depth"}
    assert wrong == behind | {"ddim_trajectory"}


def test_a_number_that_is_not_finite_fails(fixture_file, tmp_path, monkeypatch):
    broken = np.load(fixture_file)["out/denoised_views_rgb"].copy()
    broken[0, 0, 0, 0] = np.nan
    assert run_main(monkeypatch, changed(fixture_file, tmp_path, out__denoised_views_rgb=broken)) == 1


def test_an_output_that_nothing_computes_is_an_error(fixture_file, tmp_path):
    path = changed(fixture_file, tmp_path, out__unheard_of=np.zeros(3))
    with pytest.raises(ValueError, match="unheard_of"):
        parity.compare(str(path))


def test_relative_error_is_relative_and_wants_equal_shapes():
    assert parity.relative_error(np.array([3.3, 4.4]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    assert parity.relative_error(np.zeros((2, 1)), np.zeros(2)) == 0
    with pytest.raises(ValueError, match="shape"):
        parity.relative_error(np.zeros(3), np.zeros(2))
