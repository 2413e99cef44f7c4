"""Lenses: OpenCV's formulas, pictures whose points land where the pinhole camera puts them, and nothing black."""

import cv2
import numpy as np
import pytest

from dfm_jax.data.preparing import undistort
from dfm_jax.data.preparing.undistort import Lens
from dfm_jax.errors import Rejected

FULL = Lens((1.1, 1.4), (0.48, 0.52), distortion=(-0.2, 0.05, 0.001, -0.002, 0.01, 0.02, -0.01, 0.003))
LENSES = {
    "barrel": Lens((1.0, 1.25), (0.5, 0.5), distortion=(-0.3, 0.05)),
    "pincushion": Lens((1.0, 1.25), (0.52, 0.47), distortion=(0.2, 0.02, 0.004, -0.003)),
    "rational": FULL,
    "fisheye": Lens((0.45, 0.6), (0.49, 0.52), distortion=(0.03, -0.01, 0.004, -0.001), fisheye=True),
}
HEIGHT, WIDTH = 160, 200


def rays(count=40, reach=0.35):
    return np.random.default_rng(0).uniform(-reach, reach, (count, 2))


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
def test_formulas_are_those_of_opencv(lens):
    points = np.c_[rays(reach=0.5), np.ones(40)][:, None]
    project = cv2.fisheye.projectPoints if lens.fisheye else cv2.projectPoints
    coefficients = np.pad(lens.distortion, (0, (4 if lens.fisheye else 8) - len(lens.distortion)))
    expected, _ = project(points, np.zeros(3), np.zeros(3), lens.intrinsics, coefficients)
    pixels = undistort.distort(points[:, 0, :2], lens) * lens.focal + lens.centre
    np.testing.assert_allclose(pixels, expected[:, 0], atol=1e-12)


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
def test_points_of_a_picture_land_where_the_pinhole_camera_puts_them(lens):
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    intrinsics, tried = undistort.pinhole(lens), 0
    for ray in rays():
        bent = (undistort.distort(ray, lens) * lens.focal + lens.centre) * [WIDTH, HEIGHT]
        spot = 255 * np.exp(-((x - bent[0]) ** 2 + (y - bent[1]) ** 2) / (2 * 2.5**2))
        expected = (intrinsics @ [*ray, 1])[:2] * [WIDTH, HEIGHT]
        if (expected < 12).any() or (expected > [WIDTH - 12, HEIGHT - 12]).any():
            continue
        straight = undistort.undistort(np.repeat(spot[..., None], 3, -1).astype(np.uint8), lens)[..., 0].astype(float)
        centroid = np.array([(straight * x).sum(), (straight * y).sum()]) / straight.sum()
        # Pixels: a spot of 2.5 pixels is bent, too; half a pixel would be a wrong corner.
        np.testing.assert_allclose(centroid, expected, atol=0.25)
        tried += 1
    assert tried > 10


def border_seen(lens):
    """Where the lens saw the pinhole camera's border, normalised."""
    side = np.linspace(0, 1, 1000)
    edges = [np.stack([side, 0 * side + end], -1) for end in (0, 1)]
    border = np.concatenate([*edges, *(edge[:, ::-1] for edge in edges), [[0.5, 0.5]]])
    inverse = np.linalg.inv(undistort.pinhole(lens))
    through = border @ inverse[:2, :2].T + inverse[:2, 2]
    return undistort.distort(through, lens) * lens.focal + lens.centre, through


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
def test_the_pinhole_camera_sees_only_and_nearly_all_that_it_can(lens):
    seen, _ = border_seen(lens)
    assert seen.min() > -1e-4 and seen.max() < 1 + 1e-4
    assert min(seen.min(), 1 - seen.max()) < 1e-3


def test_the_widest_fisheye_is_cut_to_a_sensible_field_of_view():
    _, through = border_seen(Lens((0.25, 0.25), (0.5, 0.5), distortion=(), fisheye=True))
    assert np.abs(through).max() == pytest.approx(undistort.MAX_RAY)


def test_a_lens_that_bends_nothing_keeps_its_camera():
    lens = Lens((1.2, 1.3), (0.4, 0.6), skew=0.01, distortion=(0.0, 0.0))
    np.testing.assert_array_equal(undistort.pinhole(lens), [[1.2, 0.01, 0.4], [0, 1.3, 0.6], [0, 0, 1]])


@pytest.mark.parametrize(
    "lens",
    [
        Lens((1.0, 1.0), (0.5, 0.5), distortion=(float("nan"),)),
        Lens((0.0, 1.0), (0.5, 0.5), distortion=(0.1,)),
        Lens((1.0, 1.0), (5.0, 0.5), distortion=(0.1,)),
        Lens((1.0, 1.0), (0.5, 0.5), distortion=(1e300, -1e300)),
        Lens((1.0, 1.0), (0.5, 0.5), distortion=(-1e6,)),
        Lens((1.0, 1.0), (0.5, 0.5), skew=0.1, distortion=(0.1,)),
        Lens((1e-300, 1.0), (0.5, 0.5), fisheye=True),
    ],
)
def test_numbers_of_no_lens_are_rejected(lens):
    with pytest.raises(Rejected):
        undistort.pinhole(lens)


def test_a_polynomial_that_turns_round_is_used_only_where_it_does_not():
    lens = Lens((0.7, 0.7), (0.5, 0.5), distortion=(-0.5,))  # turns at a radius of 0.82; the corner is at 1.0
    _, through = border_seen(lens)
    assert np.linalg.norm(through, axis=-1).max() < 0.83  # found in steps of a 64th


def test_pictures_too_large_for_opencv_are_rejected():
    with pytest.raises(Rejected, match="cannot be undone"):
        undistort.undistort(np.zeros((2, 40_000, 3), np.uint8), LENSES["barrel"])
