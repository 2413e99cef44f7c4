"""Changes of a picture that move its camera with it.

Notation: intrinsics are normalised, so that coordinates in a picture are `u = x / width`, `v = y / height`, both in
[0, 1]. Resizing therefore leaves the intrinsics alone; cropping and mirroring do not.
"""

import io

import numpy as np
from PIL import Image

# What a JPEG is decoded at, by what is needed. 1.4 lets 360 pixels be quartered for 64 and halved for 128, in 1/1.4 and
# 1/1.9 of the time that 2 takes; the result is within 45 and 50 dB of what the whole picture gives.
DRAFT_MARGIN = 1.4


def crop(
    image: Image.Image, intrinsics: np.ndarray, left: int, top: int, width: int, height: int
) -> tuple[Image.Image, np.ndarray]:
    """The part of a picture that starts at pixel (left, top), and its intrinsics [3, 3]."""
    offset = np.array([[1, 0, -left / image.width], [0, 1, -top / image.height], [0, 0, 1]])
    stretch = np.diag([image.width / width, image.height / height, 1])
    return image.crop((left, top, left + width, top + height)), stretch @ offset @ intrinsics


def center_square(image: Image.Image, intrinsics: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """The largest square in the middle: 360x360 of 640x360."""
    side = min(image.size)
    return crop(image, intrinsics, (image.width - side) // 2, (image.height - side) // 2, side, side)


def crop_or_pad(
    image: Image.Image, intrinsics: np.ndarray, side: int, background: int
) -> tuple[Image.Image, np.ndarray]:
    """The square of `side` pixels in the middle of an RGB picture, and its intrinsics [3, 3]; where it is larger than
    the picture, there is `background` [0, 255] beside it."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square, moved = crop(image, intrinsics, left, top, side, side)
    if side > min(image.size):
        canvas = Image.new("RGB", (side, side), (background,) * 3)
        canvas.paste(image, (-left, -top))
        return canvas, moved
    return square, moved


def resize(image: Image.Image, size: int) -> Image.Image:
    """A square picture at `size` pixels, antialiased."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def decode(encoded: bytes, size: int) -> np.ndarray:
    """Float32 [size, size, 3] in [0, 1] from an encoded square RGB picture.

    JPEGs much larger than `size` are decoded at a fraction of their size, DRAFT_MARGIN times `size` or more.
    """
    image = Image.open(io.BytesIO(encoded))
    if image.size != (size, size):
        needed = int(DRAFT_MARGIN * size)
        drafted = image.draft("RGB", (needed, needed))
        # The decoder rounds odd sizes up; the box is the part of its picture that holds the whole original.
        box = drafted[1] if drafted else None
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image, np.float32) / np.float32(255)


def mirror(
    images: np.ndarray, camera_to_world: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All views [v, h, w, c], [v, 4, 4], [v, 3, 3] of a scene seen in a mirror, left for right.

    The world is reflected at its plane x = 0, and so is every camera's x axis, which keeps the rotations proper. A
    world point that projected to (u, v) has its reflection at (1 - u, v).
    """
    reflection = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip_u = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return (
        np.ascontiguousarray(images[:, :, ::-1]),
        reflection @ camera_to_world @ reflection,
        flip_u @ intrinsics @ reflection[:3, :3],
    )


def roll(camera_to_world: np.ndarray, intrinsics: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cameras [v, 4, 4], [v, 3, 3] that are turned about their optical axes by angles [v], in radians, under pictures
    that stay as they are.

    The intrinsics turn back: a world point is seen where it was, and every pixel's ray is the same in the world; only
    the camera's coordinates are others. So nothing is resampled. The angles must be less than 90 degrees.
    """
    turn = np.tile(np.eye(4), (len(angles), 1, 1))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angles)
    turn[:, 1, 0], turn[:, 0, 1] = np.sin(angles), -np.sin(angles)
    return camera_to_world @ turn, intrinsics @ turn[:, :3, :3]


def scale_world(camera_to_world: np.ndarray, factor: float) -> np.ndarray:
    """Poses [v, 4, 4] in a world that is `factor` times as large."""
    scaled = np.array(camera_to_world)
    scaled[:, :3, 3] *= factor
    return scaled


def relative_to_first(camera_to_world: np.ndarray) -> np.ndarray:
    """Poses [v, 4, 4] in the coordinates of the first camera."""
    return np.linalg.inv(camera_to_world[0]) @ camera_to_world
