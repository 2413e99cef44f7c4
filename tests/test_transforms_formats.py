"""Formats that build on `transforms.json`, DL3DV and ScanNet++; masks beside pictures, and a matrix K a frame."""

import json

import numpy as np
import pytest
from PIL import Image

from dfm_jax.data.loading import source_frames
from dfm_jax.errors import Rejected, UserError
from tests import captures_source, co3d_source, format_sources
from tests.captures_source import arc, write_transforms
from tests.format_sources import FRAMES, HEIGHT, WIDTH, K
from tests.test_capture_formats import change
from tests.test_formats import convert, pixels, scenes, source


def test_scenes_of_dl3dv_are_called_by_their_hashes(tmp_path):
    format_sources.write_dl3dv(tmp_path / "1K" / "aa11")
    format_sources.write_dl3dv(tmp_path / "2K" / "bb22")
    format_sources.write_dl3dv(tmp_path / "DL3DV-Benchmark" / "cc33", inner="nerfstudio")
    format_sources.save(
        tmp_path / "DL3DV-Benchmark" / "cc33" / "gaussian_splat" / "images_4", "a.png", Image.new("L", (8, 8))
    )
    assert source("dl3dv", tmp_path).splits() == {"train": ["aa11", "bb22"], "test": ["cc33"]}
    for scene in scenes("dl3dv", tmp_path):
        assert len(scene.frames) == FRAMES and scene.frames[0].intrinsics[0, 0] == pytest.approx(90 / WIDTH)
    scene = source("dl3dv", tmp_path / "DL3DV-Benchmark" / "cc33" / "nerfstudio")
    assert scene.splits() == {"train": ["cc33"]}
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "dd44.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="unpack them first"):
        source("dl3dv", tmp_path / "packed").splits()


def test_the_world_of_dl3dv_is_its_files(tmp_path):
    format_sources.write_dl3dv(tmp_path)
    (scene,) = scenes("dl3dv", tmp_path)
    content = json.loads((tmp_path / "transforms.json").read_text())
    to_source = source_frames.to_source(scene.scale, scene.attributes)
    for frame, listed in zip(scene.frames, content["frames"], strict=True):
        place = to_source @ [*frame.camera_to_world[:3, 3], 1]
        np.testing.assert_allclose(place, np.array(listed["transform_matrix"])[:, 3], atol=1e-9)


def test_scenes_of_scannetpp_their_splits_and_held_out_frames(tmp_path):
    for name in ("0a", "1b", "2c"):
        format_sources.write_scannetpp(tmp_path / "data" / name)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "nvs_sem_train.txt").write_text("0a\n")
    (tmp_path / "splits" / "nvs_sem_val.txt").write_text("1b\r\n\n")
    (tmp_path / "splits" / "nvs_test.txt").write_text("2c")
    expected = {"train": ["0a"], "validation": ["1b"], "test": ["2c"]}
    assert source("scannetpp", tmp_path).splits() == source("scannetpp", tmp_path / "data").splits() == expected
    assert source("scannetpp", tmp_path / "data" / "0a").splits() == {"train": ["0a"]}
    scene = source("scannetpp", tmp_path).read("train", "0a")
    assert [frame.held_out for frame in scene.frames] == [False] * 4 + [True] * 2
    assert [frame.number for frame in scene.frames] == list(range(FRAMES))


@pytest.mark.parametrize("kind", ["original", "undistorted", "iphone", "fisheye"])
def test_pictures_of_scannetpp_of_every_kind(tmp_path, kind):
    options = {
        "original": {"pictures": "dslr/original_images"},
        "undistorted": {
            "file": "dslr/nerfstudio/transforms_undistorted.json",
            "pictures": "dslr/resized_undistorted_images",
        },
        "iphone": {"file": "iphone/nerfstudio/transforms.json", "pictures": "iphone/rgb"},
        "fisheye": {"k1": 0.05, "k2": 0.01},
    }
    format_sources.write_scannetpp(tmp_path / "0a", **options[kind])
    if kind == "undistorted":  # the cameras of pictures that are not there do not count
        format_sources.write_json(tmp_path / "0a" / "dslr" / "nerfstudio" / "transforms.json", {"frames": []})
    if kind == "fisheye":
        change(
            tmp_path / "0a/dslr/nerfstudio/transforms.json",
            lambda content: content.update(camera_model="OPENCV_FISHEYE"),
        )
    (scene,) = scenes("scannetpp", tmp_path)
    assert len(scene.frames) == FRAMES and pixels(scene.frames[0]).shape == (HEIGHT, WIDTH, 3)


def test_frames_of_scannetpp_that_cannot_be_used(tmp_path, capsys):
    format_sources.write_scannetpp(tmp_path / "source" / "0a", arc(9))
    file = tmp_path / "source" / "0a" / "dslr" / "nerfstudio" / "transforms.json"

    def damage(content):
        frames = content["frames"]
        frames[1]["is_bad"] = True
        frames[2]["file_path"] = 7
        frames[3]["transform_matrix"] = None
        frames[5]["file_path"] = frames[4]["file_path"]

    change(file, damage)
    (tmp_path / "source/0a/dslr/resized_images/DSC00006.JPG").unlink()
    summary, lines = convert(capsys, "scannetpp", tmp_path / "source", tmp_path / "data")
    assert (summary["frames"], summary["quarantined_frames"]) == (4, 5)
    reasons = {line["frame"]: line["reason"] for line in lines}
    assert "blurred" in reasons["DSC00001.JPG"] and "no file_path" in reasons["frames 2"]
    assert "transform_matrix" in reasons["DSC00003.JPG"] and "twice" in reasons["DSC00004.JPG (frames 5)"]
    assert "missing" in reasons["DSC00006.JPG"]
    for text in ("[]", '{"frames": 3}', "{"):
        file.write_text(text)
        with pytest.raises(Rejected) as refused:
            scenes("scannetpp", tmp_path / "source")
        assert len(refused.value.frames) == 8


def half_masks(folder, names, size=(WIDTH, HEIGHT)):
    """White over the left half."""
    for name in names:
        mask = Image.new("L", size)
        mask.paste(255, (0, 0, size[0] // 2, size[1]))
        format_sources.save(folder, name, mask)


def right_half_is(frame, colour):
    half = frame.shape[1] // 2
    return (np.abs(frame[:, half + 1 :] - colour) <= 1).all()


def test_masks_of_scannetpp(tmp_path):
    format_sources.write_scannetpp(tmp_path / "0a")
    half_masks(tmp_path / "0a" / "dslr" / "resized_anon_masks", [f"DSC{i:05d}.png" for i in range(FRAMES)])
    (laid,), (left,) = scenes("scannetpp", tmp_path, masks="lay", background="#0000ff"), scenes("scannetpp", tmp_path)
    assert laid.attributes["masks"] == "laid" and "masks" not in left.attributes
    for frame, whole in zip(laid.frames, left.frames, strict=True):
        assert right_half_is(pixels(frame), [0, 0, 255]) and not right_half_is(pixels(whole), [0, 0, 255])


def test_masks_of_transforms_with_a_lens_that_bends_and_a_frame_without(tmp_path):
    path = write_transforms(tmp_path, k1=-0.05)
    half_masks(tmp_path / "masks", [f"{i}.png" for i in range(6)], (captures_source.WIDTH, captures_source.HEIGHT))
    for i in range(1, 6):
        captures_source.change_frame(path, i, mask_path=f"masks/{i}.png")
    (left,), (laid,) = scenes("transforms", tmp_path), scenes("transforms", tmp_path, masks="lay", background="white")
    assert len(left.frames) == 6 and dict(laid.rejected) == {
        "images/0.png": "frame has no mask_path, where others have one"
    }
    assert all(right_half_is(pixels(frame)[:, :-1], 255) for frame in laid.frames)
    path = write_transforms(tmp_path)  # no frame has one
    (laid,) = scenes("transforms", tmp_path, masks="lay")
    assert len(laid.frames) == 6 and "masks" not in laid.attributes
    with pytest.raises(UserError, match="no masks of colmap are read"):
        scenes("colmap", tmp_path, masks="lay")


def test_transparency_is_laid_on_the_background_or_left(tmp_path):
    write_transforms(tmp_path)
    for path in (tmp_path / "images").iterdir():
        image = Image.open(path).convert("RGBA")
        image.putalpha(Image.new("L", image.size))
        image.save(path)
    (laid,), (left,) = scenes("transforms", tmp_path), scenes("transforms", tmp_path, masks="leave")
    assert not pixels(laid.frames[0]).any() and pixels(left.frames[0])[0, 0, 0] == 128


def test_masks_of_co3d_lay_the_background(tmp_path):
    co3d_source.write_category(tmp_path, "apple", "a", depth=True)
    (left,), (laid,) = scenes("co3d", tmp_path), scenes("co3d", tmp_path, masks="lay", background="white")
    assert laid.attributes["masks"] == "laid"
    annotated = sorted((tmp_path / "apple" / "a" / "masks").iterdir())
    for mask, frame, whole in zip(annotated, laid.frames, left.frames, strict=True):
        opacity = np.asarray(Image.open(mask), np.float64)[..., None] / 255  # CO3D's masks are probabilities
        # One and a half of 255 steps: two roundings to 8 bits.
        np.testing.assert_allclose(pixels(frame), opacity * pixels(whole) + (1 - opacity) * 255, atol=1.5)
    with pytest.raises(UserError, match="needs --masks=lay"):
        source("co3d", tmp_path, background="white")
    annotated[1].unlink()
    (laid,) = scenes("co3d", tmp_path, masks="lay")
    with pytest.raises(Rejected, match="mask"):
        laid.frames[1].load()


def matrix(scale=1.0, skew=0.0):
    k = K.copy()
    k[0] *= scale
    k[0, 1] = skew
    return k.tolist()


def test_a_matrix_k_of_each_frame_is_its_camera(tmp_path):
    path = write_transforms(tmp_path, fl_x=None, fl_y=None, cx=None, cy=None, K=matrix())
    captures_source.change_frame(path, 2, K=matrix(0.9, 1.5))
    captures_source.change_frame(path, 3, fl_x=70.0)
    (scene,) = scenes("transforms", tmp_path)
    shares = np.diag([1 / captures_source.WIDTH, 1 / captures_source.HEIGHT, 1])
    np.testing.assert_allclose(scene.frames[0].intrinsics, shares @ K)
    np.testing.assert_allclose(scene.frames[2].intrinsics, shares @ matrix(0.9, 1.5))
    assert scene.frames[3].intrinsics[0, 0] == pytest.approx(70 / captures_source.WIDTH)


@pytest.mark.parametrize(
    ("k", "reason"),
    [
        ([90, 0, 47, 0, 90, 37, 0, 0, 1], "no 3x3"),
        ([[90, 0], [0, 90]], "no 3x3"),
        ([[90, 0, "x"], [0, 90, 37], [0, 0, 1]], "K is no number"),
        ([[90, 0, 0], [0, 90, 0], [47, 37, 1]], "upper triangular"),
        ((np.diag([1 / 64, 1 / 48, 1]) @ K).tolist(), "wrong unit"),
    ],
)
def test_a_matrix_k_that_is_no_cameras_is_a_reason(tmp_path, k, reason):
    path = write_transforms(tmp_path)
    captures_source.change_frame(path, 1, K=k)
    (scene,) = scenes("transforms", tmp_path)
    assert len(scene.frames) == 5 and reason in scene.rejected[0][1]


def test_a_matrix_k_that_contradicts_what_its_frame_says_is_a_reason(tmp_path):
    path = write_transforms(tmp_path)
    captures_source.change_frame(path, 1, K=matrix(), fl_x=60.0)
    captures_source.change_frame(path, 2, K=matrix(), fl_x=90.0, cx=47.0)
    (scene,) = scenes("transforms", tmp_path)
    assert dict(scene.rejected) == {"images/1.png": "K and fl_x beside it do not agree"}
