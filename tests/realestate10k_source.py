"""Writes small sources in the layout of RealEstate10K, for tests."""

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 32, 18
URL = "https://www.youtube.com/watch?v=clip"


def camera_line(frame, columns=None):
    """A camera that turns and moves along; `columns` replaces some of the 19 by number."""
    angle = 0.02 * frame
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    world_to_camera = np.concatenate([rotation, [[0.1 * frame], [0.05], [-0.2]]], axis=1)
    fields = [timestamp(frame), 0.5, 0.9, 0.5, 0.5, 0.0, 0.0, *world_to_camera.ravel().tolist()]
    for number, value in (columns or {}).items():
        fields[number] = value
    return " ".join(map(str, fields))


def timestamp(frame):
    return 1_000_000 + 33_367 * frame


def picture(seed, size=(WIDTH, HEIGHT)):
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize(size)


def write_clip(root, name, num_frames=8, split="train", number=0):
    """Returns the camera file and the folder of frames."""
    cameras, folder = root / "RealEstate10K" / split / f"{name}.txt", root / "frames" / split / name
    cameras.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True)
    cameras.write_text("\n".join([URL, *(camera_line(frame) for frame in range(num_frames))]) + "\n")
    for frame in range(num_frames):
        picture(100 * number + frame).save(folder / f"{timestamp(frame)}.jpg", quality=95)
    return cameras, folder


def replace_line(cameras, number, line):
    lines = cameras.read_text().splitlines()
    lines[number] = line
    cameras.write_text("\n".join(lines) + "\n")
