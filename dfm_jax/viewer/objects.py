"""What lies in the 3D view of a browser beside the field: the cameras of views, and the camera path."""

import math
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dfm_jax.structs import Camera
from dfm_jax.viewer.limits import FIELDS_OF_VIEW
from dfm_jax.viewer.sources import Source, joined
from dfm_jax.viewpoints import scene_centre, up_direction
from dfm_jax.visualization.pictures import enlarge, to_uint8

CONTEXT, TARGET, OTHER, PATH = (46, 134, 255), (255, 132, 40), (150, 150, 158), (240, 60, 130)
SHARE = 0.055  # of the scene's typical distance: the size of a frustum
PATH_POINTS = 200
LEAST_SIDEWAYS, MOST_SIDEWAYS = 6.0, 35.0  # degrees of the first look from the context camera
WIDER = 1.5  # than that camera: frusta are seen then


def add_cameras(scene: Any, source: Source) -> list[Any]:
    """Adds frusta of all views of a source to viser's `scene`; returns their handles.

    Context views have their photographs, and so have target views where these are known.
    """
    context, photographs = source.context
    target, truths = source.targets
    scale = SHARE * sum(source.bounds) / 2
    handles = []
    for i, photograph in enumerate(photographs):
        handles.append(_frustum(scene, f"/views/context_{i}", _camera(context, i), CONTEXT, scale, photograph))
    for i, truth in enumerate(truths):
        name, colour = ("target", TARGET) if i == 0 else (f"other_{i}", OTHER)
        shown = truth if source.known else None
        handles.append(_frustum(scene, f"/views/{name}", _camera(target, i), colour, scale, shown))
    return handles


def add_path(scene: Any, path: Camera, key_frames: tuple[Camera, ...], source: Source) -> list[Any]:
    """Adds a camera path [n], as a line, and its key frames; returns their handles."""
    places = np.asarray(path.camera_to_world, np.float64)[:, :3, 3]
    every = np.linspace(0, len(places) - 1, min(len(places), PATH_POINTS)).astype(int)
    chosen = places[every]
    handles = []
    if len(chosen) > 1:
        segments = np.stack([chosen[:-1], chosen[1:]], axis=1).astype(np.float32)
        handles.append(
            scene.add_line_segments("/path/line", points=segments, colors=PATH, thickness=3.0, thickness_units="screen")
        )
    scale = 0.6 * SHARE * sum(source.bounds) / 2
    return handles + [_frustum(scene, f"/path/{i}", key, PATH, scale, None) for i, key in enumerate(key_frames)]


def overview(source: Source, sideways: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The direction [3] that is up in a source, the point [3] that its views look at, and from where to look at that
    first [3]: beside the context camera, so that it is seen, and as far away (rays end where they did in training).

    Args:
      sideways: degrees from the context camera; by default half the way to the target camera, but not far.
    """
    contexts, targets = source.context[0], source.targets[0]
    up, centre = up_direction(joined(contexts, targets)), scene_centre(contexts, *source.bounds)
    start, end = (np.asarray(each.camera_to_world)[0, :3, 3] - centre for each in (contexts, targets))
    if sideways is None:
        across = float(up @ np.cross(start, end))
        angle = math.degrees(math.atan2(abs(across), float(start @ end)))
        sideways = math.copysign(min(max(0.5 * angle, LEAST_SIDEWAYS), MOST_SIDEWAYS), across)
    return up, centre, centre + Rotation.from_rotvec(np.radians(sideways) * up).as_matrix() @ start


def overview_field(source: Source) -> float:
    """Vertical field of view of that look, radians."""
    return min(WIDER * vertical_field(source.first_context), FIELDS_OF_VIEW[1])


def vertical_field(camera: Camera) -> float:
    """Field of view from top to bottom, radians."""
    return 2 * math.atan(0.5 / float(np.asarray(camera.intrinsics)[1, 1]))


def orientation(camera: Camera) -> np.ndarray:
    """(w, x, y, z)."""
    return Rotation.from_matrix(np.asarray(camera.camera_to_world)[:3, :3]).as_quat(scalar_first=True)


def _frustum(
    scene: Any, name: str, camera: Camera, colour: tuple[int, int, int], scale: float, image: np.ndarray | None
) -> Any:
    intrinsics = np.asarray(camera.intrinsics)
    return scene.add_camera_frustum(
        name,
        fov=vertical_field(camera),
        aspect=float(intrinsics[1, 1] / intrinsics[0, 0]),
        scale=scale,
        color=colour,
        thickness=2.0,
        thickness_units="screen",
        image=None if image is None else enlarge(to_uint8(image), 96),
        format="png",
        wxyz=orientation(camera),
        position=np.asarray(camera.camera_to_world)[:3, 3],
        cast_shadow=False,
        receive_shadow=False,
    )


def _camera(cameras: Camera, i: int) -> Camera:
    return Camera(cameras.camera_to_world[i], cameras.intrinsics[i])
