"""Faithful small samples of the formats whose importers read a camera a picture. Each writes what its format says, from
the cameras of `captures_source.arc`; the pictures show BALLS as coloured discs."""

import json

import numpy as np
from PIL import Image, ImageDraw

from tests.captures_source import BALLS, COLOURS, OPENGL_FROM_OPENCV, arc, pose

WIDTH, HEIGHT = 96, 72
FRAMES = 6
K = np.array([[90.0, 0, 47.0], [0, 90.0, 37.0], [0, 0, 1]])  # pixels; a principal point off the middle
FINER = 4  # drawing rounds to pixels


def draw(camera_to_world, k=K, size=(WIDTH, HEIGHT), mode="RGB"):
    """A picture of the balls: on grey, or on nothing where the mode has an alpha channel."""
    image = Image.new(mode, tuple(np.multiply(size, FINER)), "gray" if mode == "RGB" else (0, 0, 0, 0))
    rays = (np.linalg.inv(camera_to_world) @ np.c_[BALLS, np.ones(len(BALLS))].T)[:3]
    places = (k @ rays / rays[2]).T[:, :2] * FINER - 0.5
    for centre, colour in zip(places, COLOURS, strict=True):
        radius = 0.04 * FINER * size[0]
        ImageDraw.Draw(image).ellipse((*(centre - radius), *(centre + radius)), fill=colour)
    return image.resize(size, Image.Resampling.BOX)


def save(folder, name, image):
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name)


def opengl(camera_to_world):
    return camera_to_world @ OPENGL_FROM_OPENCV


def row(numbers):
    return " ".join(f"{number:.9f}" for number in np.ravel(numbers))


def write_srn(root, poses=None):
    for i, camera_to_world in enumerate(arc(FRAMES) if poses is None else poses):
        save(root / "rgb", f"{i:06d}.png", draw(camera_to_world))
        (root / "pose").mkdir(exist_ok=True)
        (root / "pose" / f"{i:06d}.txt").write_text(row(camera_to_world))
    lines = [f"{K[0, 0]} {K[0, 2]} {K[1, 2]} 0.", "0. 0. 0.", "1.", f"{HEIGHT} {WIDTH}"]
    (root / "intrinsics.txt").write_text("\n".join(lines) + "\n")


ZERO123_K = np.array([[512 * 35 / 32, 0, 256], [0, 512 * 35 / 32, 256], [0, 0, 1.0]]) * [[0.25], [0.25], [1]]


def write_zero123(root, poses=None):
    for i, camera_to_world in enumerate(arc(FRAMES) if poses is None else poses):
        save(root, f"{i:03d}.png", draw(camera_to_world, ZERO123_K, (128, 128), "RGBA"))
        np.save(root / f"{i:03d}.npy", np.linalg.inv(opengl(camera_to_world))[:3])


MINENS_FOCAL = 24 / np.tan(np.deg2rad(7.5))
MINENS_K = np.array([[MINENS_FOCAL, 0, 24], [0, MINENS_FOCAL, 24], [0, 0, 1]])


def write_minens(root, poses=None, name="training", mode="RGBA", objects=1):
    """The same object several times over."""
    poses = [pose(angle, 5.0) for angle in np.linspace(-0.6, 0.6, 4)] if poses is None else poses
    root.mkdir(parents=True, exist_ok=True)
    images = [np.asarray(draw(camera_to_world, MINENS_K, (48, 48), mode)) for camera_to_world in poses]
    looks = [np.linalg.inv(opengl(camera_to_world)).T for camera_to_world in poses]  # for row vectors
    np.save(root / f"imgs_{name}.npy", np.array([images] * objects))
    np.save(root / f"cameras_{name}.npy", np.array([looks] * objects))


WRITERS = {"minens": write_minens, "srn": write_srn, "zero123": write_zero123}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
