"""Photographs are stored upright, with cameras that see in them what they saw before."""

import dataclasses
import functools
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from dfm_jax.data import prepare
from dfm_jax.data.builders.colmap import ColmapSource
from dfm_jax.data.builders.transforms_json import TransformsSource
from dfm_jax.data.loading import dataset
from dfm_jax.data.pictures import orientation, pictures
from dfm_jax.data.preparing import camera_checks, posed_scenes
from dfm_jax.data.preparing.quarantine import Quarantine
from dfm_jax.data.preparing.source import SourceFrame, SourceScene
from tests import captures_source, textured_room
from tests.captures_source import FOCAL, HEIGHT, WIDTH, write_colmap, write_transforms

BLACK = (0, 0, 0)
ORIENTATIONS = range(1, 9)
MIRRORED = (2, 4, 5, 7)
SAME_TURN = {2: 1, 4: 3, 5: 6, 7: 8}  # without the mirror
BACK = {6: 8, 8: 6}


def exif(turned):
    data = Image.Exif()
    data[orientation.TAG] = turned
    return data


def noise(width=8, height=6):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def read(root, source=TransformsSource):
    """A scene whose pictures are in memory: what is written later does not change them."""
    opened = source(root, BLACK)
    ((name,),) = opened.splits().values()
    scene = opened.read("train", name)
    frames = [dataclasses.replace(frame, load=functools.partial(bytes, frame.load())) for frame in scene.frames]
    return dataclasses.replace(scene, frames=frames)


def picture(frame):
    return np.asarray(pictures.open_picture(frame.load()).image)


def project(camera_to_world, intrinsics, points):
    """Normalised [n, 2] of points [n, 3]."""
    seen = intrinsics @ (np.linalg.inv(camera_to_world)[:3] @ np.c_[points, np.ones(len(points))].T)
    return (seen[:2] / seen[2]).T


@pytest.mark.parametrize("turned", ORIENTATIONS)
def test_a_turned_camera_sees_each_point_where_the_turned_picture_has_it(turned):
    rng, image = np.random.default_rng(turned), noise(16, 12)
    pose = captures_source.pose(0.3)
    intrinsics = np.array([[1.1, 0.05, 0.45], [0, 1.4, 0.55], [0, 0, 1]])
    upright = orientation.turn(image, turned)
    new_pose, new_intrinsics = orientation.turn_camera(pose, intrinsics, turned)
    camera_checks.check_camera(new_pose, new_intrinsics)
    points = rng.uniform(-0.4, 0.4, (200, 3))
    before, after = project(pose, intrinsics, points), project(new_pose, new_intrinsics, points)
    inside = ((before > 0) & (before < 1)).all(1)
    assert inside.sum() > 100
    for a, b in zip(before[inside], after[inside], strict=True):
        pixel = image.getpixel((int(a[0] * image.width), int(a[1] * image.height)))
        assert pixel == upright.getpixel((int(b[0] * upright.width), int(b[1] * upright.height)))


@pytest.mark.parametrize("turned", ORIENTATIONS)
def test_pictures_are_shown_as_pillow_shows_them(turned):
    image, file = noise(), io.BytesIO()
    image.save(file, "PNG", exif=exif(turned))
    opened = pictures.open_picture(file.getvalue())
    assert opened.orientation == turned and opened.image.tobytes() == image.tobytes()
    shown = orientation.show(opened.image, turned)
    assert shown.tobytes() == ImageOps.exif_transpose(Image.open(file)).tobytes()
    assert orientation.lay_down(shown, turned).tobytes() == image.tobytes()
    assert orientation.shown_size(image.size, turned) == shown.size
    upright = orientation.turn(image, turned)
    mirror = Image.Transpose.FLIP_LEFT_RIGHT
    assert shown.tobytes() == (upright.transpose(mirror) if turned in MIRRORED else upright).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF"])
def test_every_kind_of_file_says_how_it_is_turned(tmp_path, kind):
    """Whatever its decoder does by itself."""
    smooth = Image.fromarray(np.linspace(0, 250, 32 * 24 * 3).reshape(24, 32, 3).astype(np.uint8))
    path = tmp_path / "1"
    smooth.save(path, kind, exif=exif(6), quality=95)
    header, opened = pictures.read_header(path), pictures.open_picture(path.read_bytes())
    assert header.size == opened.image.size == (32, 24) and header.orientation == opened.orientation == 6
    assert np.abs(np.asarray(opened.image, float) - np.asarray(smooth)).mean() < 4  # lossy


@pytest.mark.parametrize("damage", [{orientation.TAG: 9}, {orientation.TAG: 0}])
def test_nonsense_leaves_a_picture_as_it_lies(damage):
    data, file = Image.Exif(), io.BytesIO()
    data.update(damage)
    noise().save(file, "PNG", exif=data)
    assert pictures.open_picture(file.getvalue()).orientation == orientation.UPRIGHT


def tag(path, turned):
    """Says in a picture's EXIF data how it is to be turned, and changes no pixel."""
    Image.open(path).save(path, exif=exif(turned))


DISTORTED = {"camera_model": "OPENCV", "k1": -0.1, "p1": 0.01}


@pytest.mark.parametrize("turned", ORIENTATIONS)
@pytest.mark.parametrize("lens", [{}, DISTORTED], ids=["pinhole", "distorted"])
def test_what_cameras_for_the_file_saw_is_turned_and_not_resampled(tmp_path, turned, lens):
    """So that a lens is undone before."""
    write_transforms(tmp_path, **lens)
    before = read(tmp_path)
    tag(tmp_path / "images" / "0.png", turned)
    tag(tmp_path / "images" / "3.png", turned)
    after = read(tmp_path)
    for i, (a, b) in enumerate(zip(before.frames, after.frames, strict=True)):
        applied = turned if i in (0, 3) else orientation.UPRIGHT
        expected = orientation.turn(Image.fromarray(picture(a)), applied)
        np.testing.assert_array_equal(picture(b), np.asarray(expected))
        pose, intrinsics = orientation.turn_camera(a.camera_to_world, a.intrinsics, applied)
        np.testing.assert_array_equal(b.camera_to_world, pose)
        np.testing.assert_array_equal(b.intrinsics, intrinsics)
    assert (after.near, after.far, after.scale) == (before.near, before.far, before.scale)


@pytest.mark.parametrize("turned", [5, 6, 7, 8])
def test_cameras_for_the_shown_picture_are_told_by_its_size(tmp_path, turned):
    write_transforms(tmp_path)
    before = read(tmp_path)
    path = tmp_path / "images" / "2.png"
    orientation.lay_down(Image.open(path), turned).save(path, exif=exif(turned))
    after = read(tmp_path)
    for a, b in zip(before.frames, after.frames, strict=True):
        np.testing.assert_array_equal(picture(b), picture(a))
        np.testing.assert_array_equal(b.camera_to_world, a.camera_to_world)
        np.testing.assert_array_equal(b.intrinsics, a.intrinsics)


def test_what_sizes_tell_holds_for_photographs_that_do_not_tell(tmp_path):
    """One program made the capture: half turns, too, were turned by it."""
    write_transforms(tmp_path)
    before = read(tmp_path)
    for name, turned in (("1.png", 3), ("2.png", 6), ("4.png", 4)):
        path = tmp_path / "images" / name
        orientation.lay_down(Image.open(path), turned).save(path, exif=exif(turned))
    after = read(tmp_path)
    assert all((picture(a) == picture(b)).all() for a, b in zip(before.frames, after.frames, strict=True))
    assert not after.warnings


def test_what_cannot_be_told_is_taken_as_it_lies_and_said(tmp_path):
    write_transforms(tmp_path)  # discs, which no two pictures share recognisably
    tag(tmp_path / "images" / "1.png", 3)
    scene = read(tmp_path)
    assert len(scene.frames) == 6 and "as they lie" in "".join(scene.warnings)


def test_colmap_pictures_are_turned_with_their_cameras(tmp_path):
    write_colmap(tmp_path)
    before = read(tmp_path, ColmapSource)
    for i in range(6):
        tag(tmp_path / "images" / f"{i}.png", 6)
    after = read(tmp_path, ColmapSource)
    for a, b in zip(before.frames, after.frames, strict=True):
        assert picture(b).shape == (WIDTH, HEIGHT, 3)
        points = captures_source.BALLS * before.scale
        u, v = project(a.camera_to_world, a.intrinsics, points).T
        np.testing.assert_allclose(project(b.camera_to_world, b.intrinsics, points), np.stack([1 - v, u], -1))


@pytest.fixture(scope="module")
def room():
    walls, poses = textured_room.textures(0), textured_room.cameras(6)
    return [textured_room.picture(pose, walls) for pose in poses], poses


def write_room(folder, room, turned, shape, are_for_shown):
    """A capture of which some photographs lie turned, with cameras for the shown pictures or for those in the files."""
    images, poses = room
    (folder / "images").mkdir(parents=True)
    focal, frames = textured_room.FOCAL, []
    for i, (image, pose) in enumerate(zip(images, poses, strict=True)):
        if shape == "square":
            left = (image.width - image.height) // 2
            image = image.crop((left, 0, left + image.height, image.height))
        applied = turned if i in (1, 2, 4) else orientation.UPRIGHT
        if not are_for_shown:
            pose, _ = orientation.turn_camera(pose, np.eye(3), BACK.get(applied, applied))
        orientation.lay_down(image, applied).save(folder / "images" / f"{i}.png", exif=exif(applied))
        matrix = (pose @ captures_source.OPENGL_FROM_OPENCV).tolist()
        frames.append({"file_path": f"images/{i}.png", "transform_matrix": matrix})
    width, height = image.size
    content = {"fl_x": focal, "fl_y": focal, "cx": width / 2, "cy": height / 2, "w": width, "h": height}
    (folder / "transforms.json").write_text(json.dumps(content | {"frames": frames}))
    return image.size


@pytest.mark.parametrize(("shape", "turned"), [("oblong", 3), ("square", 8)])
@pytest.mark.parametrize("are_for_shown", [False, True], ids=["for the file", "for the shown"])
def test_where_sizes_do_not_tell_the_pictures_do(tmp_path, room, shape, turned, are_for_shown):
    width, height = write_room(tmp_path, room, turned, shape, are_for_shown)
    scene = read(tmp_path)
    poses = np.stack([frame.camera_to_world for frame in scene.frames])
    angle, distance = textured_room.misalignment(poses, room[1])
    assert angle < 1e-3 and distance < 1e-5 and not scene.warnings  # of float64, through an arc cosine near 1
    for frame, image in zip(scene.frames, room[0], strict=True):
        left = (image.width - width) // 2
        np.testing.assert_array_equal(picture(frame), np.asarray(image.crop((left, 0, left + width, height))))


def test_half_a_turn_is_no_wrong_convention(tmp_path, room):
    write_room(tmp_path / "room", room, 3, "oblong", are_for_shown=True)
    assert prepare.main(["--format=transforms", f"--source={tmp_path}", f"--data_dir={tmp_path}", "--name=d"]) == 0
    scene = dataset.open_dataset(tmp_path, "d", "train").scene(0)
    assert len(scene.frame_names) == 6 and "warnings" not in scene.attributes


@pytest.mark.parametrize("turned", [1, 3, 6, 7])
def test_pictures_of_every_source_are_turned_when_they_are_stored(turned):
    """Also of those that know nothing of EXIF data."""
    images = [captures_source.photograph(pose) for pose in captures_source.arc()]
    k = np.array([[FOCAL / WIDTH, 0, 0.5], [0, FOCAL / HEIGHT, 0.5], [0, 0, 1]])
    frames = []
    for i, (image, pose) in enumerate(zip(images, captures_source.arc(), strict=True)):
        file = io.BytesIO()
        image.save(file, "PNG", exif=exif(turned))
        frames.append(SourceFrame(str(i), pose, k, np.nan, file.getvalue, i))
    options = posed_scenes.StoreOptions(image_size=0, min_frames=3)
    _, kept, stored = posed_scenes.accept(SourceScene("a", frames), "train", options, Quarantine())
    for frame, encoded, image, pose in zip(kept, stored, images, captures_source.arc(), strict=True):
        left = (WIDTH - HEIGHT) // 2
        square = image.crop((left, 0, left + HEIGHT, HEIGHT))
        assert orientation.of(Image.open(io.BytesIO(encoded))) == orientation.UPRIGHT
        expected = orientation.turn(square, SAME_TURN.get(turned, turned))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), np.asarray(expected))
        np.testing.assert_allclose(frame.camera_to_world, orientation.turn_camera(pose, k, turned)[0])
