"""Faithful small samples of the formats whose importers read a camera a picture. Each writes what its format says, from
the cameras of `captures_source.arc`; the pictures show BALLS as coloured discs."""

import json

import numpy as np
from PIL import Image, ImageDraw

from tests.captures_source import BALLS, COLOURS, OPENGL_FROM_OPENCV, arc, pose, quaternion

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
    image.save(folder / name, **({"quality": 95, "subsampling": 0} if name.endswith(".jpg") else {}))


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


CENTRED_K = np.array([[90.0, 0, WIDTH / 2], [0, 90.0, HEIGHT / 2], [0, 0, 1]])


def write_llff(root, poses=None, images="images", size=(WIDTH, HEIGHT), depths=(2.0, 4.5)):
    rows = []
    for i, camera_to_world in enumerate(arc(FRAMES) if poses is None else poses):
        save(root / images, f"IMG_{i:04d}.png", draw(camera_to_world, CENTRED_K).resize(size))
        right, down, ahead, position = camera_to_world[:3].T
        rows.append([*np.column_stack([down, right, -ahead, position, [HEIGHT, WIDTH, 90.0]]).ravel(), *depths])
    np.save(root / "poses_bounds.npy", np.array(rows))


def write_mvsnet(root, poses=None, images="images", depths="2.0 0.01 256 4.55", cameras="cams"):
    for i, camera_to_world in enumerate(arc(FRAMES) if poses is None else poses):
        save(root / images, f"{i:08d}.jpg", draw(camera_to_world))
        (root / cameras).mkdir(exist_ok=True)
        extrinsic = "\n".join(map(row, np.linalg.inv(camera_to_world)))
        intrinsic = "\n".join(map(row, K))
        text = f"extrinsic\n{extrinsic}\n\nintrinsic\n{intrinsic}\n\n{depths}\n"
        (root / cameras / f"{i:08d}_cam.txt").write_text(text)


def write_polycam(root, poses=None, corrected=True):
    kind = "corrected_" if corrected else ""
    (root / "keyframes" / f"{kind}cameras").mkdir(parents=True)
    (root / "mesh_info.json").write_text("{}")
    for i, camera_to_world in enumerate(arc(FRAMES) if poses is None else poses):
        name, matrix = f"{90_000 + 17_000 * i}", opengl(camera_to_world)  # of five and of six digits
        save(root / "keyframes" / f"{kind}images", f"{name}.jpg", draw(camera_to_world))
        camera = {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "width": WIDTH, "height": HEIGHT}
        camera |= {f"t_{i}{j}": matrix[i, j] for i in range(3) for j in range(4)}
        write_json(root / "keyframes" / f"{kind}cameras" / f"{name}.json", camera | {"blur_score": 90.0})


def write_record3d(root, poses=None, pictures="rgbd", metadata="metadata", per_frame=False):
    poses = arc(12) if poses is None else poses  # 10 comes after 9
    for i, camera_to_world in enumerate(poses):
        save(root / pictures, f"{i}.jpg", draw(camera_to_world))
    entries = []
    for camera_to_world in poses:
        w, x, y, z = quaternion(camera_to_world[:3, :3])
        entries.append([w, z, -y, -x, *camera_to_world[:3, 3].tolist()])  # after half a turn about x: OpenGL axes
    content = {"w": WIDTH, "h": HEIGHT, "fps": 60, "K": K.T.ravel().tolist(), "poses": entries}
    if per_frame:
        content["K"] = (2 * K.T).ravel().tolist()
        content["perFrameIntrinsicCoeffs"] = [[K[0, 0], K[1, 1], K[0, 2], K[1, 2]]] * len(poses)
    write_json(root / metadata, content)


def opensfm_camera(**changes):
    side = max(WIDTH, HEIGHT)
    offset = (K[:2, 2] - np.array([WIDTH, HEIGHT]) / 2) / side
    camera = {"projection_type": "brown", "width": WIDTH, "height": HEIGHT, "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0}
    camera |= {"focal_x": K[0, 0] / side, "focal_y": K[1, 1] / side, "c_x": offset[0], "c_y": offset[1], "k3": 0.0}
    return camera | changes


def opensfm_shot(camera_to_world):
    world_to_camera = np.linalg.inv(camera_to_world)
    w, *axis = quaternion(world_to_camera[:3, :3])
    angle = 2 * np.arccos(w)
    rotation = np.array(axis) / max(np.linalg.norm(axis), 1e-12) * angle
    return {"camera": "v2 phone", "rotation": rotation.tolist(), "translation": world_to_camera[:3, 3].tolist()}


def write_opensfm(root, poses=None, points=()):
    shots = {}
    for i, camera_to_world in enumerate(arc(FRAMES) if poses is None else poses):
        save(root / "images", f"IMG_{i}.jpg", draw(camera_to_world))
        shots[f"IMG_{i}.jpg"] = opensfm_shot(camera_to_world)
    found = {str(i): {"coordinates": list(point), "color": [1, 2, 3]} for i, point in enumerate(points)}
    write_json(
        root / "reconstruction.json", [{"cameras": {"v2 phone": opensfm_camera()}, "shots": shots, "points": found}]
    )


def transforms(names, poses, **changes):
    frames = [
        {"file_path": name, "transform_matrix": opengl(camera_to_world).tolist()}
        for name, camera_to_world in zip(names, poses, strict=True)
    ]
    lens = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "w": WIDTH, "h": HEIGHT}
    return lens | {"camera_model": "OPENCV", "frames": frames} | changes


APPLIED = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])  # as nerfstudio turns COLMAP's world


def write_dl3dv(root, poses=None, inner=""):
    """Pictures a quarter as large as those that the cameras are for, and poses in nerfstudio's world."""
    poses = arc(FRAMES) if poses is None else poses
    names = [f"images/frame_{i + 1:05d}.png" for i in range(len(poses))]
    for name, camera_to_world in zip(names, poses, strict=True):
        save(root / inner / "images_4", name.removeprefix("images/"), draw(camera_to_world))
    content = transforms(names, [APPLIED @ camera_to_world for camera_to_world in poses])
    content |= {key: 4 * content[key] for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
    write_json(root / inner / "transforms.json", content | {"applied_transform": APPLIED[:3].tolist()})


def write_scannetpp(root, poses=None, file="dslr/nerfstudio/transforms.json", pictures="dslr/resized_images", **lens):
    """The last two frames are held out."""
    poses = arc(FRAMES) if poses is None else poses
    names = [f"DSC{i:05d}.JPG" for i in range(len(poses))]
    for name, camera_to_world in zip(names, poses, strict=True):
        save(root / pictures, name.lower(), draw(camera_to_world))
        (root / pictures / name.lower()).rename(root / pictures / name)
    content = transforms(names, poses, camera_model="PINHOLE", **lens)
    for frame in content["frames"]:
        frame |= {"mask_path": frame["file_path"].replace("JPG", "png"), "is_bad": False}
    content["frames"], content["test_frames"] = content["frames"][:-2], content["frames"][-2:]
    write_json(root / file, content)


WORLDS = {"dl3dv": APPLIED}  # from the world in which the balls are to the source's, where these differ


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


WRITERS = {
    "dl3dv": write_dl3dv,
    "llff": write_llff,
    "minens": write_minens,
    "mvsnet": write_mvsnet,
    "opensfm": write_opensfm,
    "polycam": write_polycam,
    "record3d": write_record3d,
    "scannetpp": write_scannetpp,
    "srn": write_srn,
    "zero123": write_zero123,
}
