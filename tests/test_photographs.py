"""One's own photographs: what lens they were taken with, which square is taken of them, and all that may be wrong."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image

from dfm_jax.commands.camera_files import cameras_of, read_path, target_camera
from dfm_jax.commands.sample_options import SampleOptions
from dfm_jax.config.changes import with_sampling
from dfm_jax.config.reading import from_dict
from dfm_jax.data.loading import toy_scenes
from dfm_jax.errors import UserError
from dfm_jax.runs.saved_settings import saved_settings
from dfm_jax.sampling import photographs
from dfm_jax.sampling.cameras import target_pose
from dfm_jax.sampling.placement import Placement
from dfm_jax.sampling.sources import to_example
from dfm_jax.structs import Camera

CONFIG = from_dict(saved_settings("toy"))
SILENT = dataclasses.replace(CONFIG, sample=dataclasses.replace(CONFIG.sample, photograph=None))
SMOOTH = np.stack([*np.meshgrid(np.linspace(0, 250, 60), np.linspace(250, 10, 40)), np.full((40, 60), 90.0)], -1)
PHOTO = SMOOTH.astype(np.uint8)  # 60 x 40
TAGS = ExifTags.Base


def given(source, config=CONFIG, **placement):
    return to_example(source, config, Placement(**placement))


def facts(source, config=CONFIG, **placement):
    return given(source, config, **placement).assumptions.photographs[0]


def intrinsics(source, config=CONFIG, **placement):
    return given(source, config, **placement).example.context.camera.intrinsics[0, 0]


def with_exif(path, image=PHOTO, orientation=None, **lens):
    """A JPEG with these EXIF tags by name."""
    exif = Image.Exif()
    if orientation:
        exif[TAGS.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update({TAGS[name]: value for name, value in lens.items()})
    Image.fromarray(image).save(path, exif=exif, quality=100, subsampling=0)
    return path


# --- the lens


def test_a_field_of_view_is_across_the_whole_picture_and_a_focal_length_is_in_its_pixels():
    """Of 60 x 40 pixels, the middle 40 x 40 are taken: the focal length in sides of these is 1.5 times as long."""
    for found in (intrinsics(PHOTO, fov=90.0), intrinsics(PHOTO, focal=30.0)):
        np.testing.assert_allclose(found, [[0.75, 0, 0.5], [0, 0.75, 0.5], [0, 0, 1]], atol=1e-6)
    assert facts(PHOTO, focal=30.0).field_of_view == pytest.approx(90.0)
    padded = intrinsics(PHOTO, fov=90.0, crop="pad")
    np.testing.assert_allclose(padded, [[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]], atol=1e-6)
    upright = intrinsics(PHOTO.swapaxes(0, 1), fov=90.0)  # 40 x 60: the square is as wide as the picture
    np.testing.assert_allclose(upright[0, 0], 0.5, atol=1e-6)


EXIF = {
    "as on film": ({"FocalLengthIn35mmFilm": 43}, 43 * np.hypot(60, 40) / np.hypot(36, 24)),
    "pixels of the sensor": (
        {"FocalLength": 5.0, "FocalPlaneXResolution": 20.0, "FocalPlaneResolutionUnit": 4},
        100.0,
    ),
    "pixels an inch": ({"FocalLength": 25.4, "FocalPlaneXResolution": 70.0}, 70.0),
    "a reduced copy": (
        {"FocalLength": 5.0, "FocalPlaneXResolution": 200.0, "FocalPlaneResolutionUnit": 4}
        | {"ExifImageWidth": 600, "ExifImageHeight": 400},
        100.0,
    ),
}


@pytest.mark.parametrize("case", EXIF)
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_camera_tells_its_focal_length(tmp_path, case, orientation):
    lens, pixels = EXIF[case]
    path = with_exif(tmp_path / "photo.jpg", orientation=orientation, **lens)
    fact = facts(path)
    width = 60 if orientation == 1 else 40
    assert (fact.width, fact.height) == ((60, 40) if orientation == 1 else (40, 60))
    assert fact.field_of_view_from.startswith("EXIF: ")
    assert fact.field_of_view == pytest.approx(np.degrees(2 * np.arctan(width / 2 / pixels)))
    np.testing.assert_allclose(intrinsics(path)[[0, 1], [0, 1]], pixels / 40, rtol=1e-5)
    assert facts(path, fov=30.0).field_of_view_from == "as given"  # what is said comes before what is stated


@pytest.mark.parametrize("lens", [{"FocalLengthIn35mmFilm": 0}, {"FocalLength": 5.0}, {"FocalLength": (1, 0)}])
def test_a_lens_of_which_nothing_is_known_is_assumed_and_said(tmp_path, lens):
    path = with_exif(tmp_path / "photo.jpg", **lens)
    assert facts(path).field_of_view_from.startswith("as the model's config assumes")
    np.testing.assert_array_equal(intrinsics(path)[0, 0], np.float32(CONFIG.sample.photograph.focal_length))
    fact = facts(path, SILENT)
    assert fact.field_of_view == pytest.approx(50.0) and "nothing says it" in fact.field_of_view_from


def test_a_cropped_photograph_is_told_from_the_one_that_was_taken(tmp_path):
    taken = {"FocalLengthIn35mmFilm": 30, "ExifImageWidth": 600, "ExifImageHeight": 300}
    assert "another shape" in facts(with_exif(tmp_path / "photo.jpg", **taken)).notes[0]
    taken["ExifImageHeight"] = 400
    assert facts(with_exif(tmp_path / "photo.jpg", **taken)).notes == ()


# --- the picture


def test_bars_keep_all_of_the_picture(tmp_path):
    image = given(PHOTO, crop="pad").example.context.images[0, 0]
    background = round(255 * CONFIG.model.ray_marching.background) / 255
    # Pictures have 8 bits, and resizing rings.
    np.testing.assert_allclose(image[[0, 1, -2, -1]], background, atol=0.01)
    assert np.abs(image[12] - background).max() > 0.1


def test_pictures_of_every_kind_are_the_same_picture(tmp_path):
    """Other than what their format cannot hold."""
    image = Image.fromarray(PHOTO)
    wanted = given(image).example.context.images[0, 0]
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:, :20] = 0
    files = {
        "a.png": (image, {}, 1 / 255),
        "cmyk.jpg": (image.convert("CMYK"), {"quality": 100, "subsampling": 0}, 0.05),
        "palette.gif": (image, {"save_all": True, "append_images": [image.rotate(180)]}, 0.2),
        "alpha.png": (Image.fromarray(np.concatenate([PHOTO, alpha], -1)), {}, None),
    }
    for name, (picture, options, tolerance) in files.items():
        picture.save(tmp_path / name, **options)
        found = given(tmp_path / name)
        if tolerance:
            np.testing.assert_allclose(found.example.context.images[0, 0], wanted, atol=tolerance, err_msg=name)
        assert bool(found.assumptions.photographs[0].notes) == name.endswith("gif")
    left = given(tmp_path / "alpha.png").example.context.images[0, 0, :, :3]
    # Pictures have 8 bits, and resizing rings.
    np.testing.assert_allclose(left, CONFIG.model.ray_marching.background, atol=0.01)
    deep = (PHOTO[..., 0].astype(np.uint16) << 8) + 255
    deep[0, 0] = 65535
    Image.fromarray(deep).save(tmp_path / "deep.png")
    # 8 of the 16 bits are kept, and rounded while resizing.
    np.testing.assert_allclose(
        given(tmp_path / "deep.png").example.context.images[0, 0, ..., 0], wanted[..., 0], atol=0.02
    )


def test_pictures_of_any_size_are_taken(tmp_path):
    Image.new("RGB", (1, 1), (255, 0, 0)).save(tmp_path / "pixel.png")
    pixel = given(tmp_path / "pixel.png")
    np.testing.assert_allclose(pixel.example.context.images[0, 0], np.broadcast_to([1.0, 0, 0], (24, 24, 3)))
    assert "enlarged" in pixel.assumptions.photographs[0].notes[0]
    Image.fromarray(PHOTO).resize((8000, 6000)).save(tmp_path / "large.jpg")
    assert given(tmp_path / "large.jpg").example.context.images.shape == (1, 1, 24, 24, 3)
    strip = given(np.zeros((1, 20_000, 3), np.uint8), crop="pad").example.context
    assert strip.images.shape == (1, 1, 24, 24, 3) and np.isfinite(strip.camera.intrinsics).all()


def test_an_array_of_the_models_size_is_taken_as_it_is():
    image = np.random.default_rng(0).random((24, 24, 3), np.float32)
    found = given(image, fov=60.0)
    np.testing.assert_array_equal(found.example.context.images[0, 0], image)
    np.testing.assert_allclose(found.example.context.camera.intrinsics[0, 0, 0, 0], 0.5 / np.tan(np.pi / 6), rtol=1e-6)


# --- cameras


def test_units_of_the_source_are_divided_by_the_scale():
    poses = toy_scenes.orbit_pose(np.array([0.3, 0.9]))
    cameras = Camera(poses, np.tile([[1.4, 0, 0.5], [0, 1.4, 0.5], [0, 0, 1]], (2, 1, 1)))
    larger = Camera(np.array(poses), cameras.intrinsics)
    larger.camera_to_world[:, :3, 3] *= 10
    one, ten = (
        given([PHOTO] * 2, camera=camera, near=2 * scale, far=5 * scale, scale=scale, target_camera=second_of(camera))
        for camera, scale in ((cameras, 1.0), (larger, 10.0))
    )
    for name in ("context", "target"):
        first, second = (getattr(found.example, name).camera.camera_to_world for found in (one, ten))
        np.testing.assert_allclose(first, second, atol=1e-5)
    np.testing.assert_allclose(one.world, ten.world, atol=1e-6)
    assert (ten.assumptions.near, ten.assumptions.far, ten.assumptions.scale) == (2.0, 5.0, 10.0)
    assert ten.assumptions.frame == "source" and given(PHOTO).assumptions.frame == "first_camera"


def second_of(cameras):
    return Camera(cameras.camera_to_world[1], cameras.intrinsics[1])


@pytest.fixture
def transforms(tmp_path):
    """Two photographs of 60 x 40 pixels and a file of their cameras, OpenGL axes; the second lies on its side."""
    (tmp_path / "images").mkdir()
    Image.fromarray(PHOTO).save(tmp_path / "images" / "a.png")
    lying = np.ascontiguousarray(np.rot90(PHOTO))  # 40 x 60, shown turned clockwise
    with_exif(tmp_path / "images" / "b.jpg", lying, orientation=6)
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    frames = [{"file_path": f"images/{name}", "transform_matrix": pose.tolist()} for name in ("a.png", "b.jpg")]
    frames[1] |= {"w": 40, "h": 60, "fl_x": 30, "fl_y": 30, "cx": 20, "cy": 30}
    content = {"w": 60, "h": 40, "fl_x": 30, "fl_y": 30, "cx": 30, "cy": 20, "applied_scale": 3.0, "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    return tmp_path / "transforms.json", [str(tmp_path / "images" / name) for name in ("a.png", "b.jpg")], content


def test_cameras_of_a_file_are_those_of_the_photographs_as_viewers_show_them(transforms):
    file, images, _ = transforms
    photographs, camera = cameras_of(str(file), images, 0.0)
    np.testing.assert_allclose(camera.camera_to_world[0], np.eye(4))  # OpenCV axes; its scale is as in the file
    np.testing.assert_allclose(camera.intrinsics, np.tile([[0.5, 0, 0.5], [0, 0.75, 0.5], [0, 0, 1]], (2, 1, 1)))
    # Turned clockwise, the picture's right is what was its top.
    np.testing.assert_allclose(camera.camera_to_world[1, :3, 0], [0, -1, 0], atol=1e-12)
    example = given(photographs, camera=camera).example
    # Two views of one thing: turned after, or before, it is resized to 8 bits.
    np.testing.assert_allclose(*example.context.images[0], atol=0.05)


def test_a_lens_that_bends_lines_is_undone(transforms):
    file, images, content = transforms
    file.write_text(json.dumps(content | {"k1": -0.2}))
    photographs, camera = cameras_of(str(file), images[:1], 0.0)
    assert given(photographs, camera=camera).assumptions.photographs[0].name == "a.png"
    assert isinstance(photographs[0], Image.Image) and abs(camera.intrinsics[0, 0, 0] - 0.5) > 0.01
    with pytest.raises(UserError, match="turn it first"):
        cameras_of(str(file), images, 0.0)


def test_a_photograph_is_opened_once_and_kept_at_the_size_of_a_page(tmp_path, monkeypatch):
    opened, read = [], photographs.open_photograph
    monkeypatch.setattr(photographs, "open_photograph", lambda *source: opened.append(source) or read(*source))
    Image.fromarray(PHOTO).resize((1800, 1200)).save(tmp_path / "large.png")
    found = given(tmp_path / "large.png")
    assert len(opened) == 1 and [image.size for image in found.shown] == [(640, 427)]
    as_page = Image.open(tmp_path / "large.png").convert("RGB")
    as_page.thumbnail((640, 640))
    np.testing.assert_array_equal(np.asarray(found.shown[0]), np.asarray(as_page))
    assert [image.size for image in given(PHOTO).shown] == [(60, 40)]  # nothing is enlarged


def test_a_target_camera_is_given_by_numbers_by_name_or_by_a_file(transforms):
    file, _, _ = transforms
    pose = lambda target: given(PHOTO, target_camera=target).example.target.camera.camera_to_world[0, 0]
    numbers = dataclasses.replace(CONFIG.sample.target_camera, azimuth=90.0, elevation=10.0, distance=4.0)
    np.testing.assert_allclose(pose("90,10,4"), target_pose(numbers), atol=1e-6)
    across = pose("orbit")
    # Half way around, as upright as the config knows, it is where toy photographs are looked at from.
    np.testing.assert_allclose(across, target_pose(CONFIG.sample.target_camera), atol=0.01)
    assert pose("forward")[2, 3] > 0.3 and np.allclose(pose("forward")[:3, :3], np.eye(3))
    assert pose("pan")[0, 2] != 0 and np.allclose(pose("pan")[:3, 3], 0)
    camera = target_camera(str(file))
    np.testing.assert_allclose(camera.camera_to_world, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(camera.intrinsics, [[0.75, 0, 0.5], [0, 0.75, 0.5], [0, 0, 1]])  # of a square picture


def test_the_cameras_of_a_file_are_a_path(transforms):
    file, _, content = transforms
    path = read_path(str(file), 5, 24)
    np.testing.assert_allclose(path.camera.camera_to_world[0], np.eye(4), atol=1e-12)
    assert path.size == (48, 52) and len(path.order) == 5  # the pictures are as 3 to 2 and as 2 to 3
    del content["frames"][0]["transform_matrix"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="frame 0: transform_matrix is no 4x4 matrix"):
        read_path(str(file), 5, 24)


@pytest.mark.parametrize(("path", "allowed"), [("spiral", True), ("90,0,4", True), ("a.json", True), ("loop", False)])
def test_a_path_is_a_name_or_numbers_or_a_file(path, allowed):
    if allowed:
        assert with_sampling(CONFIG, {"video_path": path}, of_commands=True).sample.video_path == path
    else:
        with pytest.raises(UserError, match="'loop' is none of interpolate, orbit, spiral, dolly, pan, forward"):
            with_sampling(CONFIG, {"video_path": path}, of_commands=True)


# --- mistakes


def corrupt(folder):
    content = io.BytesIO()
    Image.fromarray(PHOTO).save(content, "PNG")
    (folder / "cut.png").write_bytes(content.getvalue()[:-40])
    return folder / "cut.png"


PIXELS = np.array([[30.0, 0, 24], [0, 30, 16], [0, 0, 1]])
MOVED = np.eye(4) + np.outer([1, 2, 3, 0], [0, 0, 0, 1.0])
MISTAKES = {
    "a folder": (lambda folder: given(folder), "is a folder: name the photograph in it"),
    "an address": (lambda _: given("https://example.org/a.jpg"), "is an address: download the photograph first"),
    "damaged": (lambda folder: given(corrupt(folder)), r"cut.png: the photograph cannot be read"),
    "no file": (lambda folder: given(folder / "no.png"), r"no.png is missing"),
    "no angle": (lambda _: given(PHOTO, fov=180.0), "fov=180.0 is a horizontal field of view in degrees"),
    "no number": (lambda _: given(PHOTO, fov=float("nan")), "fov=nan is a horizontal"),
    "a word": (lambda _: given(PHOTO, fov="60"), "fov='60' is a horizontal"),
    "no focal length": (lambda _: given(PHOTO, focal=0), "focal=0 is a focal length in pixels"),
    "no colours": (lambda _: given(np.full((9, 9, 3), np.nan)), "some are infinite or no number"),
    "bytes as floats": (lambda _: given(PHOTO.astype(float)), "divide by 255"),
    "pixels": (lambda _: given(PHOTO, camera=Camera(np.eye(4), PIXELS)), "intrinsics in pixels, it seems: divide"),
    "a mirror": (lambda _: given(PHOTO, camera=Camera(np.diag([1, 1, -1.0, 1]), np.eye(3))), "mirrors the world"),
    "a scaled pose": (lambda _: given(PHOTO, camera=Camera(np.diag([2, 2, 2.0, 1]), np.eye(3))), "are they scaled"),
    "a transposed pose": (lambda _: given(PHOTO, camera=Camera(MOVED.T, np.eye(3))), "is it transposed"),
    "a target in pixels": (lambda _: given(PHOTO, target_camera=Camera(np.eye(4), PIXELS)), "target_camera .* pixels"),
    "both": (lambda _: given(PHOTO, fov=50, focal=50), "fov and focal say the same"),
    "two lenses": (lambda _: given(PHOTO, camera=Camera(np.eye(4), np.eye(3)), fov=50), "have intrinsics of their own"),
    "no crop": (lambda _: given(PHOTO, crop="left"), "crop='left' is none of centre, pad"),
    "no scale": (lambda _: given(PHOTO, scale=0.0), "scale, in source units a unit of the model"),
    "no target": (
        lambda _: given(PHOTO, target_camera="around"),
        "target camera 'around' is none of interpolate",
    ),
    "a known target": (lambda _: given(PHOTO, target_camera="dataset"), "made of cameras that are known"),
    "turned too far": (lambda _: given(PHOTO, target_camera="400,0,1"), "target camera '400,0,1' is none of"),
    "no photograph": (lambda _: SampleOptions(fov=50.0).check(), "--fov is for photographs of your own"),
    "no cameras": (lambda _: SampleOptions(("a.jpg", "b.jpg")).check(), "2 photographs .* --cameras=transforms.json"),
    "twice": (lambda _: SampleOptions(("a.jpg", "./a.jpg"), cameras="c.json").check(), "named twice"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_error(mistake, tmp_path):
    call, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message):
        call(tmp_path)


def test_a_file_of_other_cameras_is_one_clear_error(transforms, tmp_path):
    file, images, content = transforms
    for changed, message in (
        ({"frames": []}, "no list of frames"),
        ({"frames": content["frames"][1:]}, r"no frame of .* has the file_path of .*a.png: there are images/b.jpg"),
        ({"frames": content["frames"][:1] * 2}, "2 frames of .* have the file_path"),
        ({"frames": [content["frames"][0] | {"transform_matrix": 3}]}, "transform_matrix is no 4x4 matrix"),
    ):
        file.write_text(json.dumps(content | changed))
        with pytest.raises(UserError, match=message):
            cameras_of(str(file), images[:1], 0.0)
    file.write_text("[]")
    with pytest.raises(UserError, match=r"is no transforms\.json"):
        cameras_of(str(file), images[:1], 0.0)
    with pytest.raises(UserError, match="cannot be read as a file of cameras"):
        cameras_of(str(tmp_path / "nowhere.json"), images, 0.0)
