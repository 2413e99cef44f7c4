"""Metrics against closed forms, plain numpy and scikit-image."""

import numpy as np
import pytest

from dfm_jax.evaluation import image_metrics


def test_psnr_of_a_known_error():
    truth = np.full((2, 4, 5, 3), 0.5)
    image = truth + np.array([0.1, 0.01])[:, None, None, None]
    np.testing.assert_allclose(image_metrics.psnr(image, truth), [20.0, 40.0], atol=1e-9)


def test_psnr_of_equal_images_is_infinite():
    assert image_metrics.psnr(np.ones((4, 4, 3)), np.ones((4, 4, 3))) == np.inf


def pairs(count: int = 3, height: int = 24, width: int = 33) -> tuple[np.ndarray, np.ndarray]:
    """Images of gentle waves, and the same with more and more noise."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [0.5 + 0.4 * np.sin(x / a + y / b) for a, b in rng.uniform(2, 6, (3 * count, 2))]
    truth = np.stack(waves).reshape(count, 3, height, width).transpose(0, 2, 3, 1)
    noise = rng.normal(size=truth.shape) * 0.05 * np.arange(1, count + 1)[:, None, None, None]
    return np.clip(truth + noise, 0, 1).astype(np.float32), truth.astype(np.float32)


def test_psnr_and_ssim_agree_with_scikit_image():
    reference = pytest.importorskip("skimage.metrics", reason="compares with scikit-image, which is not installed")
    images, truths = pairs()
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}  # as Wang et al. have it
    for image, truth in zip(images, truths, strict=True):
        psnr = reference.peak_signal_noise_ratio(truth, image, data_range=1)
        assert image_metrics.psnr(image, truth) == pytest.approx(
            psnr, abs=1e-4
        )  # dB: they compute in float64, we in float32
        ssim = reference.structural_similarity(truth, image, data_range=1, channel_axis=-1, **window)
        # Variances as differences in float32; they cut the window's tails elsewhere.
        assert image_metrics.ssim(image, truth) == pytest.approx(ssim, abs=2e-4)


def test_ssim_of_a_batch_is_that_of_each_image_and_1_of_equal_ones():
    images, truths = pairs()
    singly = [image_metrics.ssim(image, truth) for image, truth in zip(images, truths, strict=True)]
    np.testing.assert_allclose(image_metrics.ssim(images, truths), singly, rtol=1e-5)
    stacked = image_metrics.ssim(np.stack([images, truths]), np.stack([truths, truths]))
    np.testing.assert_allclose(stacked, [singly, np.ones(len(singly))], rtol=1e-5)
    assert 1 > singly[0] > singly[1] > singly[2]
    np.testing.assert_allclose(image_metrics.ssim(truths, truths), 1, rtol=1e-5)


def test_ssim_of_tiny_images_is_refused():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        image_metrics.ssim(np.ones((10, 30, 3)), np.ones((10, 30, 3)))


def test_total_variation():
    assert image_metrics.total_variation([5, 3, 2], [0.5, 0.3, 0.2]) == pytest.approx(0.0)
    assert image_metrics.total_variation([10, 0, 0], [0.5, 0.3, 0.2]) == pytest.approx(0.5)
    assert image_metrics.total_variation([0, 7], [1.0, 0.0]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no counts"):
        image_metrics.total_variation([0, 0], [0.5, 0.5])


def test_mode_shares_see_the_two_tone_face_that_a_mean_hides():
    shade = np.linspace(0.6, 1.0, 100)[:, None]
    modes = np.eye(3)[:, None] * shade  # [3, 100, 3]
    two_tone = np.concatenate([modes[0, :80], modes[1, 80:]])
    np.testing.assert_allclose(image_metrics.mode_shares(modes[2] + 0.1, modes), [0, 0, 1])
    np.testing.assert_allclose(image_metrics.mode_shares(modes[2] + 0.2, modes), [0, 0, 0])  # 0.2 sqrt(3) > 0.25
    np.testing.assert_allclose(image_metrics.mode_shares(two_tone, modes), [0.8, 0.2, 0])
    assert image_metrics.nearest_mode(two_tone, modes) == 0
    assert image_metrics.nearest_mode(modes[2] + 0.2, modes) == 2
