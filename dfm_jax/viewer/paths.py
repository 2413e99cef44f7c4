"""Camera paths that the viewer plays and renders: through key frames, or by name."""

import numpy as np

from dfm_jax.config.sampling import VIDEO_PATHS
from dfm_jax.errors import UserError
from dfm_jax.sampling.trajectories import follow, make_path
from dfm_jax.structs import Camera
from dfm_jax.viewer.session import Session, stacked
from dfm_jax.viewer.sources import joined

KEY_FRAMES = "key frames"
NAMED = tuple(name for name in VIDEO_PATHS if name != "dataset")


def camera_path(session: Session, name: str, num_frames: int) -> Camera:
    """The cameras [n] of a video, in its order.

    Raises:
      UserError: there are no two key frames.
    """
    if name == KEY_FRAMES:
        if len(session.key_frames) < 2:
            raise UserError("a path goes through two key frames at least: turn the scene, and add some")
        path = follow(stacked(session.key_frames), num_frames)
    else:
        (near, far), (context, _), (target, _) = session.source.bounds, session.source.context, session.source.targets
        cameras, count = joined(context, target), len(context.intrinsics)
        path = make_path(name, cameras, target=count, near=near, far=far, num_frames=num_frames)
    return path.frames


def with_aspect(camera: Camera, aspect: float) -> Camera:
    """Cameras [*batch] that see as much from top to bottom, in pictures of another aspect (width by height)."""
    intrinsics = np.array(camera.intrinsics, np.float64)
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] / aspect
    intrinsics[..., 0, 1] = 0
    return Camera(camera.camera_to_world, intrinsics)
