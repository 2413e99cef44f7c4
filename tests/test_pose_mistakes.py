"""Mistakes in poses that the pictures show, and real captures that have none."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from dfm_jax.data.loading import dataset, transforms
from dfm_jax.data.preparing import epipolar, pose_conventions, scene_checks
from dfm_jax.data.preparing.geometry_checks import INVERSE, OPENGL
from dfm_jax.data.preparing.source import SourceFrame, SourceScene
from dfm_jax.errors import Rejected
from tests import textured_room
from tests.test_data_prepare import run
from tests.test_geometry_checks import AXES, SHARED, looking, mistake_in
from tests.tiny import random_rotations


def room_scene(poses, stored=None):
    """Arguments of `check_scene`: pictures of the room from poses, and the poses that a source states."""
    walls, frames, pictures = textured_room.textures(0), [], []
    whole = np.array([[textured_room.FOCAL / textured_room.WIDTH, 0, 0.5],
                      [0, textured_room.FOCAL / textured_room.HEIGHT, 0.5], [0, 0, 1]])  # fmt: skip
    for i, (true, told) in enumerate(zip(poses, poses if stored is None else stored, strict=True)):
        square, intrinsics = transforms.center_square(textured_room.picture(true, walls), whole)
        buffer = io.BytesIO()
        square.save(buffer, "PNG")
        pictures.append(buffer.getvalue())
        frames.append(SourceFrame(str(i), told, intrinsics, np.nan, buffer.getvalue, number=i))
    return SourceScene("room", frames), frames, pictures, [(textured_room.WIDTH, textured_room.HEIGHT)] * len(frames)


@pytest.fixture(scope="module")
def room():
    return room_scene(textured_room.cameras(8))


@pytest.fixture(scope="module")
def matches(room):
    _, _, pictures, _ = room

    def picture(frame):
        return np.asarray(Image.open(io.BytesIO(pictures[frame])))

    return epipolar.match_views(picture, textured_room.cameras(8), 4, 3)


def with_mistake(mistake, poses):
    if mistake.startswith(f"{INVERSE}, and "):
        return np.linalg.inv(pose_conventions.READINGS[mistake.removeprefix(f"{INVERSE}, and ")](poses))
    return pose_conventions.READINGS[mistake](poses)  # made twice, it is undone


@pytest.mark.parametrize("mistake", pose_conventions.READINGS)
def test_every_mistake_is_recognised_from_the_pictures(room, matches, mistake):
    true = textured_room.cameras(8)
    np.testing.assert_allclose(pose_conventions.READINGS[mistake](with_mistake(mistake, true)), true, atol=1e-9)
    intrinsics = np.stack([frame.intrinsics for frame in room[1]])
    assert pose_conventions.judge(matches, true, intrinsics).right is True
    verdict = pose_conventions.judge(matches, with_mistake(mistake, true), intrinsics)
    assert verdict.right is False and verdict.mistake == mistake


def test_a_few_matches_tell_nothing(room, matches):
    few = [dataclasses.replace(matches[0], a=matches[0].a[:20], b=matches[0].b[:20])]
    intrinsics = np.stack([frame.intrinsics for frame in room[1]])
    verdict = pose_conventions.judge(few, np.linalg.inv(textured_room.cameras(8)), intrinsics)
    assert verdict.right is None and np.isnan(verdict.error) and verdict.mistake == ""


def told(room, poses, **changes):
    """The same pictures with other poses."""
    scene, frames, pictures, sizes = room
    frames = [dataclasses.replace(frame, camera_to_world=p) for frame, p in zip(frames, poses, strict=True)]
    return dataclasses.replace(scene, frames=frames, **changes), frames, pictures, sizes


def test_scenes_are_rejected_with_the_mistake_that_was_made(room):
    true = textured_room.cameras(8)
    assert scene_checks.check_scene(*room) == []
    assert scene_checks.check_scene(*told(room, true, own_poses=True)) == []
    with pytest.raises(Rejected, match=r"look away .*OpenGL"):
        scene_checks.check_scene(*told(room, true @ AXES))
    with pytest.raises(Rejected, match="world-to-camera"):
        scene_checks.check_scene(*told(room, np.linalg.inv(true), own_poses=True))
    # Nothing about these poses is odd in itself.
    rolled = true @ np.diag([-1.0, -1, 1, 1])
    with pytest.raises(Rejected, match="PyTorch3D"):
        scene_checks.check_scene(*told(room, rolled, own_poses=True))


def test_inexact_poses_are_warned_of(room):
    true, rng = textured_room.cameras(8), np.random.default_rng(0)
    shaken = true.copy()
    shaken[:, :3, :3] = shaken[:, :3, :3] @ random_rotations(rng, (8,), 0.3)
    (warning,) = scene_checks.check_scene(*told(room, shaken, own_poses=True))
    assert "miss their epipolar lines" in warning


@pytest.mark.parametrize("factor", [0.4, 0.5])
def test_a_wrong_focal_length_is_named(room, matches, factor):
    true, intrinsics = textured_room.cameras(8), np.stack([frame.intrinsics for frame in room[1]])
    intrinsics[:, [0, 1], [0, 1]] *= factor
    verdict = pose_conventions.judge(matches, true, intrinsics)
    # Estimated from matches that are a pixel off.
    assert verdict.focal_factor == pytest.approx(1 / factor, rel=0.1) and "times as long" in verdict.evidence


def test_points_behind_the_cameras_are_the_evidence_where_lines_are_none(room):
    with pytest.raises(Rejected, match=r"wrong sign.*behind"):
        scene_checks.check_scene(
            *told(room, pose_conventions.READINGS[pose_conventions.NEGATED](textured_room.cameras(8)))
        )


def test_pictures_that_show_nothing_leave_a_warning(room):
    scene, frames, pictures, sizes = told(room, textured_room.cameras(8) @ AXES)
    buffer = io.BytesIO()
    Image.new("RGB", (90, 90), "grey").save(buffer, "PNG")
    (warning,) = scene_checks.check_scene(scene, frames, [buffer.getvalue()] * len(pictures), sizes)
    assert "look away" in warning and "OpenGL" in warning


def test_cameras_swung_at_arms_length_are_as_they_look():
    """Their axes meet behind them, as those of a misread orbit do; but the pictures agree."""
    angles = np.linspace(0.25, 1.32, 8)
    outward = -np.stack([np.cos(angles), np.sin(angles), 0.3 * np.ones(8)], axis=-1)
    base = looking(np.zeros((8, 3)), outward[:, [0, 2, 1]])[:, [0, 2, 1, 3]]  # up is z
    base[:, :3, 0] *= -1  # a swap of axes mirrors
    base[:, :3, 3] = [2.2, 2.2, 1.6] + 0.5 * base[:, :3, 2]
    assert mistake_in(base) == OPENGL
    assert scene_checks.check_scene(*room_scene(base)) == []


@pytest.mark.parametrize("size", [1e-300, 1e150, 1e300])
def test_absurd_positions_are_no_crash(room, size):
    poses = textured_room.cameras(8)
    poses[:, :3, 3] *= size
    scene_checks.check_scene(*told(room, poses, own_poses=True))


# --- real captures


def shared(folder):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"no real captures at ../shared/data/{folder}")
    return SHARED / folder


@pytest.mark.parametrize(
    ("source_format", "folder"),
    [("realestate10k", "realestate10k"), ("transforms", "fox"), ("colmap", "sceaux_colmap"),
     ("transforms", "nerf_synthetic_lego"), ("middlebury", "middlebury_templeSparseRing"),
     ("co3d", "co3d_apple_real_cameras")],
)  # fmt: skip
def test_real_captures_pass_without_warnings(tmp_path, capsys, source_format, folder):
    code, summary, _ = run(
        capsys, f"--format={source_format}", f"--source={shared(folder)}", f"--data_dir={tmp_path}", "--image_size=144"
    )
    assert code == 0 and summary["quarantined_scenes"] == 0 and summary["warned_scenes"] == 0


def test_a_misread_real_capture_is_refused(tmp_path, capsys):
    content = json.loads((shared("fox") / "transforms.json").read_text())
    for frame in content["frames"]:
        frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ AXES).tolist()
        frame["file_path"] = f"fox/{frame['file_path']}"
    (tmp_path / "fox").symlink_to(shared("fox"))
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    code, _, errors = run(
        capsys, "--format=transforms", f"--source={tmp_path / 'transforms.json'}", f"--data_dir={tmp_path / 'data'}"
    )
    assert code == 1 and "OpenGL" in errors and not dataset.exists(tmp_path / "data", "transforms")
