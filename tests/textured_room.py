"""Pictures of a textured corner of a room, with their cameras, for structure-from-motion."""

import numpy as np
from PIL import Image
from scipy import ndimage

WIDTH, HEIGHT, FOCAL = 160, 120, 150.0  # pixels
TEXTURE = 512  # pixels along a wall
WALL = 4.0  # length of a wall, which is mirrored beyond


def cameras(count):
    """[n, 4, 4] camera-to-world, OpenCV axes: along an arc, looking into the corner at the origin."""
    poses = []
    for angle in np.linspace(0.35, 1.2, count):
        origin = np.array([3.2 * np.cos(angle), 3.2 * np.sin(angle), 1.6 + 0.3 * np.sin(5 * angle)])
        forward = np.array([0.5, 0.5, 0.5]) - origin
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3] = np.stack([right, np.cross(forward, right), forward, origin], axis=1)
        poses.append(pose)
    return np.stack(poses)


def textures(seed):
    noise = np.random.default_rng(seed).standard_normal((3, TEXTURE, TEXTURE, 3))
    smooth = sum(ndimage.gaussian_filter(noise, (0, s, s, 0)) * s for s in (2, 4, 9))
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255)


def picture(camera_to_world, walls):
    """The planes x = 0, y = 0 and z = 0, each with a texture [t, t, 3]."""
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    rays = (
        np.stack([(x - WIDTH / 2) / FOCAL, (y - HEIGHT / 2) / FOCAL, np.ones_like(x)], -1) @ camera_to_world[:3, :3].T
    )
    origin = camera_to_world[:3, 3]
    with np.errstate(divide="ignore"):
        distances = -origin / rays
    distances[distances <= 0] = np.inf
    nearest = distances.argmin(-1)
    points = origin + rays * distances.min(-1)[..., None]
    image = np.zeros((HEIGHT, WIDTH, 3))
    for wall in range(3):
        coordinates = np.moveaxis(np.delete(points, wall, -1), -1, 0) / WALL * TEXTURE
        seen = nearest == wall
        for channel in range(3):
            values = ndimage.map_coordinates(walls[wall, ..., channel], coordinates, order=1, mode="mirror")
            image[..., channel] += seen * values
    return Image.fromarray(image.round().astype(np.uint8))


def write(folder, count, seed=0, prefix="photo"):
    """Returns the pictures' names and their cameras."""
    folder.mkdir(parents=True, exist_ok=True)
    walls, poses = textures(seed), cameras(count)
    names = [f"{prefix}{i}.jpg" for i in range(count)]
    for name, pose in zip(names, poses, strict=True):
        picture(pose, walls).save(folder / name, quality=95)
    return names, poses


def misalignment(poses, truth):
    """Largest angle, degrees, and largest distance, share of the cameras' extent, after the best similarity."""
    origins, target = poses[:, :3, 3], truth[:, :3, 3]
    a, b = origins - origins.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    proper = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation, scale = u @ proper @ vt, np.trace(np.diag(s) @ proper) / (a**2).sum()
    between = np.swapaxes(rotation @ poses[:, :3, :3], 1, 2) @ truth[:, :3, :3]
    angles = np.arccos(np.clip((np.trace(between, axis1=1, axis2=2) - 1) / 2, -1, 1))
    distances = np.linalg.norm(scale * a @ rotation.T - b, axis=1)
    return np.rad2deg(angles.max()), distances.max() / np.linalg.norm(b, axis=1).max()
