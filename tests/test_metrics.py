"""Metrics against closed forms and plain numpy."""

import numpy as np
import pytest

from dfm_jax import metrics


def test_psnr_of_a_known_error():
    truth = np.full((2, 4, 5, 3), 0.5)
    image = truth + np.array([0.1, 0.01])[:, None, None, None]
    np.testing.assert_allclose(metrics.psnr(image, truth), [20.0, 40.0], atol=1e-9)


def test_psnr_of_equal_images_is_infinite():
    assert metrics.psnr(np.ones((4, 4, 3)), np.ones((4, 4, 3))) == np.inf


def test_total_variation():
    assert metrics.total_variation([5, 3, 2], [0.5, 0.3, 0.2]) == pytest.approx(0.0)
    assert metrics.total_variation([10, 0, 0], [0.5, 0.3, 0.2]) == pytest.approx(0.5)
    assert metrics.total_variation([0, 7], [1.0, 0.0]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no counts"):
        metrics.total_variation([0, 0], [0.5, 0.5])


def test_mode_share_sees_the_two_tone_face_that_a_mean_hides():
    modes = np.eye(3)
    clean = np.tile(modes[0], (100, 1)) + 0.1
    two_tone = np.concatenate([np.tile(modes[0], (60, 1)), np.tile(modes[1], (40, 1))])
    assert metrics.mode_share(clean, modes) == 1.0
    assert metrics.mode_share(two_tone, modes) == pytest.approx(0.6)
    assert metrics.nearest_mode(two_tone, modes) == 0
    assert metrics.mode_share(np.full((10, 3), 1 / 3), modes) == 0.0
