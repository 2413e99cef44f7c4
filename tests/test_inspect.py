"""The page about a prepared data set, and the epipolar geometry that it shows."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from dfm_jax.data import inspect, prepare
from dfm_jax.data.preparing import epipolar
from dfm_jax.data.preparing.epipolar import Pair
from tests import textured_room
from tests.captures_source import OPENGL_FROM_OPENCV
from tests.test_data_prepare import run
from tests.tiny import random_rotations

COUNT = 5


# --- points and lines


def exact_pair(seed=0):
    """Poses and intrinsics of two cameras, points in space in front of both, and where they are seen."""
    rng = np.random.default_rng(seed)
    poses = np.stack([np.eye(4)] * 2)
    poses[:, :3, :3] = random_rotations(rng, (2,), 0.4)
    poses[:, :3, 3] = rng.uniform(-1, 1, (2, 3))
    intrinsics = np.array([[[1.2, 0.01, 0.52], [0, 1.3, 0.47], [0, 0, 1]], [[0.9, 0, 0.5], [0, 0.8, 0.4], [0, 0, 1]]])
    points = rng.uniform([-1, -1, 4], [1, 1, 6], (20, 3))
    seen = []
    for pose, k in zip(poses, intrinsics, strict=True):
        image = (points - pose[:3, 3]) @ pose[:3, :3] @ k.T
        seen.append(image[:, :2] / image[:, 2:])
    return poses, intrinsics, points, Pair(0, 1, *seen)


def test_exact_points_lie_on_their_lines_and_are_found_in_space():
    poses, intrinsics, points, pair = exact_pair()
    assert epipolar.errors(pair, poses, intrinsics).max() < 1e-9
    found, ahead = epipolar.triangulate(pair, poses, intrinsics)
    np.testing.assert_allclose(found, points, atol=1e-6)
    assert ahead.all()


def test_errors_are_distances_and_points_behind_are_told():
    poses, intrinsics, _, pair = exact_pair()
    lines = epipolar.lines(poses[0], intrinsics[0], poses[1], intrinsics[1], pair.a)
    moved = Pair(0, 1, pair.a, pair.b + 0.01 * lines[:, :2])  # at a right angle to the lines
    one_side = np.abs((moved.b * lines[:, :2]).sum(-1) + lines[:, 2])
    np.testing.assert_allclose(one_side, 0.01, atol=1e-9)
    other = epipolar.lines(poses[1], intrinsics[1], poses[0], intrinsics[0], moved.b)
    other_side = np.abs((moved.a * other[:, :2]).sum(-1) + other[:, 2])
    np.testing.assert_allclose(epipolar.errors(moved, poses, intrinsics), (one_side + other_side) / 2)
    backwards = poses.copy()
    backwards[:, :3, 3] *= -1  # lines stay where they are
    assert epipolar.errors(pair, backwards, intrinsics).max() < 1e-9
    assert not epipolar.triangulate(pair, backwards, intrinsics)[1].any()


def test_points_are_matched_where_they_are():
    """Between views of the room, whose points are known by casting rays at its walls."""
    walls, poses = textured_room.textures(0), textured_room.cameras(8)[:2]
    side = textured_room.HEIGHT
    left = (textured_room.WIDTH - side) // 2
    pictures = [np.asarray(textured_room.picture(pose, walls))[:, left : left + side] for pose in poses]
    a, b = epipolar.match(*map(epipolar.find_features, pictures))
    k = np.array([[textured_room.FOCAL / side, 0, 0.5], [0, textured_room.FOCAL / side, 0.5], [0, 0, 1]])
    rays = np.c_[a, np.ones(len(a))] @ np.linalg.inv(k).T @ poses[0, :3, :3].T
    with np.errstate(divide="ignore"):
        distances = -poses[0, :3, 3] / rays
    distances[distances <= 0] = np.inf
    points = poses[0, :3, 3] + rays * distances.min(-1, keepdims=True)
    expected = (points - poses[1, :3, 3]) @ poses[1, :3, :3] @ k.T
    miss = side * np.linalg.norm(expected[:, :2] / expected[:, 2:] - b, axis=-1)
    assert len(a) > 30 and np.median(miss) < 0.3  # half a pixel would be another grid


# --- the page


def write_room(folder, told=None, scene="room <1>"):
    """A capture of the room with poses as `told`; returns what prepares it."""
    names, poses = textured_room.write(folder / scene, COUNT)
    told = poses if told is None else told
    frames = [
        {"file_path": name, "transform_matrix": (pose @ OPENGL_FROM_OPENCV).tolist()}
        for name, pose in zip(names, told, strict=True)
    ]
    content = {"fl_x": textured_room.FOCAL, "w": textured_room.WIDTH, "h": textured_room.HEIGHT, "frames": frames}
    (folder / scene / "transforms.json").write_text(json.dumps(content))
    return ["--format=transforms", f"--source={folder / scene}", f"--data_dir={folder / 'data'}", "--name=room"]


def look(capsys, *options):
    code = inspect.main([str(option) for option in options])
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    return code, json.loads(lines[-1]) if lines else None, captured.err


class Page(HTMLParser):
    """Addresses, identifiers and the text of the element that holds the data."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.ids, self.data, self._in_data = [], set(), "", False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.addresses += [attributes[key] for key in ("src", "href") if key in attributes]
        self.ids.add(attributes.get("id"))
        self._in_data = attributes.get("id") == "scenes"

    def handle_data(self, data):
        if self._in_data:
            self.data += data

    def handle_endtag(self, tag):
        self._in_data = False


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("room")
    assert prepare.main(write_room(folder)) == 0
    return folder / "data"


def test_the_page_is_whole_and_needs_nothing_else(prepared, capsys):
    code, result, _ = look(capsys, f"--data_dir={prepared}")
    path = prepared / "room.inspect" / "index.html"
    assert code == 0 and result["pages"] == {"room": str(path)} and list(path.parent.iterdir()) == [path]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not re.findall(r"https?:|@import|url\(|fetch\(", text)
    inside = [address for address in page.addresses if not address.startswith("data:image/jpeg;base64,")]
    assert len(page.addresses) > len(inside) > 0 and {address.lstrip("#") for address in inside} <= page.ids
    assert "room <1>" not in text and "room &lt;1&gt;" in text
    (scene,) = json.loads(page.data)
    assert [frame["name"] for frame in scene["frames"]] == [f"photo{i}.jpg" for i in range(COUNT)]
    assert len(scene["points"]) > 30 and np.isfinite([point[:3] for point in scene["points"]]).all()
    near, far = scene["bounds"]
    assert 0 < near < far and "are shown" not in text  # all are


def test_exact_cameras_agree_and_others_do_not(prepared, tmp_path, capsys):
    _, result, _ = look(capsys, f"--data_dir={prepared}", "--name=room", f"--out={tmp_path / 'pages'}")
    (exact,) = result["scenes"]
    assert (tmp_path / "pages" / "room" / "index.html").is_file()
    assert exact["frames"] == COUNT and exact["warnings"] == [] and exact["matches"] > 100
    assert exact["median_epipolar_error_px"] < 0.2

    poses = textured_room.cameras(COUNT)
    poses[:, :3, :3] = poses[:, :3, :3] @ random_rotations(np.random.default_rng(0), (COUNT,), 0.2)
    code, summary, errors = run(capsys, *write_room(tmp_path, poses))
    assert code == 0 and summary["warned_scenes"] == 1 and "dfm_jax.data.inspect" in errors
    _, result, _ = look(capsys, f"--data_dir={tmp_path / 'data'}", "--scene", "room <1>")
    (shaken,) = result["scenes"]
    assert shaken["median_epipolar_error_px"] > 10 * exact["median_epipolar_error_px"] and len(shaken["warnings"]) == 1
    assert "cameras and pictures disagree" in (tmp_path / "data" / "room.inspect" / "index.html").read_text()


def test_scenes_without_anything_to_match_get_a_page(tmp_path, capsys):
    source = ["--format=toy", f"--data_dir={tmp_path}", "--num_scenes=2", "--image_size=8"]
    assert run(capsys, *source)[0] == 0
    code, result, _ = look(capsys, f"--data_dir={tmp_path}")
    assert code == 0 and {scene["median_epipolar_error_px"] for scene in result["scenes"]} == {None}
    text = (tmp_path / "toy.inspect" / "index.html").read_text()
    assert (
        "too little could be matched" in text
        and "nothing could be matched" in text
        and len(json.loads(Page(text).data)) == len(result["scenes"])
    )
    assert "train: 2 scenes" in text and "6 scenes of 18 are shown" in text  # two, and the first four of sixteen


def test_mistakes_are_one_clear_message(prepared, tmp_path, capsys):
    for options, message in [
        ((f"--data_dir={tmp_path}",), "there is no data set in"),
        ((f"--data_dir={prepared}", "--name=house"), "no data set 'house'"),
        ((f"--data_dir={prepared}", "--name=room", "--scene", "kitchen"), "no scene 'kitchen'"),
        ((), "--data_dir"),
    ]:
        code, result, errors = look(capsys, *options)
        assert code == 1 and result is None and message in errors and errors.count("\n") == 1
    assert not (prepared / "house.inspect").exists()


def test_a_damaged_quarantine_file_is_one_clear_message(tmp_path, capsys):
    assert run(capsys, "--format=toy", f"--data_dir={tmp_path}", "--num_scenes=1", "--image_size=8")[0] == 0
    (tmp_path / "toy.quarantine.jsonl").write_text('{"split": "train", "sc')
    code, result, errors = look(capsys, f"--data_dir={tmp_path}")
    assert code == 1 and result is None and "error: " in errors and "toy.quarantine.jsonl is damaged" in errors
