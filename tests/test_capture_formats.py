"""LLFF, MVSNet, Polycam, Record3D and OpenSfM: depths, names, and files that are damaged or do not go together."""

import json

import numpy as np
import pytest
from PIL import Image

from dfm_jax.data.builders import opensfm
from dfm_jax.data.preparing import undistort
from dfm_jax.errors import Rejected, UserError
from tests import format_sources
from tests.captures_source import arc
from tests.format_sources import FRAMES, HEIGHT, WIDTH
from tests.test_formats import convert, pixels, scenes


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_depths_that_llff_states_are_the_bounds(tmp_path):
    format_sources.write_llff(tmp_path, depths=(2.0, 4.5))
    (scene,) = scenes("llff", tmp_path)
    assert scene.attributes["bounds"] == "stated"
    to_source = 1 / scene.scale
    corner = np.linalg.norm([WIDTH / 2 / 90, HEIGHT / 2 / 90, 1])
    assert scene.near * to_source == pytest.approx(0.9 * 2) and scene.far * to_source == pytest.approx(
        1.1 * 4.5 * corner
    )
    assert scene.scale * np.sqrt(2 * 4.5 * corner) == pytest.approx(4)
    for depths in (0.0, 0.0), (3.0, 1.0), (np.nan, 2.0), (-1.0, 5.0):
        format_sources.write_llff(tmp_path, depths=depths)
        (scene,) = scenes("llff", tmp_path)
        assert scene.attributes["bounds"] == "focus" and len(scene.frames) == FRAMES


def test_pictures_of_llff_are_in_the_order_of_computers_and_may_be_scaled_copies(tmp_path):
    format_sources.write_llff(tmp_path, images="images_4", size=(WIDTH // 4, HEIGHT // 4))
    for i in range(FRAMES):
        (tmp_path / "images_4" / f"IMG_{i:04d}.png").rename(tmp_path / "images_4" / f"{i + 8}.png")
    (tmp_path / "images_4" / ".DS_Store").write_bytes(b"x")
    (scene,) = scenes("llff", tmp_path)
    # Sorted as LLFF sorts: 10, 11, 12, 13, 8, 9.
    numbers = {frame.name: frame.number for frame in scene.frames}
    assert numbers == {f"images_4/{i}.png": (i - 10) % FRAMES for i in range(8, 14)}
    by_name = {frame.name: frame for frame in scene.frames}
    to_source = by_name["images_4/10.png"].camera_to_world[:3, 3] / scene.scale
    np.testing.assert_allclose(to_source, arc(FRAMES)[0][:3, 3], atol=1e-9)


def test_of_folders_of_llff_the_one_with_a_picture_a_camera_counts(tmp_path):
    """A photograph that no camera was found for lies in `images` only."""
    format_sources.write_llff(tmp_path, images="images_4", size=(WIDTH // 4, HEIGHT // 4))
    for i in range(FRAMES + 1):
        format_sources.save(tmp_path / "images", f"IMG_{i:04d}.png", Image.new("RGB", (WIDTH, HEIGHT)))
    (scene,) = scenes("llff", tmp_path)
    assert [frame.name for frame in scene.frames] == [f"images_4/IMG_{i:04d}.png" for i in range(FRAMES)]


def test_cameras_of_llff_that_are_not_one_a_picture_are_refused_with_all_frames(tmp_path, capsys):
    format_sources.write_llff(tmp_path / "source" / "whole")
    for name, damage in {
        "fewer": lambda folder: (folder / "images" / "IMG_0002.png").unlink(),
        "shape": lambda folder: np.save(folder / "poses_bounds.npy", np.zeros((FRAMES, 15))),
        "torn": lambda folder: (folder / "poses_bounds.npy").write_bytes(b"\x93NUMPY\1\0"),
    }.items():
        format_sources.write_llff(tmp_path / "source" / name)
        damage(tmp_path / "source" / name)
    summary, lines = convert(capsys, "llff", tmp_path / "source", tmp_path / "data")
    assert (summary["frames"], summary["quarantined_frames"]) == (FRAMES, 3 * FRAMES - 1)
    reasons = {line["scene"]: line["reason"] for line in lines}
    assert "6 cameras and the pictures of fewer are 5" in reasons["fewer"]
    assert "[6, 15], not [pictures, 17]" in reasons["shape"] and "cannot be read" in reasons["torn"]


@pytest.mark.parametrize(
    ("depths", "rule"),
    [
        ("2.0 0.01 256 4.55", "stated"),
        ("2.0 0.01 256", "stated"),
        ("2.0 4.55", "stated"),
        ("2.0 0.01", "focus"),
        ("", "focus"),
    ],
)
def test_depths_that_mvsnet_states_are_the_bounds(tmp_path, depths, rule):
    format_sources.write_mvsnet(tmp_path, depths=depths)
    (scene,) = scenes("mvsnet", tmp_path)
    assert scene.attributes["bounds"] == rule
    assert rule == "focus" or scene.near / scene.scale == pytest.approx(1.8)


def test_blended_mvs_and_views_of_mvsnet_that_are_damaged(tmp_path, capsys):
    format_sources.write_mvsnet(tmp_path / "source" / "a", arc(9), images="blended_images", cameras="cams_1")
    folder = tmp_path / "source" / "a"
    format_sources.save(folder / "blended_images", "00000000_masked.jpg", Image.new("RGB", (WIDTH, HEIGHT)))
    (folder / "cams_1" / "pair.txt").write_text("9\n")
    camera = folder / "cams_1" / "00000001_cam.txt"
    camera.write_text(camera.read_text().replace("intrinsic", "inside"))
    (folder / "cams_1" / "00000002_cam.txt").write_text("extrinsic 1 2")
    (folder / "cams_1" / "00000003_cam.txt").unlink()
    (folder / "blended_images" / "00000004.jpg").unlink()
    summary, lines = convert(capsys, "mvsnet", tmp_path / "source", tmp_path / "data")
    assert (summary["frames"], summary["quarantined_frames"]) == (5, 4)
    assert [line["frame"] for line in lines if line["frame"]] == [f"0000000{i}.jpg" for i in (1, 2, 3, 4)]


def test_scans_of_polycam_are_its_own_optimised_ones_where_there_are_any(tmp_path):
    format_sources.write_polycam(tmp_path / "scan", corrected=False)
    (scene,) = scenes("polycam", tmp_path)
    assert (scene.name, scene.attributes["cameras"], len(scene.frames)) == ("scan", "cameras", FRAMES)
    format_sources.write_polycam(tmp_path / "scan")
    (scene,) = scenes("polycam", tmp_path)
    assert (scene.attributes["cameras"], len(scene.frames)) == ("corrected_cameras", FRAMES)
    assert [frame.name for frame in scene.frames][:2] == ["90000.jpg", "107000.jpg"]
    assert len(scenes("polycam", tmp_path / "scan" / "keyframes")[0].frames) == FRAMES
    (tmp_path / "photos" / "keyframes" / "images").mkdir(parents=True)
    with pytest.raises(UserError, match="--format=photos"):
        scenes("polycam", tmp_path / "photos")


def test_keyframes_of_polycam_that_are_damaged_are_listed(tmp_path, capsys):
    format_sources.write_polycam(tmp_path / "source", arc(8))
    cameras = tmp_path / "source" / "keyframes" / "corrected_cameras"
    (cameras / "90000.json").write_text("{")
    change(cameras / "107000.json", lambda camera: camera.update(t_12="one"))
    change(cameras / "124000.json", lambda camera: camera.pop("fx"))
    change(cameras / "141000.json", lambda camera: camera.update(width=0))
    (cameras / "158000.json").unlink()
    summary, lines = convert(capsys, "polycam", tmp_path / "source", tmp_path / "data")
    assert (summary["frames"], summary["quarantined_frames"]) == (3, 5)
    reasons = [line["reason"] for line in lines if line["frame"]]
    for said, reason in zip(
        ("no JSON", "t_12 is no number", "fx is no number", "0x96", "missing"), reasons, strict=True
    ):
        assert said.replace("0x96", f"0x{HEIGHT}") in reason


def test_recordings_that_are_packed_are_to_be_unpacked(tmp_path):
    (tmp_path / "a.r3d").write_bytes(b"PK")
    for root in (tmp_path, tmp_path / "a.r3d"):
        with pytest.raises(UserError, match="unpack it"):
            scenes("record3d", root)


@pytest.mark.parametrize("options", [{"per_frame": True}, {"pictures": "rgb", "metadata": "metadata.json"}])
def test_recordings_of_record3d_in_their_kinds(tmp_path, options):
    format_sources.write_record3d(tmp_path, **options)
    (scene,) = scenes("record3d", tmp_path)
    assert [frame.number for frame in scene.frames] == list(range(12)) and scene.frames[10].name == "10.jpg"
    k = np.diag([1 / WIDTH, 1 / HEIGHT, 1]) @ format_sources.K
    for frame, camera_to_world in zip(scene.frames, arc(12), strict=True):
        np.testing.assert_allclose(frame.intrinsics, k)
        np.testing.assert_allclose(frame.camera_to_world[:3, 3], scene.scale * camera_to_world[:3, 3], atol=1e-9)


def test_pictures_and_poses_of_record3d_that_do_not_go_together(tmp_path, capsys):
    format_sources.write_record3d(tmp_path / "source")
    change(tmp_path / "source" / "metadata", lambda content: content["poses"].pop())
    change(tmp_path / "source" / "metadata", lambda content: content["poses"].__setitem__(3, [0] * 7))
    change(tmp_path / "source" / "metadata", lambda content: content["poses"].__setitem__(4, "pose"))
    (tmp_path / "source" / "rgbd" / "5.jpg").unlink()
    summary, lines = convert(capsys, "record3d", tmp_path / "source", tmp_path / "data")
    assert (summary["frames"], summary["quarantined_frames"]) == (8, 4)
    reasons = {line["frame"]: line["reason"] for line in lines}
    assert "no pose for it" in reasons["11.jpg"] and "not finite" in reasons["3.jpg"]
    assert "7 numbers" in reasons["4.jpg"] and "missing" in reasons["5.jpg"]
    (tmp_path / "source" / "metadata").write_text("[]")
    with pytest.raises(Rejected, match="no JSON object") as refused:
        scenes("record3d", tmp_path / "source")
    assert len(refused.value.frames) == 11


def test_points_of_opensfm_tell_the_bounds_and_the_largest_reconstruction_counts(tmp_path, capsys):
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (60, 3)).tolist()
    format_sources.write_opensfm(tmp_path / "source", arc(7), points)
    file = tmp_path / "source" / "reconstruction.json"

    def split(content):
        first = content[0]
        shots = {name: first["shots"].pop(name) for name in ("IMG_5.jpg", "IMG_6.jpg")}
        content.insert(0, {"cameras": first["cameras"], "shots": shots, "points": {}})

    change(file, split)
    format_sources.save(tmp_path / "source" / "images", "other.jpg", Image.new("RGB", (WIDTH, HEIGHT)))
    (scene,) = scenes("opensfm", tmp_path / "source")
    assert scene.attributes["bounds"] == "points" and len(scene.frames) == 5
    reasons = dict(scene.rejected)
    assert "another reconstruction" in reasons["IMG_5.jpg"] and "no shot" in reasons["other.jpg"]
    assert [number for number, _ in scene.listed] == list(range(7))
    summary, _ = convert(capsys, "opensfm", tmp_path / "source", tmp_path / "data")
    assert (summary["frames"], summary["quarantined_frames"]) == (5, 3)


def opensfm_projection(camera, x, y):
    """Shares of the longer side, from the middle, where a camera has the ray (x, y, 1): as OpenSfM documents it."""
    k1, k2, k3, k4, p1, p2 = (camera.get(name, 0) for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    r = np.hypot(x, y)
    if camera["projection_type"].startswith("fisheye"):
        theta = np.arctan(r)
        bent = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8) / r
        u, v = bent * x, bent * y
    else:
        radial = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6
        u = radial * x + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)
        v = radial * y + 2 * p2 * x * y + p1 * (r**2 + 2 * y**2)
    focal = (camera["focal"],) * 2 if "focal" in camera else (camera["focal_x"], camera["focal_y"])
    return np.array([focal[0] * u + camera.get("c_x", 0), focal[1] * v + camera.get("c_y", 0)])


LENSES = {
    "perspective": ("k1", "k2"),
    "simple_radial": ("k1",),
    "radial": ("k1", "k2"),
    "brown": ("k1", "k2", "k3", "p1", "p2"),
    "fisheye": ("k1", "k2"),
    "fisheye_opencv": ("k1", "k2", "k3", "k4"),
}


@pytest.mark.parametrize("kind", LENSES)
@pytest.mark.parametrize("size", [(96, 72), (72, 96)])
def test_lenses_of_opensfm_bend_as_it_says(kind, size):
    camera = {name: 0.01 * (i + 1) for i, name in enumerate(LENSES[kind])} | {"projection_type": kind}
    alone = kind in ("perspective", "fisheye")
    camera |= {"focal": 0.9} if alone else {"focal_x": 0.9, "focal_y": 0.8, "c_x": 0.02, "c_y": -0.01}
    lens = opensfm._lens(camera, size)
    for ray in (0.2, 0.1), (-0.3, 0.25), (0.0, -0.4):
        expected = 0.5 + opensfm_projection(camera, *ray) * max(size) / size
        np.testing.assert_allclose(undistort.distort(np.array(ray), lens) * lens.focal + lens.centre, expected)


def test_lenses_that_no_picture_can_be_made_of_are_named(tmp_path):
    format_sources.write_opensfm(tmp_path)
    camera = format_sources.opensfm_camera(projection_type="dual")
    change(tmp_path / "reconstruction.json", lambda content: content[0]["cameras"].update({"v2 phone": camera}))
    with pytest.raises(Rejected, match="dual is not supported"):
        scenes("opensfm", tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", '[{"shots": [], "cameras": {}}]', "[{}]"])
def test_what_is_no_reconstruction_is_refused_with_the_pictures(tmp_path, text):
    format_sources.write_opensfm(tmp_path)
    (tmp_path / "reconstruction.json").write_text(text)
    with pytest.raises(Rejected) as refused:
        scenes("opensfm", tmp_path)
    assert len(refused.value.frames) == FRAMES


def write_masks(folder, poses, size=(WIDTH, HEIGHT)):
    """White over the left half."""
    for i in range(len(poses)):
        mask = Image.new("L", size)
        mask.paste(255, (0, 0, size[0] // 2, size[1]))
        format_sources.save(folder, f"IMG_{i}.jpg.png", mask)


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (WIDTH // 2, HEIGHT // 2)])
def test_masks_of_opensfm_lay_the_background_or_are_left(tmp_path, size):
    format_sources.write_opensfm(tmp_path)
    write_masks(tmp_path / "masks", arc(FRAMES), size)
    (left,), (whole,) = scenes("opensfm", tmp_path), scenes("opensfm", tmp_path, masks="leave")
    (laid,) = scenes("opensfm", tmp_path, masks="lay", background="white")
    for as_is, same, frame in zip(left.frames, whole.frames, laid.frames, strict=True):
        np.testing.assert_array_equal(pixels(as_is), pixels(same))
        mask = np.asarray(same.load_mask())
        assert mask.shape == (HEIGHT, WIDTH) and (mask[:, : WIDTH // 2 - 1] == 255).all()
        assert (mask[:, WIDTH // 2 + 1 :] == 0).all() and as_is.load_mask() is None
        np.testing.assert_array_equal(pixels(frame)[:, : WIDTH // 2 - 1], pixels(as_is)[:, : WIDTH // 2 - 1])
        assert (pixels(frame)[:, WIDTH // 2 + 1 :] == 255).all()
    (tmp_path / "masks" / "IMG_1.jpg.png").unlink()
    Image.new("L", (30, 90)).save(tmp_path / "masks" / "IMG_2.jpg.png")
    (laid,) = scenes("opensfm", tmp_path, masks="lay")
    assert "mask: image is missing" in dict(laid.rejected)["IMG_1.jpg"]
    (whole,) = scenes("opensfm", tmp_path, masks="leave")
    assert len(whole.frames) == FRAMES and whole.frames[1].load_mask() is None
    with pytest.raises(Rejected, match="mask is 30x90"):
        laid.frames[1].load()
