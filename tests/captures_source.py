"""Made-up captures for tests: cameras on an arc around a few coloured balls, and their photographs, drawn as discs."""

import json
import struct

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 64, 48
FOCAL = 60.0  # pixels
RADIUS = 3.0  # of the arc
BALLS = np.array([[0.0, 0, 0], [0.4, 0.2, 0.1], [-0.3, 0.3, -0.2], [0.1, -0.4, 0.3]])
COLOURS = ("red", "green", "blue", "yellow")
OPENGL_FROM_OPENCV = np.diag([1.0, -1, -1, 1])


def pose(angle, radius=RADIUS):
    """Camera-to-world, OpenCV axes: looks at the origin from the angle, from a little above."""
    position = radius * np.array([np.sin(angle), -0.3, -np.cos(angle)])
    forward = -position / np.linalg.norm(position)
    right = np.cross([0.0, 1, 0], forward)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(forward, right), forward, position], axis=1)
    return matrix


def arc(count=6):
    return np.stack([pose(angle) for angle in np.linspace(-0.6, 0.6, count)])


def project(camera_to_world, points):
    """Pixels [n, 2] of points [n, 3]."""
    in_camera = (np.linalg.inv(camera_to_world) @ np.c_[points, np.ones(len(points))].T).T
    return FOCAL * in_camera[:, :2] / in_camera[:, 2:3] + [WIDTH / 2, HEIGHT / 2]


def photograph(camera_to_world, mode="RGB", size=(WIDTH, HEIGHT)):
    fine = np.multiply(size, 4)  # drawing rounds to pixels
    image = Image.new(mode, tuple(fine), "gray" if mode == "RGB" else (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    for centre, colour in zip(project(camera_to_world, BALLS) * fine / (WIDTH, HEIGHT) - 0.5, COLOURS, strict=True):
        radius = 4 * fine[0] / WIDTH
        draw.ellipse((*(centre - radius), *(centre + radius)), fill=colour)
    return image.resize(size, Image.Resampling.BOX)


def write_photographs(folder, poses, **options):
    folder.mkdir(parents=True, exist_ok=True)
    for i, camera in enumerate(poses):
        photograph(camera, **options).save(folder / f"{i}.png")


def intrinsics_in_pixels():
    return {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT}


def write_transforms(folder, poses=None, file="transforms.json", pictures="images", **changes):
    """A capture whose file's entries are changed, or removed where None; returns its file."""
    poses = arc() if poses is None else poses
    write_photographs(folder / pictures, poses)
    frames = [
        {"file_path": f"{pictures}/{i}.png", "transform_matrix": (camera @ OPENGL_FROM_OPENCV).tolist()}
        for i, camera in enumerate(poses)
    ]
    content = intrinsics_in_pixels() | {"frames": frames} | changes
    path = folder / file
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


def change_frame(path, number, **changes):
    content = json.loads(path.read_text())
    content["frames"][number] |= changes
    path.write_text(json.dumps(content))


def quaternion(rotation):
    """w x y z of a rotation by less than half a turn."""
    w = np.sqrt(max(0.0, 1 + np.trace(rotation))) / 2
    x, y, z = rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]
    return np.array([w, x / (4 * w), y / (4 * w), z / (4 * w)])


POINTS = np.random.default_rng(0).uniform(-0.5, 0.5, (30, 3))
PINHOLE = (1, "PINHOLE", (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2))


def write_colmap(root, poses=None, camera=PINHOLE, text=False, model="sparse/0", images="images"):
    """A capture whose cameras all see all POINTS; returns the model's folder."""
    poses = arc() if poses is None else poses
    write_photographs(root / images, poses)
    folder = root / model
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for camera_to_world in poses:
        world_to_camera = np.linalg.inv(camera_to_world)
        entries.append(np.concatenate([quaternion(world_to_camera[:3, :3]), world_to_camera[:3, 3]]).tolist())
    (_write_text if text else _write_binary)(folder, entries, camera)
    return folder


def _write_text(folder, entries, camera):
    _, name, params = camera
    numbers = " ".join(map(repr, params))
    (folder / "cameras.txt").write_text(f"# one camera\n3 {name} {WIDTH} {HEIGHT} {numbers}\n")
    seen = " ".join(f"{i}.5 1.5 {i + 1}" for i in range(len(POINTS)))
    lines = [f"{i + 1} {' '.join(map(repr, entry))} 3 {i}.png\n{seen} 7.5 7.5 -1" for i, entry in enumerate(entries)]
    (folder / "images.txt").write_text("\n".join(["# two lines an image", *lines]) + "\n")
    points = [f"{i + 1} {x!r} {y!r} {z!r} 0 0 0 0.5 1 {i}" for i, (x, y, z) in enumerate(POINTS.tolist())]
    (folder / "points3D.txt").write_text("\n".join(points) + "\n")


def _write_binary(folder, entries, camera):
    number, _, params = camera
    header = struct.pack("<QiiQQ", 1, 3, number, WIDTH, HEIGHT)
    (folder / "cameras.bin").write_bytes(header + struct.pack(f"<{len(params)}d", *params))
    images = struct.pack("<Q", len(entries))
    for i, entry in enumerate(entries):
        images += struct.pack("<I7dI", i + 1, *entry, 3) + f"{i}.png\0".encode() + struct.pack("<Q", len(POINTS) + 1)
        images += b"".join(struct.pack("<ddq", j + 0.5, 1.5, j + 1) for j in range(len(POINTS)))
        images += struct.pack("<ddq", 7.5, 7.5, -1)
    (folder / "images.bin").write_bytes(images)
    points = struct.pack("<Q", len(POINTS))
    for i, point in enumerate(POINTS.tolist()):
        points += struct.pack("<Q3d3BdQII", i + 1, *point, 0, 0, 0, 0.5, 1, 1, i)
    (folder / "points3D.bin").write_bytes(points)


K = np.array([[FOCAL, 0.5, 30.0], [0, FOCAL + 1, 25.0], [0, 0, 1]])  # of Middlebury's cameras


def write_middlebury(folder, poses=None, name="temple"):
    """A capture; returns its file."""
    poses = arc() if poses is None else poses
    write_photographs(folder, poses)
    lines = [str(len(poses))]
    for i, camera_to_world in enumerate(poses):
        world_to_camera = np.linalg.inv(camera_to_world)
        numbers = [*K.ravel(), *world_to_camera[:3, :3].ravel(), *world_to_camera[:3, 3]]
        lines.append(f"{i}.png {' '.join(map(repr, map(float, numbers)))}")
    path = folder / f"{name}_par.txt"
    path.write_text("\n".join(lines) + "\n")
    return path
