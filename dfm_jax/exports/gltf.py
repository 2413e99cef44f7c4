"""What glTF demands of all that it holds: +Y is up, of which sources say nothing; and colours are linear."""

import numpy as np

from dfm_jax.exports.protocol import RenderableScene
from dfm_jax.structs import Camera
from dfm_jax.viewpoints import up_direction

# For a world whose axis 0, 1 or 2 points up or, with -1, down: the rotation that brings that to +Y. That of OpenCV's
# axes, whose y points down, is the usual one.
UPRIGHT = {
    (0, 1): [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    (0, -1): [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
    (1, 1): [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    (1, -1): [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    (2, 1): [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    (2, -1): [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
}


def gltf_from_source(scene: RenderableScene) -> np.ndarray:
    """[4, 4] a turn by quarters from the source's coordinates to glTF's: that axis of the source which is nearest to
    what is up for the scene's cameras becomes +Y; of a photograph without a camera, whose axes are OpenCV's, -y."""
    if scene.frame.name == "first_camera":
        return _turn(1, -1)
    cameras = [scene.context_camera, scene.target_camera]
    poses = scene.frame.pose_in_source(np.stack([np.asarray(c.camera_to_world, np.float64) for c in cameras]))
    up = up_direction(Camera(poses, np.stack([c.intrinsics for c in cameras])))
    axis = int(np.abs(up).argmax())
    return _turn(axis, int(np.sign(up[axis])))


def linear(colours: np.ndarray) -> np.ndarray:
    """As glTF has the colours of vertices: proportional to light, where pictures are sRGB. In [0, 1] both."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def _turn(axis: int, sign: int) -> np.ndarray:
    turn = np.eye(4)
    turn[:3, :3] = UPRIGHT[axis, sign]
    return turn
