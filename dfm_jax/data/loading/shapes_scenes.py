"""Procedural scenes whose hidden side, hidden shape and hidden neighbour have a known joint distribution, with exact
depth: uncertainty in geometry as well as in colour. In the style of Minens (viewset diffusion), made for ambiguity.

A wall stands on a floor disc in front of a black background. Its front and top have a random visible colour; its other
sides have one hidden colour. At its back nothing juts out, or a narrow round tower, or a wide ramp, both white; behind
that stands a yellow pillar, or none. `ODDS` has the probabilities of all eighteen cases: the colour depends on nothing
else, and a pillar is the likelier the less juts out. The heights of tower, ramp and pillar are uniform. The front view
(frame 0) shows nothing of all that, so that what a model samples behind it can be compared with the truth.

Notation: world z points up, the disc lies at z = 0 around the origin, azimuth 0 looks at the front of the wall (at its
-y side). A *label* says which paint a ray meets first. What a picture shows is the *coverage* of its pixels by the
labels, each ray counting by the shade of the face that it meets, times the colours of the labels: a geometry rendered
once serves scenes of any colours.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dfm_jax.data.loading import procedural
from dfm_jax.data.loading.procedural import GeneratedScene, ProceduralScenes
from dfm_jax.data.loading.solids import Solid, cast, cast_disc, prism, rays_of

SIDES = ("red", "green", "blue")
SIDE_COLOURS = ((0.90, 0.13, 0.10), (0.13, 0.70, 0.20), (0.13, 0.30, 0.90))
SHAPES = ("flat", "tower", "ramp")
NEIGHBOURS = ("alone", "pillar")
SIDE_ODDS = np.array([0.5, 0.3, 0.2])
SHAPE_ODDS = np.array([0.4, 0.3, 0.3])
PILLAR_ODDS = np.array([0.75, 0.5, 0.25])  # with each shape
ODDS = SIDE_ODDS[:, None, None] * SHAPE_ODDS[:, None] * np.stack([1 - PILLAR_ODDS, PILLAR_ODDS], axis=-1)
SHAPE_HEIGHT = 0.45, 0.85  # of tower or ramp, uniform
NEIGHBOUR_HEIGHT = 0.3, 0.75

WALL_BACK = -0.25  # y
TOWER_RADIUS, TOWER_FACES = 0.26, 6
RAMP_HALF_WIDTH, RAMP_LENGTH = 0.48, 0.5
SHAPE_COLOUR = (0.95, 0.95, 0.95)  # of tower or ramp, unlike every side: a mixture of shapes is seen as one
PILLAR_HALF_WIDTH, PILLAR_FROM, PILLAR_TO = 0.17, 0.5, 0.8  # y
PILLAR_COLOUR = (0.95, 0.80, 0.15)
FLOOR_RADIUS = 1.1

ORBIT_RADIUS = 4.0  # distance of the cameras from what they look at
ELEVATION = np.deg2rad(20)
LOOK_AT = np.array([0.0, 0.0, 0.4])
FOCAL_LENGTH = 1.65  # normalised
NEAR, FAR = 2.8, 5.2  # bound every visible surface

NUM_LABELS = 6
NOTHING, FLOOR, VISIBLE, HIDDEN, SHAPE, PILLAR = range(NUM_LABELS)
SUPERSAMPLING = 3  # rays along a pixel's side

# What a scene's record knows of it.
ATTRIBUTES = {"half_width", "thickness", "height", "yaw", "visible_colour", "floor_colour", "shape_colour"}
ATTRIBUTES |= {"side", "shape", "neighbour", "shape_height", "neighbour_height"}


@dataclasses.dataclass(frozen=True)
class Seen:
    """What rays [v, r] meet first."""

    distance: np.ndarray
    label: np.ndarray  # uint8
    shade: np.ndarray  # float32, of the face

    def behind(self, other: "Seen") -> "Seen":
        """Both together: whichever is nearer."""
        nearer = other.distance < self.distance
        pick = lambda name: np.where(nearer, getattr(other, name), getattr(self, name))
        return Seen(pick("distance"), pick("label"), pick("shade"))

    def of(self, which: np.ndarray) -> "Seen":
        """By some of the rays, [r] bool."""
        return Seen(self.distance[:, which], self.label[:, which], self.shade[:, which])


@dataclasses.dataclass(frozen=True)
class _Geometry:
    """What scenes have in common: a wall on the floor, and the cameras."""

    wall: dict[str, float]  # the first four of ATTRIBUTES
    camera_to_world: np.ndarray  # [v, 4, 4]
    rays: tuple[np.ndarray, np.ndarray]  # of all pictures
    seen: Seen  # of floor and wall, by these rays


class ShapesScenes(ProceduralScenes[_Geometry]):
    """Scenes of one geometry differ in what is hidden, and in colours."""

    max_geometries = 1000  # walls and camera rings

    def _make_geometry(self, rng: np.random.Generator) -> _Geometry:
        wall = {
            "half_width": float(rng.uniform(0.52, 0.65)),
            "thickness": float(rng.uniform(0.25, 0.4)),
            "height": float(rng.uniform(1.05, 1.25)),
            "yaw": float(np.deg2rad(rng.uniform(-7, 7))),
        }
        poses = orbit_pose(procedural.random_azimuths(rng))
        rays = rays_of(poses, intrinsics(), self._image_size * SUPERSAMPLING)
        return _Geometry(wall, poses, rays, see_visible(wall, *rays))

    def _make_scene(self, geometry: _Geometry, rng: np.random.Generator) -> GeneratedScene:
        case = np.unravel_index(rng.choice(ODDS.size, p=ODDS.ravel()), ODDS.shape)
        side, shape, neighbour = map(int, case)
        shape_height, neighbour_height = (float(rng.uniform(*limits)) for limits in (SHAPE_HEIGHT, NEIGHBOUR_HEIGHT))
        attributes = geometry.wall | {
            "visible_colour": rng.uniform(0.15, 0.95, 3).tolist(),
            "floor_colour": rng.uniform(0.35, 0.8, 1).repeat(3).tolist(),
            "shape_colour": list(SHAPE_COLOUR),
            "side": side,
            "shape": shape,
            "neighbour": neighbour,
            "shape_height": shape_height if shape else 0.0,
            "neighbour_height": neighbour_height if neighbour else 0.0,
        }
        seen = with_hidden(geometry.seen, attributes, *geometry.rays)
        images = np.rint(255 * coverage(seen, self._image_size) @ label_colours(attributes)).astype(np.uint8)
        return GeneratedScene(attributes, geometry.camera_to_world, images)


def intrinsics() -> np.ndarray:
    """[3, 3], of every camera."""
    return np.array([[FOCAL_LENGTH, 0, 0.5], [0, FOCAL_LENGTH, 0.5], [0, 0, 1]])


def orbit_pose(azimuth: np.ndarray) -> np.ndarray:
    """`camera_to_world` [..., 4, 4] of cameras at azimuths [...] in radians; 0 looks at the front."""
    return procedural.orbit_pose(azimuth, ELEVATION, ORBIT_RADIUS, LOOK_AT)


def see_visible(attributes: Mapping[str, Any], origins: np.ndarray, directions: np.ndarray) -> Seen:
    """Floor and wall alone."""
    distance = cast_disc(FLOOR_RADIUS, origins, directions)
    label = np.where(np.isfinite(distance), FLOOR, NOTHING).astype(np.uint8)
    floor = Seen(distance, label, np.ones_like(distance))
    return floor.behind(see(wall(attributes), attributes["yaw"], origins, directions))


def wall(attributes: Mapping[str, Any]) -> Solid:
    """Before it is turned by its yaw."""
    width, front = attributes["half_width"], WALL_BACK - attributes["thickness"]
    corners = [(-width, front), (width, front), (width, WALL_BACK), (-width, WALL_BACK)]
    return prism(corners, attributes["height"], [VISIBLE, HIDDEN, HIDDEN, HIDDEN], lid=VISIBLE)


def with_hidden(seen: Seen, attributes: Mapping[str, Any], origins: np.ndarray, directions: np.ndarray) -> Seen:
    """What the same rays meet first where there is also what is hidden."""
    for solid in hidden_solids(attributes):
        seen = seen.behind(see(solid, attributes["yaw"], origins, directions))
    return seen


def hidden_solids(attributes: Mapping[str, Any]) -> list[Solid]:
    """What stands behind the wall, before it is turned by its yaw."""
    found = []
    if attributes["shape"] == SHAPES.index("tower"):
        angles = np.linspace(0, np.pi, TOWER_FACES + 1)
        corners = [(TOWER_RADIUS * np.cos(a), WALL_BACK + TOWER_RADIUS * np.sin(a)) for a in angles]
        found.append(prism(corners, attributes["shape_height"], [SHAPE] * len(corners), lid=SHAPE))
    if attributes["shape"] == SHAPES.index("ramp"):
        found.append(_ramp(attributes["shape_height"]))
    if attributes["neighbour"]:
        low, high = (-PILLAR_HALF_WIDTH, PILLAR_FROM), (PILLAR_HALF_WIDTH, PILLAR_TO)
        corners = [low, (high[0], low[1]), high, (low[0], high[1])]
        found.append(prism(corners, attributes["neighbour_height"], [PILLAR] * 4, lid=PILLAR))
    return found


def _ramp(height: float) -> Solid:
    """A box at the wall's back, cut by a slope."""
    end = WALL_BACK + RAMP_LENGTH
    corners = [(-RAMP_HALF_WIDTH, WALL_BACK), (RAMP_HALF_WIDTH, WALL_BACK)]
    corners += [(RAMP_HALF_WIDTH, end), (-RAMP_HALF_WIDTH, end)]
    box = prism(corners, height, [SHAPE] * 4, lid=SHAPE)
    slope = np.array([0, height, RAMP_LENGTH]) / np.hypot(height, RAMP_LENGTH)
    return Solid(np.vstack([box.normals, slope]), np.append(box.offsets, slope[1] * end), np.append(box.labels, SHAPE))


def see(solid: Solid, yaw: float, origins: np.ndarray, directions: np.ndarray) -> Seen:
    distance, face = cast(solid.turned(yaw), origins, directions)
    shade = _shades(solid.normals).astype(np.float32)
    return Seen(distance, solid.labels.astype(np.uint8)[face], shade[face])


def _shades(normals: np.ndarray) -> np.ndarray:
    """[f] of faces: brightest above, and each wall by the direction that it looks to, so that shapes show."""
    return 0.65 + 0.35 * normals[:, 2].clip(0) + 0.1 * normals[:, 1] + 0.1 * normals[:, 0]


def coverage(seen: Seen, size: int) -> np.ndarray:
    """Share [v, size, size, labels] of each pixel's rays that meet each label, each counting by its shade."""
    views, rays = len(seen.label), round(np.sqrt(seen.label.shape[1])) // size
    pixel = procedural.pixel_of_rays(views, size, rays)
    bins, length = (pixel * NUM_LABELS + seen.label).ravel(), views * size**2 * NUM_LABELS
    counts = np.bincount(bins, seen.shade.ravel(), minlength=length)
    return (counts / rays**2).reshape(views, size, size, NUM_LABELS).astype(np.float32)


def label_colours(attributes: Mapping[str, Any]) -> np.ndarray:
    """[labels, 3] in [0, 1]."""
    colours = np.zeros((NUM_LABELS, 3), np.float32)
    colours[FLOOR], colours[VISIBLE] = attributes["floor_colour"], attributes["visible_colour"]
    colours[HIDDEN], colours[SHAPE] = SIDE_COLOURS[attributes["side"]], attributes["shape_colour"]
    colours[PILLAR] = PILLAR_COLOUR
    return colours


def view_of(
    attributes: Mapping[str, Any], camera_to_world: np.ndarray, intrinsics: np.ndarray, rays_a_side: int
) -> Seen:
    """What rays [1, r] of a camera meet in a scene, from the `attributes` of its record."""
    rays = rays_of(camera_to_world[None], intrinsics, rays_a_side)
    return with_hidden(see_visible(attributes, *rays), attributes, *rays)


def render_view(
    attributes: Mapping[str, Any], camera_to_world: np.ndarray, intrinsics: np.ndarray, size: int
) -> np.ndarray:
    """The true picture [size, size, 3] in [0, 1] at any camera [4, 4], antialiased."""
    seen = view_of(attributes, camera_to_world, intrinsics, size * SUPERSAMPLING)
    return coverage(seen, size)[0] @ label_colours(attributes)


def view_depth(
    attributes: Mapping[str, Any], camera_to_world: np.ndarray, intrinsics: np.ndarray, size: int
) -> np.ndarray:
    """[size, size] distance along the ray through each pixel's centre; infinite where it meets nothing."""
    return view_of(attributes, camera_to_world, intrinsics, size).distance.reshape(size, size)
