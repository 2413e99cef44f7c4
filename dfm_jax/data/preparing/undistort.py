"""Lenses: pictures that bend straight lines, made into what a pinhole camera would have seen.

Notation: a *ray* is (x / z, y / z) of a point in the camera's OpenCV axes; a pixel (px, py) of the distorted picture is
`focal * distort(ray) + centre`, with the centre of the first pixel at (0.5, 0.5). A lens with focal length and centre
divided by the picture's size describes every scaled copy of the picture.

The pinhole camera keeps the lens's principal point and pixel aspect; its focal lengths are the lens's times one *zoom*,
the smallest for which every pixel of it was seen by the lens: nothing black at the border.
"""

import dataclasses
import functools

import cv2
import numpy as np

from dfm_jax.errors import Rejected

MAX_RAY = np.tan(np.deg2rad(60))  # the pinhole camera sees no further than this from its axis along x or y
MIN_ZOOM, MAX_ZOOM = 0.1, 10.0
BORDER_POINTS = 65  # on each side, where the pinhole camera's border is looked up
BISECTIONS = 40


@dataclasses.dataclass(frozen=True)
class Lens:
    """A camera, normalised by the width and height of its picture."""

    focal: tuple[float, float]
    centre: tuple[float, float]
    skew: float = 0.0
    distortion: tuple[float, ...] = ()  # k1 k2 p1 p2 k3 k4 k5 k6 as in OpenCV, k4 to k6 dividing; fisheye: k1 to k4
    fisheye: bool = False  # equidistant, as in cv2.fisheye: a polynomial of the angle from the axis

    @property
    def bends(self) -> bool:
        return self.fisheye or any(self.distortion)

    @property
    def intrinsics(self) -> np.ndarray:
        """[3, 3], without the distortion."""
        return np.array([[self.focal[0], self.skew, self.centre[0]], [0, self.focal[1], self.centre[1]], [0, 0, 1]])


def distort(rays: np.ndarray, lens: Lens) -> np.ndarray:
    """Where the lens bends rays [..., 2] to."""
    x, y = rays[..., 0], rays[..., 1]
    k = np.zeros(8)
    k[: len(lens.distortion)] = lens.distortion
    r2 = x * x + y * y
    if lens.fisheye:
        r = np.sqrt(r2)
        angle = np.arctan(r)
        bent = angle * _polynomial(angle**2, k[:4])
        return rays * np.where(r > 1e-8, bent / np.maximum(r, 1e-8), 1.0)[..., None]
    radial = _polynomial(r2, k[[0, 1, 4]]) / _polynomial(r2, k[5:8])
    p1, p2 = k[2:4]
    sideways = np.stack([2 * p1 * x * y + p2 * (r2 + 2 * x * x), p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], axis=-1)
    return rays * radial[..., None] + sideways


def _polynomial(x: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """1 + c0 x + c1 x^2 + ..."""
    return 1 + sum(c * x ** (i + 1) for i, c in enumerate(coefficients))


@functools.lru_cache(maxsize=64)  # a capture's frames mostly share their lens
def pinhole(lens: Lens) -> np.ndarray:
    """Normalised intrinsics [3, 3] of the camera whose picture `undistort` makes.

    Raises:
      Rejected: numbers that no lens has.
    """
    if not lens.bends:
        return lens.intrinsics
    if lens.skew:
        raise Rejected("a camera with both skew and lens distortion is not supported")
    numbers = np.array([*lens.focal, *lens.centre, *lens.distortion])
    if not np.isfinite(numbers).all() or min(lens.focal) <= 0:
        raise Rejected("intrinsics are not finite, or a focal length is not positive")
    low, high = max(MIN_ZOOM, *(0.5 / (f * MAX_RAY) for f in lens.focal)), MAX_ZOOM
    with np.errstate(all="ignore"):  # absurd coefficients overflow; what is not finite is not seen
        if low > high or not _sees(lens, high):
            raise Rejected(f"lens distortion {lens.distortion} leaves nothing to see")
        if _sees(lens, low):
            high = low
        for _ in range(BISECTIONS if high > low else 0):
            middle = np.sqrt(low * high)
            low, high = (low, middle) if _sees(lens, middle) else (middle, high)
    return Lens((high * lens.focal[0], high * lens.focal[1]), lens.centre).intrinsics


def _sees(lens: Lens, zoom: float) -> bool:
    """Whether the lens saw every ray of the pinhole camera of that zoom, each in a place of its own."""
    side = np.linspace(0, 1, BORDER_POINTS)
    zero, one = np.zeros_like(side), np.ones_like(side)
    border = np.concatenate(
        [np.stack(points, axis=-1) for points in ((side, zero), (side, one), (zero, side), (one, side))]
    )
    rays = (border - lens.centre) / (zoom * np.array(lens.focal))
    seen = distort(rays, lens) * lens.focal + lens.centre
    inside = (seen >= 0).all() and (seen <= 1).all()  # False where not finite
    # Beyond the radius where a polynomial turns round, far rays would land on near ones.
    outwards = distort(rays * np.linspace(0, 1, BORDER_POINTS)[:, None, None], lens)
    steps = np.diff((outwards * rays).sum(-1), axis=0)
    return bool(inside and (steps[:, (rays != 0).any(-1)] > 0).all())


def undistort(picture: np.ndarray, lens: Lens) -> np.ndarray:
    """The picture [h, w, 3] uint8 of the camera `pinhole(lens)`, from one seen through the lens.

    Raises:
      Rejected: OpenCV cannot do it, for instance for more than 32767 pixels a side.
    """
    height, width = picture.shape[:2]
    to_pixels = np.array([[width, 0, -0.5], [0, height, -0.5], [0, 0, 1.0]])  # OpenCV: the first pixel's centre is 0
    seen_through, wanted = to_pixels @ lens.intrinsics, to_pixels @ pinhole(lens)
    coefficients = np.zeros(4 if lens.fisheye else 8)
    coefficients[: len(lens.distortion)] = lens.distortion
    maps = cv2.fisheye.initUndistortRectifyMap if lens.fisheye else cv2.initUndistortRectifyMap
    try:
        columns, rows = maps(seen_through, coefficients, np.eye(3), wanted, (width, height), cv2.CV_32FC1)
        return cv2.remap(picture, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    except cv2.error as error:
        raise Rejected(f"lens distortion cannot be undone ({error})") from error
