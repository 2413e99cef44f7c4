"""Procedural scenes whose hidden part has a known distribution, rendered exactly by casting rays.

A box stands on a floor disc in front of a black background. Its front and top share a random visible colour; its back
and sides have the hidden colour, drawn from `HIDDEN_COLOURS` with `HIDDEN_PROBABILITIES` whatever the front shows. The
front view (frame 0) shows nothing of the hidden colour, so that what a model samples behind it can be compared with
the truth.

Notation: world z points up, the disc lies at z = 0 around the origin, azimuth 0 looks at the front of the box (at its
-y side). A *label* says which surface a ray meets first; what a picture shows is the labels' *coverage* of its pixels
times the labels' colours, so that a geometry rendered once serves scenes of any colours.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dfm_jax.data.loading import procedural
from dfm_jax.data.loading.procedural import GeneratedScene, ProceduralScenes

HIDDEN_COLOURS = ((0.90, 0.13, 0.10), (0.13, 0.70, 0.20), (0.13, 0.30, 0.90))  # red, green, blue
HIDDEN_PROBABILITIES = (0.5, 0.3, 0.2)

FLOOR_RADIUS = 1.35
ORBIT_RADIUS = 4.0  # distance of the cameras from what they look at
ELEVATION = np.deg2rad(28)
LOOK_AT = np.array([0.0, 0.0, 0.4])
FOCAL_LENGTH = 1.41  # normalised
NEAR, FAR = 2.6, 5.5  # bound every visible surface

NUM_LABELS = 6
NOTHING, FLOOR, TOP, FRONT, BACK, SIDE = range(NUM_LABELS)
HIDDEN_LABELS = (BACK, SIDE)
SHADE = {TOP: 1.0, FRONT: 0.85, BACK: 0.95, SIDE: 0.8}  # constant per face, so that modes of a colour stay apart
SUPERSAMPLING = 3  # rays along a pixel's side

# What a scene's record knows of it.
ATTRIBUTES = {"half_sizes", "height", "yaw", "visible_colour", "floor_colour", "hidden"}


@dataclasses.dataclass(frozen=True)
class Box:
    half_sizes: tuple[float, float]  # along its own x and y
    height: float
    yaw: float  # radians, anticlockwise seen from above


@dataclasses.dataclass(frozen=True)
class _Geometry:
    """A box seen from all cameras of its scenes."""

    box: Box
    camera_to_world: np.ndarray  # [v, 4, 4]
    coverage: np.ndarray  # [v, s, s, labels]


class ToyScenes(ProceduralScenes[_Geometry]):
    """Scenes of one geometry differ in their colours."""

    max_geometries = 500  # boxes and camera rings

    def _make_geometry(self, rng: np.random.Generator) -> _Geometry:
        box = Box(
            half_sizes=tuple(rng.uniform(0.6, 0.75, 2).tolist()),
            height=float(rng.uniform(1.0, 1.3)),
            yaw=float(np.deg2rad(rng.uniform(-7, 7))),
        )
        poses = orbit_pose(procedural.random_azimuths(rng))
        labels, _ = _cast(box, poses, intrinsics(), self._image_size, SUPERSAMPLING)
        return _Geometry(box, poses, _coverage(labels, self._image_size))

    def _make_scene(self, geometry: _Geometry, rng: np.random.Generator) -> GeneratedScene:
        attributes = {
            "half_sizes": geometry.box.half_sizes,
            "height": geometry.box.height,
            "yaw": geometry.box.yaw,
            "visible_colour": rng.uniform(0.15, 0.95, 3).tolist(),
            "floor_colour": rng.uniform(0.35, 0.8, 1).repeat(3).tolist(),
            "hidden": int(rng.choice(len(HIDDEN_COLOURS), p=HIDDEN_PROBABILITIES)),
        }
        images = np.rint(255 * geometry.coverage @ label_colours(attributes)).astype(np.uint8)
        return GeneratedScene(attributes, geometry.camera_to_world, images)


def intrinsics() -> np.ndarray:
    """[3, 3], of every toy camera."""
    return np.array([[FOCAL_LENGTH, 0, 0.5], [0, FOCAL_LENGTH, 0.5], [0, 0, 1]])


def orbit_pose(azimuth: float | np.ndarray) -> np.ndarray:
    """`camera_to_world` [..., 4, 4] of toy cameras at azimuths [...] in radians; 0 looks at the front."""
    return procedural.orbit_pose(azimuth, ELEVATION, ORBIT_RADIUS, LOOK_AT)


def render_view(
    attributes: Mapping[str, Any], camera_to_world: np.ndarray, intrinsics: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The truth of a toy scene at any camera, from the `attributes` of its record.

    Returns:
      rgb: [size, size, 3] in [0, 1], antialiased.
      depth: [size, size] distance along the ray through each pixel's centre; infinite where it meets nothing.
      hidden: [size, size] bool, pixels that show nothing but surfaces of the hidden colour.
    """
    coverage, hidden = view_coverage(attributes, camera_to_world, intrinsics, size)
    return coverage @ label_colours(attributes), view_depth(attributes, camera_to_world, intrinsics, size), hidden


def view_coverage(
    attributes: Mapping[str, Any], camera_to_world: np.ndarray, intrinsics: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of `render_view` that serves scenes of any colours: coverage [size, size, labels], which makes a picture
    when it is multiplied by `label_colours`, and hidden pixels [size, size]."""
    labels, _ = _cast(_box(attributes), camera_to_world[None], intrinsics, size, SUPERSAMPLING)
    coverage = _coverage(labels, size)[0]
    return coverage, coverage[..., HIDDEN_LABELS].sum(-1) > 0.999


def view_depth(
    attributes: Mapping[str, Any], camera_to_world: np.ndarray, intrinsics: np.ndarray, size: int
) -> np.ndarray:
    """The depth of `render_view` alone."""
    _, depth = _cast(_box(attributes), camera_to_world[None], intrinsics, size, 1)
    return depth.reshape(size, size)


def _box(attributes: Mapping[str, Any]) -> Box:
    return Box(tuple(attributes["half_sizes"]), attributes["height"], attributes["yaw"])


def label_colours(attributes: Mapping[str, Any]) -> np.ndarray:
    """[labels, 3] in [0, 1]."""
    visible, hidden = np.array(attributes["visible_colour"]), np.array(HIDDEN_COLOURS[attributes["hidden"]])
    colours = np.zeros((NUM_LABELS, 3), np.float32)
    colours[FLOOR] = attributes["floor_colour"]
    for label, shade in SHADE.items():
        colours[label] = shade * (hidden if label in HIDDEN_LABELS else visible)
    return colours


def _cast(
    box: Box, camera_to_world: np.ndarray, intrinsics: np.ndarray, size: int, rays: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and distances [v, (size * rays)^2] of what the rays on a regular grid meet first.

    The slab method, in the box's own frame. Distances run along unit rays; infinite where nothing is met.
    """
    side = (np.arange(size * rays) + 0.5) / (size * rays)
    u, v = np.meshgrid(side, side)
    pixels = np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    directions = np.linalg.inv(intrinsics) @ pixels
    directions /= np.linalg.norm(directions, axis=0)
    cos, sin = np.cos(box.yaw), np.sin(box.yaw)
    to_box = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    d = (to_box @ camera_to_world[:, :3, :3] @ directions).astype(np.float32)  # [v, xyz, r]
    d = np.where(d == 0, np.float32(1e-20), d)
    o = (camera_to_world[:, :3, 3] @ to_box.T).astype(np.float32)[..., None]

    low = np.array([-box.half_sizes[0], -box.half_sizes[1], 0], np.float32)[:, None]
    high = np.array([box.half_sizes[0], box.half_sizes[1], box.height], np.float32)[:, None]
    inverse = 1 / d
    a, b = (low - o) * inverse, (high - o) * inverse
    enter, leave = np.minimum(a, b), np.maximum(a, b).min(1)
    distance = enter.max(1)
    axis = enter.argmax(1)
    face = np.where(axis == 2, TOP, np.where(axis == 0, SIDE, np.where(d[:, 1] > 0, FRONT, BACK)))

    to_floor = -o[:, 2] * inverse[:, 2]
    x, y = o[:, 0] + to_floor * d[:, 0], o[:, 1] + to_floor * d[:, 1]
    hits_floor = (x * x + y * y < FLOOR_RADIUS**2) & (to_floor > 0)
    hits_box = (distance <= leave) & (distance > 0) & ~(hits_floor & (to_floor < distance))

    labels = np.where(hits_box, face, np.where(hits_floor, FLOOR, NOTHING)).astype(np.uint8)
    distance = np.where(hits_box, distance, np.where(hits_floor, to_floor, np.inf))
    return labels, distance


def _coverage(labels: np.ndarray, size: int) -> np.ndarray:
    """Share [v, s, s, labels] of each pixel's rays that meet each surface."""
    views, rays = len(labels), round(np.sqrt(labels.shape[1])) // size
    pixel = procedural.pixel_of_rays(views, size, rays)
    counts = np.bincount((pixel * NUM_LABELS + labels).ravel(), minlength=views * size**2 * NUM_LABELS)
    return (counts / np.float32(rays**2)).reshape(views, size, size, NUM_LABELS).astype(np.float32)
