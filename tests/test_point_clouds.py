"""Sparse points that no camera is said to have seen give the bounds that seen points do, wherever they are stored."""

import numpy as np
import plyfile
import pytest

from dfm_jax.data.builders import point_clouds
from dfm_jax.data.builders.colmap import ColmapSource
from dfm_jax.data.builders.transforms_json import TransformsSource
from tests.captures_source import FOCAL, HEIGHT, POINTS, WIDTH, arc, write_colmap, write_transforms

BLACK = (0, 0, 0)
INTRINSICS = np.array([[FOCAL / WIDTH, 0, 0.5], [0, FOCAL / HEIGHT, 0.5], [0, 0, 1]])


def write_ply(path, points, **options):
    vertices = np.array([tuple(point) for point in points], [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1")][:3])
    plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")], **options).write(str(path))
    return path


def read(source):
    ((split, (name,)),) = source.splits().items()
    return source.read(split, name)


def limits(scene):
    assert scene.attributes["bounds"] == "points"
    return scene.near, scene.far, scene.scale


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    root = tmp_path_factory.mktemp("seen")
    write_colmap(root)
    return limits(read(ColmapSource(root, BLACK)))


def without_observations(folder):
    _change_observations(folder, lambda columns: [])


def with_other_ids(folder):
    _change_observations(
        folder, lambda columns: [c if i % 3 < 2 else str(int(c) + 10**7) for i, c in enumerate(columns)]
    )


def in_a_file_beside(folder):
    (folder / "points3D.txt").unlink()
    write_ply(folder / "points3D.ply", POINTS, text=True)


def in_an_empty_model(folder):
    (folder / "points3D.txt").write_text("# none\n")
    write_ply(folder / "points.ply", [*POINTS, [np.nan, 0, 0]])


def _change_observations(folder, change):
    comment, *lines = (folder / "images.txt").read_text().splitlines()
    for i in range(1, len(lines), 2):
        lines[i] = " ".join(change(lines[i].split()))
    (folder / "images.txt").write_text("\n".join([comment, *lines]) + "\n")


@pytest.mark.parametrize("how", [without_observations, with_other_ids, in_a_file_beside, in_an_empty_model])
def test_points_of_a_model_count_without_observations(tmp_path, expected, how):
    how(write_colmap(tmp_path, text=True))
    # Without observations, each camera counts what lies in its picture: a few points more than it had observed.
    assert limits(read(ColmapSource(tmp_path, BLACK))) == pytest.approx(expected, rel=0.03)


def test_observations_of_points_that_a_camera_cannot_see_do_not_count(tmp_path, expected):
    """Numbers that mean other points: here, those of a world that is much larger."""
    folder = write_colmap(tmp_path, text=True)
    lines = (folder / "points3D.txt").read_text().splitlines()
    wrong = [f"{i + 1} {50.0 + i} 60.0 -70.0 0 0 0 0.5 1 0" for i in range(len(lines))]
    moved = [" ".join([str(i + 1001), *line.split()[1:]]) for i, line in enumerate(lines)]
    (folder / "points3D.txt").write_text("\n".join(wrong + moved) + "\n")
    # Without observations, each camera counts what lies in its picture: a few points more than it had observed.
    assert limits(read(ColmapSource(tmp_path, BLACK))) == pytest.approx(expected, rel=0.03)


APPLIED = [[0.0, 0, 1, 0.5], [1, 0, 0, -2], [0, 1, 0, 3]]


@pytest.mark.parametrize("place", ["sparse_pc.ply", "points3D.ply", "clouds/any.ply"])
@pytest.mark.parametrize(
    "applied", [{}, {"applied_transform": APPLIED, "applied_scale": 0.25}], ids=["as is", "applied"]
)
def test_points_beside_a_transforms_json_are_in_its_world(tmp_path, expected, place, applied):
    poses, points = arc(), POINTS
    if applied:
        transform = np.array([*APPLIED, [0, 0, 0, 1]])
        poses, points = transform @ poses, POINTS @ transform[:3, :3].T + transform[:3, 3]
        poses[:, :3, 3] *= 0.25
        points = 0.25 * points
    named = {"ply_file_path": place} if "/" in place else {}
    write_transforms(tmp_path, poses, **applied, **named)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    write_ply(tmp_path / place, points)
    near, far, scale = limits(read(TransformsSource(tmp_path, BLACK)))
    # As above: each camera counts what lies in its picture.
    assert (near, far, scale * applied.get("applied_scale", 1)) == pytest.approx(expected, rel=0.03)


def missing(path):
    return "is missing"


def truncated(path):
    path.write_bytes(write_ply(path, POINTS).read_bytes()[:-20])
    return "cannot be read"


def no_ply(path):
    path.write_bytes(b"ply\nformat nothing 1.0\n")
    return "cannot be read"


def without_y(path):
    vertices = np.zeros(30, [("x", "f4"), ("z", "f4")])
    plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")]).write(str(path))
    return "cannot be read"


def elsewhere(path):
    write_ply(path, POINTS + np.array([0, 100, 0]))
    return "too few of its 30 sparse points are in view"


@pytest.mark.parametrize("damage", [missing, truncated, no_ply, without_y, elsewhere])
def test_points_of_no_use_leave_the_bounds_to_the_cameras_and_a_warning(tmp_path, damage):
    write_transforms(tmp_path, ply_file_path="./sparse_pc.ply")
    reason = damage(tmp_path / "sparse_pc.ply")
    scene = read(TransformsSource(tmp_path, BLACK))
    (warning,) = scene.warnings
    assert scene.attributes["bounds"] == "focus" and reason in warning


def test_a_file_of_points_cannot_lie_outside_of_the_source(tmp_path):
    write_ply(tmp_path / "secret.ply", POINTS)
    write_transforms(tmp_path / "source", ply_file_path="../secret.ply")
    (warning,) = read(TransformsSource(tmp_path / "source", BLACK)).warnings
    assert "leads out of the source" in warning


def test_near_points_hide_far_ones():
    camera = arc(1)[0]
    rng = np.random.default_rng(0)
    wall = np.c_[rng.uniform(-0.4, 0.4, (20_000, 2)), np.full(20_000, 2.0)]
    wall[:, :2] *= 2
    for distance, hidden in ((2.1, False), (4.0, True)):
        points = np.concatenate([wall, wall * distance / 2, -wall, [[np.nan, 0, 0]]])
        in_world = points @ camera[:3, :3].T + camera[:3, 3]
        seen = (point_clouds.in_view(in_world, camera, INTRINSICS) - camera[:3, 3]) @ camera[:3, :3]
        assert seen[:, 2].min() == pytest.approx(2) and (seen[:, 2].max() < 2.05) == hidden


def test_very_many_points_are_thinned_out():
    points = np.random.default_rng(0).normal(size=(2 * point_clouds.MOST + 1, 3))
    points[::3] = np.nan
    thinned = point_clouds.thinned(points)
    assert 0.5 * point_clouds.MOST <= len(thinned) <= point_clouds.MOST and np.isfinite(thinned).all()
