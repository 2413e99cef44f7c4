"""The command that says how few sampling steps are enough: its measure, and what it refuses. That it runs is tested
with the evaluation, on the same model."""

import pathlib

import numpy as np
import pytest

from dfm_jax.studies import steps_sweep

TOY = pathlib.Path(__file__).resolve().parents[1] / "configs" / "toy.py"


def test_how_near_samples_come():
    reference = np.full((4, 8, 8, 3), 0.5)
    images = reference + np.array([0.0, 0.01, 0.01, 0.2]).reshape(4, 1, 1, 1)
    near = steps_sweep.compare(images, reference, None, 2)
    assert near == {"psnr": pytest.approx(40.0), "same": 0.75}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"--config={TOY}:pixelnerf"], "is deterministic"),
        ([f"--config={TOY}"], "there is no checkpoint"),
        ([f"--config={TOY}", "--config.sample.spacing=even"], "must be one of uniform, log-snr"),
    ],
)
def test_mistakes_are_one_clear_error(tmp_path, capsys, arguments, message):
    assert steps_sweep.main([*arguments, f"--workdir={tmp_path / 'run'}"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and message in printed.err and not printed.out
