"""Points that two pictures share, and how well they agree with the pictures' cameras.

Notation: points are normalised, as intrinsics are: (0, 0) to (1, 1) over a square picture. A point of one picture lies,
in another, on its *epipolar line*, whatever its depth; how far the point that was found there is from the line is its
*error*. Lines are (a, b, c) with a x + b y + c = 0 and a^2 + b^2 = 1, so that errors are shares of the picture's side.
"""

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np

MAX_SIZE = 640  # pixels, of the pictures in which points are looked for
MAX_FEATURES = 2000
CONTRAST = 0.02  # half of what is usual: pictures are small
RATIO = 0.8  # best to second best descriptor distance
TOLERANCE = 0.01  # by which a match may miss the epipolar geometry that fits most of them
MIN_MATCHES = 12  # of a pair
USUAL_ANGLE = np.deg2rad(12)  # between the views of a pair: enough to see parallax, little enough to find matches
MIN_BASELINE = 0.05  # of the cameras' extent
TRIED = 2  # times as many pairs as are wanted
MIN_CLEAR = 0.2  # share of the matches whose depth must be clear, to say anything about all of them
MIN_PARALLAX = np.deg2rad(1)  # between rays whose intersection means something

Features = tuple[np.ndarray, np.ndarray]  # points [n, 2], descriptors [n, 128]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Matches between the pictures of two frames."""

    first: int
    second: int
    a: np.ndarray  # [m, 2] in the first picture
    b: np.ndarray  # [m, 2] in the second


def match_views(
    picture: Callable[[int], np.ndarray],
    camera_to_world: np.ndarray,
    views: int,
    others: int,
    among: Sequence[int] | None = None,
) -> list[Pair]:
    """Matches of some views, spread over the capture or `among` some of its frames, with others near them.

    Args:
      picture: gives the uint8 [s, s, 3] picture of a frame.
      camera_to_world: [v, 4, 4]; used only to choose pairs, by angles that inverting all poses or turning all camera
        axes alike does not change.
    """
    features: dict[int, Features] = {}

    def of(frame: int) -> Features:
        if frame not in features:
            features[frame] = find_features(picture(frame))
        return features[frame]

    pairs = []
    frames = np.arange(len(camera_to_world)) if among is None else np.array(among)
    for first in dict.fromkeys(frames[(np.arange(views) * 2 + 1) * len(frames) // (2 * views)].tolist()):
        found = []
        for second in companions(camera_to_world, first)[: TRIED * others]:
            a, b = match(of(first), of(second))
            if len(a) >= MIN_MATCHES:
                found.append(Pair(int(first), int(second), a, b))
        pairs += sorted(found, key=lambda pair: -len(pair.a))[:others]
    return pairs


def companions(camera_to_world: np.ndarray, first: int) -> list[int]:
    """Other frames that show much the same from elsewhere, best first."""
    rotations, positions = camera_to_world[:, :3, :3], camera_to_world[:, :3, 3]
    cosine = (np.einsum("ij,vij->v", rotations[first], rotations) - 1) / 2
    angle = np.arccos(np.clip(cosine, -1, 1))
    baseline = np.linalg.norm(positions - positions[first], axis=-1)
    too_near = baseline < MIN_BASELINE * np.ptp(positions, axis=0).max()
    order = np.lexsort((np.abs(angle - USUAL_ANGLE), too_near))
    return [int(i) for i in order if i != first]


def find_features(picture: np.ndarray) -> Features:
    """SIFT points of a uint8 [s, s, 3] picture."""
    if len(picture) > MAX_SIZE:
        picture = cv2.resize(picture, (MAX_SIZE, MAX_SIZE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    points, descriptors = cv2.SIFT_create(MAX_FEATURES, contrastThreshold=CONTRAST).detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    return (np.array([point.pt for point in points]) + 0.5) / len(grey), descriptors  # OpenCV: centres at integers


def match(first: Features, second: Features) -> tuple[np.ndarray, np.ndarray]:
    """Points [m, 2] of both that look alike, are each other's best, and agree with some epipolar geometry: any one, so
    that wrong cameras do not lose the matches that prove them wrong."""
    if min(len(first[0]), len(second[0])) < MIN_MATCHES:
        return np.zeros((0, 2)), np.zeros((0, 2))
    distance = np.sqrt(np.maximum(0, 2 * (1 - _unit(first[1]) @ _unit(second[1]).T)))
    best, back = distance.argmin(1), distance.argmin(0)
    nearest, next_nearest = np.partition(distance, 1, axis=1)[:, :2].T
    kept = (back[best] == np.arange(len(best))) & (nearest < RATIO * next_nearest)
    a, b = first[0][kept], second[0][best[kept]]
    # A point with two orientations is found twice.
    _, unique = np.unique(np.round(np.concatenate([a, b], axis=1), 6), axis=0, return_index=True)
    a, b = a[np.sort(unique)], b[np.sort(unique)]
    if len(a) < MIN_MATCHES:
        return a[:0], b[:0]
    _, inliers = cv2.findFundamentalMat(a * MAX_SIZE, b * MAX_SIZE, cv2.FM_RANSAC, TOLERANCE * MAX_SIZE, 0.999)
    fits = np.zeros(len(a), bool) if inliers is None else inliers.ravel().astype(bool)
    return a[fits], b[fits]


def _unit(descriptors: np.ndarray) -> np.ndarray:
    return descriptors / np.maximum(np.linalg.norm(descriptors, axis=-1, keepdims=True), 1e-6)


def lines(
    pose: np.ndarray, intrinsics: np.ndarray, other_pose: np.ndarray, other_intrinsics: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Lines [m, 3] in the other picture of points [m, 2]; NaN where the cameras are at one place."""
    relative = np.linalg.inv(other_pose) @ pose
    x, y, z = relative[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    fundamental = np.linalg.inv(other_intrinsics).T @ cross @ relative[:3, :3] @ np.linalg.inv(intrinsics)
    found = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ fundamental.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return found / np.linalg.norm(found[:, :2], axis=1, keepdims=True)


def errors(pair: Pair, camera_to_world: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """[m] distances of the matches from their lines, the mean of both pictures, in shares of their sides."""
    i, j = pair.first, pair.second
    in_second = lines(camera_to_world[i], intrinsics[i], camera_to_world[j], intrinsics[j], pair.a)
    in_first = lines(camera_to_world[j], intrinsics[j], camera_to_world[i], intrinsics[i], pair.b)
    return (_distance(pair.b, in_second) + _distance(pair.a, in_first)) / 2


def _distance(points: np.ndarray, to: np.ndarray) -> np.ndarray:
    return np.abs((points * to[:, :2]).sum(-1) + to[:, 2])


def triangulate(pair: Pair, camera_to_world: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the matches are in space, [m, 3], and whether in front of both cameras, [m]; NaN and True where the rays
    are too parallel to tell."""
    origins, rays = [], []
    for frame, points in ((pair.first, pair.a), (pair.second, pair.b)):
        image = np.concatenate([points, np.ones((len(points), 1))], axis=1)
        ray = image @ np.linalg.inv(intrinsics[frame]).T @ camera_to_world[frame, :3, :3].T
        rays.append(ray / np.linalg.norm(ray, axis=-1, keepdims=True))
        origins.append(camera_to_world[frame, :3, 3])
    cosine = (rays[0] * rays[1]).sum(-1)
    between = origins[1] - origins[0]
    sine2 = 1 - cosine**2
    with np.errstate(invalid="ignore", divide="ignore"):  # the points of the two rays that are nearest to each other
        s = (rays[0] @ between - cosine * (rays[1] @ between)) / sine2
        t = (cosine * (rays[0] @ between) - rays[1] @ between) / sine2
        points = (origins[0] + s[:, None] * rays[0] + origins[1] + t[:, None] * rays[1]) / 2
    clear = sine2 > np.sin(MIN_PARALLAX) ** 2
    return np.where(clear[:, None], points, np.nan), ~clear | ((s > 0) & (t > 0))


def pooled(pairs: Sequence[Pair], camera_to_world: np.ndarray, intrinsics: np.ndarray) -> tuple[float, float]:
    """Median error of all matches (NaN: none), and the share of those whose depth is clear that lie in front."""
    if not pairs:
        return np.nan, 1.0
    all_errors = np.concatenate([errors(pair, camera_to_world, intrinsics) for pair in pairs])
    all_errors = all_errors[np.isfinite(all_errors)]
    found = [triangulate(pair, camera_to_world, intrinsics) for pair in pairs]
    clear = np.concatenate([np.isfinite(points[:, 0]) for points, _ in found])
    ahead = np.concatenate([ahead for _, ahead in found])[clear]
    enough = len(ahead) >= max(MIN_MATCHES, MIN_CLEAR * len(clear))  # else wrong matches would decide
    share = float(ahead.mean()) if enough else 1.0
    return (float(np.median(all_errors)) if len(all_errors) else np.nan), share
