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


def test_mode_shares_see_the_two_tone_face_that_a_mean_hides():
    shade = np.linspace(0.6, 1.0, 100)[:, None]
    modes = np.eye(3)[:, None] * shade  # [3, 100, 3]
    two_tone = np.concatenate([modes[0, :80], modes[1, 80:]])
    np.testing.assert_allclose(metrics.mode_shares(modes[2] + 0.1, modes), [0, 0, 1])
    np.testing.assert_allclose(metrics.mode_shares(modes[2] + 0.2, modes), [0, 0, 0])  # 0.2 sqrt(3) > 0.25
    np.testing.assert_allclose(metrics.mode_shares(two_tone, modes), [0.8, 0.2, 0])
    assert metrics.nearest_mode(two_tone, modes) == 0
    assert metrics.nearest_mode(modes[2] + 0.2, modes) == 2
