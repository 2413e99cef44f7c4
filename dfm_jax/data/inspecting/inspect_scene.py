"""What a page of `inspect` shows about one scene: measures, thumbnails, and pictures with epipolar lines."""

import base64
import colorsys
import dataclasses
import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dfm_jax.data.loading.dataset import SceneDataset, SceneRecord
from dfm_jax.data.loading.holes import Hole
from dfm_jax.data.preparing import bounds, epipolar, pose_conventions
from dfm_jax.data.preparing.epipolar import Pair
from dfm_jax.data.preparing.pose_conventions import Verdict
from dfm_jax.data.preparing.scene_checks import OTHERS, VIEWS

MAX_FRAMES = 120  # that are shown of a scene, evenly spaced
THUMBNAIL, PANEL = 112, 400  # pixels
FINE = 2  # times PANEL: at what size lines are drawn, before they are made smaller and so smooth
MARKED = 8  # points of a view whose lines are drawn
GRID = (0.25, 0.5, 0.75)  # where points are taken if none could be matched
MAX_POINTS = 1200  # in space


@dataclasses.dataclass(frozen=True)
class PairReport:
    first: str  # names of the frames
    second: str
    matches: int
    error_pixels: float  # median distance from the epipolar lines at the stored size


@dataclasses.dataclass(frozen=True)
class Panel:
    """A view with marked points, and others with their lines."""

    pictures: tuple[tuple[str, str], ...]  # data URI, caption; the first is the view itself


@dataclasses.dataclass(frozen=True)
class SceneReport:
    split: str
    name: str
    num_frames: int
    knows_numbers: bool  # that frames have in their source
    holes: tuple[Hole, ...]
    size: int  # of the stored pictures, pixels
    near: float
    far: float
    scale: float
    focus_distance: float  # median distance to what the cameras look at; NaN where they look at nothing in common
    attributes: dict[str, Any]
    warnings: tuple[str, ...]
    verdict: Verdict
    error_pixels: float  # median of all pairs' matches; NaN where nothing could be matched
    pairs: tuple[PairReport, ...]
    panels: tuple[Panel, ...]
    viewer: dict[str, Any]  # what the 3D view needs, for JSON


def look_at(data: SceneDataset, index: int) -> SceneReport:
    scene = data.scene(index)

    @functools.cache
    def picture(frame: int) -> Image.Image:
        return Image.open(io.BytesIO(data.encoded_image(scene, frame))).convert("RGB")

    poses, intrinsics, size = scene.camera_to_world, scene.intrinsics, data.stored_size(scene)
    pairs = epipolar.match_views(lambda frame: np.asarray(picture(frame)), poses, VIEWS, OTHERS)
    verdict = pose_conventions.judge(pairs, poses, intrinsics)
    focus = bounds.focus_distances(poses)
    return SceneReport(
        split=data.split,
        name=scene.name,
        num_frames=scene.num_frames,
        knows_numbers=scene.numbers is not None,
        holes=scene.holes,
        size=size,
        near=scene.near,
        far=scene.far,
        scale=scene.scale,
        focus_distance=float("nan") if focus is None else float(np.median(focus)),
        attributes={key: value for key, value in scene.attributes.items() if key != "warnings"},
        warnings=tuple(scene.attributes.get("warnings", ())) + _about(verdict),
        verdict=verdict,
        error_pixels=size * epipolar.pooled(pairs, poses, intrinsics)[0],
        pairs=tuple(
            PairReport(
                scene.frame_names[pair.first],
                scene.frame_names[pair.second],
                len(pair.a),
                size * float(np.median(epipolar.errors(pair, poses, intrinsics))),
            )
            for pair in pairs
        ),
        panels=tuple(_panels(scene, pairs, picture, size)),
        viewer=_viewer(scene, pairs, picture),
    )


def _about(verdict: Verdict) -> tuple[str, ...]:
    """What `prepare` did not write into the record: it looks at the pictures of some scenes only."""
    return (f"{verdict.mistake}. {verdict.evidence}",) if verdict.mistake else ()


def _panels(scene: SceneRecord, pairs: Sequence[Pair], picture: Any, size: int) -> list[Panel]:
    panels = []
    for first in dict.fromkeys(pair.first for pair in pairs):
        of_first = [pair for pair in pairs if pair.first == first]
        panels.append(_panel(scene, first, of_first, _spread(of_first), picture, size))
    if panels:
        return panels
    first = scene.num_frames // 2
    grid = np.array([(x, y) for y in GRID for x in GRID])
    none = np.zeros((0, 2))
    others = epipolar.companions(scene.camera_to_world, first)[:OTHERS]
    return [_panel(scene, first, [Pair(first, other, none, none) for other in others], grid, picture, size)]


def _spread(pairs: Sequence[Pair]) -> np.ndarray:
    """Points [n, 2] of the first view that were found in many of the others, far apart from each other."""
    points, counts = np.unique(np.concatenate([pair.a for pair in pairs]), axis=0, return_counts=True)
    points = points[counts >= np.sort(counts)[-min(len(counts), 3 * MARKED)]]
    chosen = [int(np.argmin(((points - 0.5) ** 2).sum(-1)))]
    while len(chosen) < min(MARKED, len(points)):
        distance = np.linalg.norm(points[:, None] - points[chosen], axis=-1).min(1)
        chosen.append(int(distance.argmax()))
    return points[chosen]


def _panel(scene: SceneRecord, first: int, pairs: Sequence[Pair], points: np.ndarray, picture: Any, size: int) -> Panel:
    poses, intrinsics = scene.camera_to_world, scene.intrinsics
    view = _enlarged(picture(first))
    for i, point in enumerate(points):
        _cross(view, point, i, len(points))
    pictures = [(_panel_uri(view), f"{scene.frame_names[first]}: marked points")]
    for pair in pairs:
        drawn, second = _enlarged(picture(pair.second)), pair.second
        lines = epipolar.lines(poses[first], intrinsics[first], poses[second], intrinsics[second], points)
        for i, line in enumerate(lines):
            _line(drawn, line, i, len(points))
        for i, point in enumerate(points):
            for match in pair.b[(pair.a == point).all(-1)]:
                _cross(drawn, match, i, len(points))
        caption = f"{scene.frame_names[second]}: nothing could be matched"
        if len(pair.a):
            error = size * np.median(epipolar.errors(pair, poses, intrinsics))
            caption = f"{scene.frame_names[second]}: median {error:.2f} px of {len(pair.a)} points"
        pictures.append((_panel_uri(drawn), caption))
    return Panel(tuple(pictures))


def _enlarged(image: Image.Image) -> Image.Image:
    return image.resize((FINE * PANEL, FINE * PANEL), Image.Resampling.BICUBIC)


def _panel_uri(image: Image.Image) -> str:
    return _uri(image.resize((PANEL, PANEL), Image.Resampling.BOX))


def _colour(index: int, count: int) -> tuple[int, int, int]:
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(index / max(count, 1), 0.75, 1.0))


def _cross(image: Image.Image, point: np.ndarray, index: int, count: int) -> None:
    """A ring around the point, with a dark edge so that it shows on any ground."""
    x, y = FINE * PANEL * point
    draw = ImageDraw.Draw(image)
    for radius, width, colour in ((17, 9, (0, 0, 0)), (15, 5, _colour(index, count))):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)


def _line(image: Image.Image, line: np.ndarray, index: int, count: int) -> None:
    if not np.isfinite(line).all():
        return
    a, b, c = line
    nearest, along = -c * np.array([a, b]), np.array([-b, a])  # of unit normal (a, b)
    nearest += along * (np.array([0.5, 0.5]) @ along)
    if np.abs(nearest).max() > 10:  # passes far from the picture
        return
    ends = [tuple(FINE * PANEL * (nearest + step * along)) for step in (-2, 2)]
    draw = ImageDraw.Draw(image)
    draw.line(ends, fill=(0, 0, 0), width=6)
    draw.line(ends, fill=_colour(index, count), width=4)


def _viewer(scene: SceneRecord, pairs: Sequence[Pair], picture: Any) -> dict[str, Any]:
    """Cameras, thumbnails and points in space, in units in which all of it is about 1 wide."""
    poses = scene.camera_to_world
    shown = np.unique(np.linspace(0, scene.num_frames - 1, min(MAX_FRAMES, scene.num_frames)).round().astype(int))
    points, colours = _points(scene, pairs, picture)
    positions = poses[shown, :3, 3]
    usual = (
        np.percentile(points, [5, 95], axis=0) if len(points) else positions
    )  # a few points are far behind the others
    everything = np.concatenate([positions, usual])
    low, high = everything.min(0), everything.max(0)
    centre, unit = (low + high) / 2, max(float(np.linalg.norm(high - low)), 1e-12)
    up = -poses[:, :3, 1].mean(0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 0.1 else np.array([0.0, -1.0, 0.0])
    corners = np.array([(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1), (0.5, -0.25, 1)], np.float64)
    frames = []
    for frame in shown:
        rays = corners @ np.linalg.inv(scene.intrinsics[frame]).T @ poses[frame, :3, :3].T
        frames.append(
            {
                "name": scene.frame_names[frame],
                "label": _label(scene, int(frame)),
                "position": _rounded((poses[frame, :3, 3] - centre) / unit),
                "rays": [_rounded(ray) for ray in rays],  # of the corners, and of the tip that points up
                "axis": _rounded(poses[frame, :3, 2]),
                "picture": _uri(picture(frame).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)),
            }
        )
    bounds_known = np.isfinite(scene.near) and np.isfinite(scene.far)
    return {
        "frames": frames,
        "points": [[*_rounded((p - centre) / unit), *map(int, c)] for p, c in zip(points, colours, strict=True)],
        "up": _rounded(up),
        "bounds": _rounded(np.array([scene.near, scene.far]) / unit) if bounds_known else None,
    }


def _label(scene: SceneRecord, frame: int) -> str:
    """A frame's number in its source, with its position among the stored frames where that is another."""
    if scene.numbers is None or scene.numbers[frame] == frame:
        return f"frame {frame}"
    return f"frame {scene.numbers[frame]} of the source (stored as {frame})"


def _points(scene: SceneRecord, pairs: Sequence[Pair], picture: Any) -> tuple[np.ndarray, np.ndarray]:
    """Where the matched points lie in space, [n, 3], and their colours, [n, 3]."""
    points, colours = [np.zeros((0, 3))], [np.zeros((0, 3), np.uint8)]
    for pair in pairs:
        found, ahead = epipolar.triangulate(pair, scene.camera_to_world, scene.intrinsics)
        kept = np.isfinite(found[:, 0]) & ahead
        image = np.asarray(picture(pair.first))
        x, y = np.clip((pair.a[kept] * len(image)).astype(int), 0, len(image) - 1).T
        points.append(found[kept])
        colours.append(image[y, x])
    step = max(1, -(-sum(map(len, points)) // MAX_POINTS))
    return np.concatenate(points)[::step], np.concatenate(colours)[::step]


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
