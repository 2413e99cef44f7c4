"""A page in 3D, in one file that needs no network: the sampled scenes behind one photograph, as gaussians to turn with
the mouse. viser's client draws it; `page_controls.py` adds the buttons.

Letters: `n` samples, `g` gaussians, `f` frames of the camera path, `h w` pixels.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import viser
from scipy.spatial.transform import Rotation

from dfm_jax.exports.fitting import Progress, averages, fit_to, psnr
from dfm_jax.exports.gaussians import Gaussians
from dfm_jax.exports.renderings import SceneViews
from dfm_jax.runs.output_folders import writing_file
from dfm_jax.sampling.trajectories import make_path
from dfm_jax.structs import Camera
from dfm_jax.viewer.page_controls import with_controls
from dfm_jax.viewer.server import quiet, stop_server
from dfm_jax.viewpoints import are_all_around, scene_centre, up_direction
from dfm_jax.visualization.pictures import colour_uncertainty, to_uint8

# Gaussians of each sample, and steps of fitting them: less than a file of them has, as there are several.
NUM_GAUSSIANS, NUM_STEPS = 1000, 100
MOST_SAMPLES = 6
# Of the page's own coordinates, in which up is +z: how far the photograph's camera is from what it looks at.
DISTANCE = 3.0
SECONDS, FRAMES_A_SECOND = 6, 20  # of the camera path
# Where a page is first seen from: times the photograph's distance, and degrees to its right; of scenes that are seen
# from all sides, and from one.
ALL_AROUND, ONE_SIDE = (1.5, 35), (1.3, 12)


@dataclasses.dataclass(frozen=True)
class Sample:
    gaussians: Gaussians  # in the scene's coordinates
    uncertainty: np.ndarray  # [g, 3] colours that show how different other samples are there; in [0, 1]
    psnr_to_field: float  # of the gaussians to the scene, dB


def fit_samples(views: Sequence[SceneViews], progress: Progress | None = None) -> list[Sample]:
    """Gaussians of all samples behind one photograph, which are rendered at the same cameras.

    Args:
      progress: called with the steps that are done, and the number of all, over all samples.
    """
    images = np.stack([each.images.rgb for each in views])
    shown = np.concatenate([images.mean(0), images.var(0)], axis=-1)
    samples = []
    for number, each in enumerate(views):
        offset = number * NUM_STEPS
        told = lambda done, _, offset=offset: progress and progress(offset + done, len(views) * NUM_STEPS)
        gaussians = fit_to(each, NUM_GAUSSIANS, NUM_STEPS, told)
        mean, variance = np.split(averages(gaussians, each, shown), 2, axis=-1)
        samples.append(Sample(gaussians, colour_uncertainty(variance[None], mean[None])[0], psnr(gaussians, each)))
    return samples


def write(views: SceneViews, path: Path) -> dict[str, Any]:
    """Fits gaussians to the scene and the other samples behind its photograph, and writes a page of them; returns how
    many samples it has, and the gaussians' mean PSNR to them.

    Raises:
      UserError: nothing in a scene is opaque, or the file cannot be written.
    """
    chosen = chosen_samples(views)
    samples = fit_samples(chosen)
    with writing_file(path) as unfinished:
        unfinished.write_text(scene_page(chosen, samples), encoding="utf-8")
    return {"samples": len(samples), "psnr_to_field": float(np.mean([each.psnr_to_field for each in samples]))}


def chosen_samples(views: SceneViews) -> list[SceneViews]:
    """The scene, and the first of the other samples behind its photograph."""
    return [views, *(each for each in views.samples if each is not views)][:MOST_SAMPLES]


def scene_page(views: Sequence[SceneViews], samples: Sequence[Sample], path: Camera | None = None) -> str:
    """The page of samples behind one photograph, as HTML.

    Args:
      path: [f] cameras that it plays; by default around the scene or, if that is seen from one side, there and back.
    """
    scene = views[0].scene
    to_page = page_from_scene(scene)
    with quiet():
        server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    try:
        for number, sample in enumerate(samples):
            placed = sample.gaussians.transformed(to_page)
            for kind, colours in (("colours", placed.colours), ("uncertainty", sample.uncertainty)):
                server.scene.add_gaussian_splats(
                    f"/sample {number + 1}/{kind}",
                    placed.means.astype(np.float32),
                    placed.covariances().astype(np.float32),
                    colours.astype(np.float32),
                    placed.opacities[:, None].astype(np.float32),
                    visible=number == 0 and kind == "colours",
                )
        _add_cameras(server, scene, to_page)
        _set_background(server, scene.background)
        html = server.scene.as_html(dark_mode=True)
    finally:
        stop_server(server)
    frames = _poses(_on_page(default_path(scene) if path is None else path, to_page))
    photograph = _poses(_on_page(_stacked(scene.context_camera), to_page))[0]
    start = photograph | {"position": _beside(scene, photograph["position"]), "look_at": [0, 0, 0], "up": [0, 0, 1]}
    return with_controls(html, len(samples), frames, 1000 // FRAMES_A_SECOND, photograph=photograph, start=start)


def page_from_scene(scene: Any) -> np.ndarray:
    """[4, 4] the similarity from a scene's coordinates to those of its page."""
    cameras = _ends(scene)
    up, centre, pose = up_direction(cameras), scene_centre(cameras, *scene.bounds), cameras.camera_to_world[0]
    right = pose[:3, 0] - up * (up @ pose[:3, 0])
    right /= np.linalg.norm(right)
    turn = np.stack([right, np.cross(up, right), up])
    similarity = np.eye(4)
    similarity[:3, :3] = turn * DISTANCE / np.linalg.norm(pose[:3, 3] - centre)
    similarity[:3, 3] = -similarity[:3, :3] @ centre
    return similarity


def default_path(scene: Any) -> Camera:
    """[f] around the scene or, if context and target see it from one side, from one to the other and back."""
    cameras, (near, far) = _ends(scene), scene.bounds
    name = "orbit" if _is_all_around(scene) else "interpolate"
    path = make_path(name, cameras, target=1, near=near, far=far, num_frames=SECONDS * FRAMES_A_SECOND)
    return path.frames


def _add_cameras(server: viser.ViserServer, scene: Any, to_page: np.ndarray) -> None:
    """The photograph's camera, with the photograph, and the one that the scene was sampled at."""
    photograph = to_uint8(scene.context_image)
    for name, camera, colour, image in (
        ("/photograph", scene.context_camera, (64, 128, 255), photograph),
        ("/target camera", scene.target_camera, (255, 160, 64), None),
    ):
        placed = _on_page(_stacked(camera), to_page)
        pose, matrix = placed.camera_to_world[0], placed.intrinsics[0]
        server.scene.add_camera_frustum(
            name,
            fov=float(2 * np.arctan(0.5 / matrix[1, 1])),
            aspect=float(matrix[1, 1] / matrix[0, 0]),
            scale=0.12 * DISTANCE,
            color=colour,
            image=image,
            format="png",
            wxyz=Rotation.from_matrix(pose[:3, :3]).as_quat(scalar_first=True),
            position=pose[:3, 3],
        )


def _set_background(server: viser.ViserServer, background: float | np.ndarray) -> None:
    server.scene.set_background_image(np.full((1, 1, 3), np.round(255 * background), np.uint8))


def _is_all_around(scene: Any) -> bool:
    cameras = _ends(scene)
    return are_all_around(cameras, scene_centre(cameras, *scene.bounds))


def _beside(scene: Any, position: list[float]) -> list[float]:
    """Farther away than the photograph's camera, so that it is seen as well, and to its right."""
    farther, degrees = ALL_AROUND if _is_all_around(scene) else ONE_SIDE
    return (farther * Rotation.from_euler("z", degrees, degrees=True).apply(position)).round(4).tolist()


def _poses(cameras: Camera) -> list[dict[str, Any]]:
    """As the page's script takes them: in viser's terms."""
    return [
        {
            "position": pose[:3, 3].round(4).tolist(),
            "look_at": (pose[:3, 3] + DISTANCE * pose[:3, 2]).round(4).tolist(),
            "up": (-pose[:3, 1]).round(4).tolist(),
            "fov": round(float(2 * np.arctan(0.5 / matrix[1, 1])), 4),
        }
        for pose, matrix in zip(*_parts(cameras), strict=True)
    ]


def _on_page(cameras: Camera, to_page: np.ndarray) -> Camera:
    poses = to_page @ np.asarray(cameras.camera_to_world, np.float64)
    poses[:, :3, :3] /= np.cbrt(np.linalg.det(to_page[:3, :3]))
    return Camera(poses, np.asarray(cameras.intrinsics, np.float64))


def _ends(scene: Any) -> Camera:
    """[2] context and target."""
    both = zip(_parts(scene.context_camera), _parts(scene.target_camera), strict=True)
    return Camera(*(np.stack(x).astype(np.float64) for x in both))


def _stacked(camera: Camera) -> Camera:
    return Camera(*(x[None] for x in _parts(camera)))


def _parts(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(camera.camera_to_world), np.asarray(camera.intrinsics)
