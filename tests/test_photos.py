"""Photographs and videos without cameras: what structure-from-motion finds, and what it says where it finds nothing."""

import json
import pathlib
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from dfm_jax.data import prepare
from dfm_jax.data.builders import colmap, photos
from dfm_jax.data.builders.photos import PhotosSource
from dfm_jax.data.loading import dataset
from dfm_jax.data.preparing import sfm
from dfm_jax.errors import Rejected, UserError
from tests import textured_room
from tests.realestate10k_source import picture

pytest.importorskip("pycolmap")

REAL = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "sceaux_colmap"
NUM_PHOTOS = 6
VIDEO_FPS = 10


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A folder of photographs, their names and cameras."""
    folder = tmp_path_factory.mktemp("room")
    return folder, *textured_room.write(folder, NUM_PHOTOS)


def source(root, workspace, video_frames=NUM_PHOTOS):
    return PhotosSource(root, workspace, background=(0, 0, 0), video_frames=video_frames)


def convert(capsys, root, data_dir, *options):
    code = prepare.main(["--format=photos", f"--source={root}", f"--data_dir={data_dir}", "--holdout=0", *options])
    captured = capsys.readouterr()
    listing = data_dir / "photos.quarantine.jsonl"
    quarantine = [json.loads(line) for line in listing.read_text().splitlines()] if listing.exists() else []
    return code, json.loads(captured.out.splitlines()[-1]) if captured.out else None, quarantine, captured.err


def left_over(data_dir):
    return [path.name for path in data_dir.iterdir() if "sfm" in path.name or "incomplete" in path.name]


def test_the_cameras_are_found(room, tmp_path, capsys):
    folder, names, poses = room
    code, summary, quarantine, _ = convert(capsys, folder, tmp_path)
    assert code == 0 and (summary["scenes"], summary["frames"]) == (1, NUM_PHOTOS) and quarantine == []
    scene = dataset.open_dataset(tmp_path, "photos", "train").scene(0)
    assert list(scene.frame_names) == names and scene.name == folder.name
    assert scene.attributes["model"] == "structure-from-motion"
    angle, distance = textured_room.misalignment(scene.camera_to_world, poses)
    assert angle < 1 and distance < 0.02
    focal = textured_room.FOCAL / textured_room.HEIGHT  # the stored pictures are square
    # Found by structure from motion, from pictures.
    np.testing.assert_allclose(scene.intrinsics[:, 0, 0], focal, rtol=0.02)
    assert left_over(tmp_path) == []


def test_the_same_pictures_give_the_same_model(room, tmp_path):
    folder, names, _ = room
    contents = []
    for workspace in (tmp_path / "a", tmp_path / "b"):
        workspace.mkdir()
        model = sfm.reconstruct(folder, names, workspace).model
        contents.append({path.name: path.read_bytes() for path in sorted(model.iterdir())})
        assert {"cameras.bin", "images.bin", "points3D.bin"} <= contents[-1].keys()
    assert contents[0] == contents[1]


def test_pictures_that_do_not_belong_are_quarantined(room, tmp_path, capsys):
    """The others are a scene all the same; one of another size gets a lens of its own."""
    folder, names, poses = room
    for name in names:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    picture(3, (160, 120)).save(tmp_path / "stranger.jpg")
    (tmp_path / "torn.jpg").write_bytes((folder / names[0]).read_bytes()[:-3000])
    Image.open(folder / names[2]).resize((200, 150)).save(tmp_path / names[2], quality=95)
    code, _, quarantine, _ = convert(capsys, tmp_path, tmp_path / "data")
    assert code == 0
    reasons = {entry["frame"]: entry["reason"] for entry in quarantine}
    assert "not registered by structure-from-motion" in reasons["stranger.jpg"]
    assert "does not decode" in reasons["torn.jpg"]
    scene = dataset.open_dataset(tmp_path / "data", "photos", "train").scene(0)
    angle, distance = textured_room.misalignment(scene.camera_to_world, poses)
    assert list(scene.frame_names) == names and len(reasons) == 2 and angle < 3 and distance < 0.05


def test_too_few_registered_pictures_are_an_error_that_says_why(room, tmp_path, capsys):
    folder, names, _ = room
    (tmp_path / names[0]).write_bytes((folder / names[0]).read_bytes())
    for i in range(1, 6):  # pictures of something else each
        noise = np.random.default_rng(i).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.jpg")
    code, summary, quarantine, errors = convert(capsys, tmp_path, tmp_path / "data")
    assert code == 1 and summary is None
    assert "registered 0 of 6 pictures, at least 3 are needed: 6 match no other" in errors
    assert len(quarantine) == 7 and left_over(tmp_path / "data") == []  # the scene, and each of its pictures


def test_pictures_without_detail_are_an_error_that_says_so(tmp_path, capsys):
    for i in range(4):
        Image.new("RGB", (160, 120), (30 * i, 90, 120)).save(tmp_path / f"{i}.png")
    _, _, _, errors = convert(capsys, tmp_path, tmp_path / "data")
    assert "registered 0 of 4" in errors and "too little detail (0 features" in errors


def test_unreadable_pictures_are_an_error_that_says_so(tmp_path, capsys):
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(np.random.default_rng(i).bytes(3000))
    _, _, _, errors = convert(capsys, tmp_path, tmp_path / "data")
    assert "needs at least 3 pictures, and 0 of 4 can be read (mostly: image does not decode" in errors


def test_of_a_folder_only_the_capture_s_own_pictures_are_used(room, tmp_path):
    """Not those of folders in it; and not damaged ones, some of which would end the process."""
    folder, names, _ = room
    pictures, workspace = tmp_path / "pictures", tmp_path / "workspace"
    (pictures / "another").mkdir(parents=True)
    workspace.mkdir()
    for name in names[:4]:
        (pictures / name).write_bytes((folder / name).read_bytes())
    (pictures / "another" / names[4]).write_bytes((folder / names[4]).read_bytes())
    (pictures / "torn.jpg").write_bytes((folder / names[5]).read_bytes()[:-3000])
    found = sfm.reconstruct(pictures, [*names[:4], "torn.jpg"], workspace)
    assert found.registered == tuple(names[:4]) and list(found.rejected) == ["torn.jpg"]


def test_too_few_pictures_are_no_question_of_matching(room, tmp_path):
    folder, names, _ = room
    with pytest.raises(Rejected, match="needs at least 3 pictures, and 2 of 2 can be read"):
        sfm.reconstruct(folder, names[:2], tmp_path)


def write_video(path, frames):
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{frames.shape[2]}x{frames.shape[1]}"]
    coding = ["-r", str(VIDEO_FPS), "-i", "-", "-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p", str(path)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *source, *coding]
    subprocess.run(command, input=frames.tobytes(), check=True)


def test_a_video_becomes_a_scene_of_frames_spread_over_it(room, tmp_path):
    folder, names, poses = room
    pictures = np.stack([np.asarray(Image.open(folder / name)) for name in names])
    write_video(tmp_path / "walk.mp4", np.repeat(pictures, 3, axis=0))  # each is held for three frames
    found = source(tmp_path / "walk.mp4", tmp_path / "work")
    assert found.splits() == {"train": ["walk"]}
    scene = found.read("train", "walk")
    taken = [round(frame.timestamp * VIDEO_FPS) for frame in scene.frames]
    assert taken == [0, 3, 7, 10, 14, 17]  # of 0 to 17
    angle, distance = textured_room.misalignment(np.stack([frame.camera_to_world for frame in scene.frames]), poses)
    assert angle < 2 and distance < 0.03
    assert scene.frames[0].load() and (tmp_path / "work" / "walk").is_dir()
    del scene
    assert not (tmp_path / "work").exists()  # what was needed for it


def test_a_broken_video_is_rejected(tmp_path):
    (tmp_path / "walk.mp4").write_bytes(b"no video")
    with pytest.raises(Rejected, match=r"walk\.mp4 cannot be read"):
        source(tmp_path, tmp_path / "work").read("train", f"{tmp_path.name}-walk")
    assert not (tmp_path / "work").exists()


def test_captures_are_folders_of_photographs_and_videos(tmp_path):
    for place in ("a", "b/images", "b/masks", "b/images_2", "c/input", "c/d/deep", "e/f"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "1.jpg").write_bytes(b"")
    (tmp_path / "e" / "walk.MOV").write_bytes(b"")
    (tmp_path / "e" / "notes.txt").write_bytes(b"")
    assert source(tmp_path, tmp_path / "work").splits() == {"train": ["a", "b", "c", "e-walk", "e-f"]}
    assert source(tmp_path / "b", tmp_path / "work").splits() == {"train": ["b"]}
    (tmp_path / "b" / "texts").mkdir()
    with pytest.raises(UserError, match="no photographs"):
        source(tmp_path / "b" / "texts", tmp_path / "work").splits()


def test_without_pycolmap_there_is_one_error(room, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sfm.importlib.util, "find_spec", lambda name: None)
    code, _, _, errors = convert(capsys, room[0], tmp_path)
    assert code == 1 and errors.strip().endswith("pip install 'dfm_jax[sfm]'")


def test_real_photographs_give_the_cameras_that_were_found_at_higher_resolution(tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"no real photographs at {REAL}")
    known = colmap.ColmapSource(REAL, (0, 0, 0))
    (name,) = known.splits()[colmap.SPLIT]
    truth = {frame.name: frame.camera_to_world for frame in known.read(colmap.SPLIT, name).frames}
    scene = source(REAL, tmp_path / "work").read(photos.SPLIT, REAL.name)
    assert [frame.name for frame in scene.frames] == list(truth)
    poses = np.stack([frame.camera_to_world for frame in scene.frames])
    angle, distance = textured_room.misalignment(poses, np.stack(list(truth.values())))
    assert angle < 1.5 and distance < 0.04  # of pictures 256 pixels wide; 0.7 degrees and 0.017 when this was written
