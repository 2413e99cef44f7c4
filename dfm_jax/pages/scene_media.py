"""The files of one sampled scene: videos, pictures, arrays, and the numbers that belong to them.

scene_00/{context_0,truth,estimate,mean,variance,uncertainty,contact_sheet}.png  arrays.npz
scene_00/sample_00/{rgb,depth}.mp4  poster.png
scene_00/camera_path.json, of the videos, as nerfstudio reads it
scene_00/photograph_0.jpg, of photographs of one's own, of which there is no truth
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dfm_jax.evaluation.image_metrics import psnr
from dfm_jax.sampling.camera_path_json import is_representable, write_camera_path
from dfm_jax.sampling.sample_summary import SampleResult, SceneResult
from dfm_jax.sampling.trajectories import Trajectory
from dfm_jax.sampling.videos import SampledImages
from dfm_jax.structs import Example, RenderedViews
from dfm_jax.visualization import pictures

VIDEO_SIDE = 512  # of a camera path's frames for nerfstudio, where it says nothing of them


def scene_folder(scene: int) -> str:
    return f"scene_{scene:02d}"


def sample_folder(scene: int, sample: int) -> str:
    return f"{scene_folder(scene)}/sample_{sample:02d}"


def write_videos(
    folder: Path, example: Example, scene: int, sample: int, frames: RenderedViews, fps: float | None = None
) -> None:
    """Writes one sample's videos, of colours and depths, from its frames [frames, h, w], `fps` a second."""
    fps = fps or pictures.FRAMES_PER_SECOND
    own = folder / sample_folder(scene, sample)
    own.mkdir(parents=True)
    pictures.write_video(own / "rgb.mp4", frames.rgb, fps=fps)
    near, far = float(example.near[scene]), float(example.far[scene])
    pictures.write_video(own / "depth.mp4", pictures.colour_depth(frames.depth_before(far), near, far), fps=fps)
    # Half way, cameras are farthest from the context's: that is where samples differ.
    pictures.write_png(own / "poster.png", pictures.enlarge(frames.rgb[len(frames.rgb) // 2]))


@dataclasses.dataclass(frozen=True)
class _Stills:
    """Images of one scene, [h, w, 3] each: its views, and renderings of its `n` samples at them."""

    contexts: np.ndarray  # [v, h, w, 3]
    truths: np.ndarray | None  # [t, h, w, 3] the true target views, if they are known
    at_contexts: np.ndarray  # [n, v, h, w, 3] the samples
    at_targets: np.ndarray  # [n, t, h, w, 3]
    estimate: np.ndarray  # of target view 0, as all that follow
    x0: np.ndarray  # [n, h, w, 3] what diffusion ended with
    in_colour: bool  # whether what is rendered, this and the estimate are pictures in colour

    @classmethod
    def of(cls, example: Example, sampled: SampledImages, scene: int, known: bool, in_colour: bool) -> "_Stills":
        valid, views = np.asarray(example.context.valid[scene]), sampled.views[scene]
        return cls(
            contexts=np.asarray(example.context.images[scene])[valid],
            truths=np.asarray(example.target.images[scene]) if known else None,
            at_contexts=views[:, : len(valid)][:, valid],
            at_targets=views[:, len(valid) :],
            estimate=sampled.estimate[scene],
            x0=sampled.x0[scene],
            in_colour=in_colour,
        )

    @property
    def mean(self) -> np.ndarray:
        return self.at_targets[:, 0].mean(0)

    @property
    def variance(self) -> np.ndarray:
        return self.at_targets[:, 0].var(0)

    @property
    def truth(self) -> dict[str, np.ndarray]:
        return {} if self.truths is None else {"truth": self.truths[0]}

    def against(self, truths: np.ndarray | None, images: np.ndarray) -> float | None:
        """PSNR; None where there are no true pictures, or these images are no such."""
        return None if truths is None or not len(truths) or not self.in_colour else _psnr(images, truths)

    def against_truth(self, images: np.ndarray) -> float | None:
        """The same at target view 0."""
        return self.against(None if self.truths is None else self.truths[:1], images)


def write_scene(
    folder: Path,
    scene: int,
    name: str,
    example: Example,
    sampled: SampledImages,
    hidden: np.ndarray | None = None,
    photographs: Sequence[Image.Image] = (),
    path: Trajectory | None = None,
    *,
    known: bool = True,
    in_colour: bool = True,
) -> SceneResult:
    """Writes the pictures of scene number `scene` of `example` and `sampled`, and returns what they show in numbers.

    Args:
      hidden: [h, w] bool, the pixels of target view 0 that show what the context hides, if that is known.
      photographs: that the context views are made of, at the size of a page.
      path: of the videos, in the coordinates of the source's cameras; kept as nerfstudio's `camera_path.json`, if that
        has such cameras.
      known: whether the target views are.
      in_colour: whether samples, what diffusion ended with and the estimate are pictures in colour.
    """
    (folder / scene_folder(scene)).mkdir(parents=True, exist_ok=True)
    stills = _Stills.of(example, sampled, scene, known, in_colour)
    files = _write_images(folder, scene, stills)
    contexts = tuple(files.pop(f"context_{i}") for i in range(len(stills.contexts)))
    return SceneResult(
        name=name,
        contexts=contexts,
        **{"truth": "", **files},
        arrays=_write_arrays(folder, scene, stills, hidden),
        samples=_sample_results(scene, stills),
        estimate_psnr=stills.against_truth(stills.estimate),
        mean_psnr=stills.against_truth(stills.mean),
        spread=float(np.sqrt(stills.variance).mean()) if sampled.views.shape[1] > 1 else None,
        photographs=tuple(_write_photograph(folder, scene, i, image) for i, image in enumerate(photographs)),
        camera_path="" if path is None else _write_path(folder, scene, path),
        inside=float(sampled.inside[scene].mean()),
    )


def _write_images(folder: Path, scene: int, stills: _Stills) -> dict[str, str]:
    """Writes the pictures of a scene, and returns their paths by what they show."""
    images = {f"context_{i}": image for i, image in enumerate(stills.contexts)} | {
        **stills.truth,
        "estimate": stills.estimate,
        "mean": stills.mean,
        "variance": pictures.colour_variance(stills.variance),
        "uncertainty": pictures.colour_uncertainty(stills.variance, stills.mean),
    }
    files = {label: f"{scene_folder(scene)}/{label}.png" for label in (*images, "contact_sheet")}
    for label, image in images.items():
        pictures.write_png(folder / files[label], pictures.enlarge(image))
    pictures.write_png(folder / files["contact_sheet"], _contact_sheet(stills))
    return files


def _write_arrays(folder: Path, scene: int, stills: _Stills, hidden: np.ndarray | None) -> str:
    """Writes target view 0 of the samples as numbers, and returns the file's path."""
    arrays = {"context": stills.contexts[0], **stills.truth, "samples": stills.at_targets[:, 0], "x0": stills.x0}
    arrays |= {"mean": stills.mean, "variance": stills.variance} | ({} if hidden is None else {"hidden": hidden})
    path = f"{scene_folder(scene)}/arrays.npz"
    np.savez_compressed(folder / path, **arrays)
    return path


def _sample_results(scene: int, stills: _Stills) -> tuple[SampleResult, ...]:
    """The numbers and files of each sample of a scene."""
    novel = None if stills.truths is None else stills.truths[1:]
    return tuple(
        SampleResult(
            rgb_video=f"{sample_folder(scene, j)}/rgb.mp4",
            depth_video=f"{sample_folder(scene, j)}/depth.mp4",
            poster=f"{sample_folder(scene, j)}/poster.png",
            context_psnr=stills.against(stills.contexts, stills.at_contexts[j]),
            target_psnr=stills.against_truth(targets[0]),
            novel_psnr=stills.against(novel, targets[1:]),
            scene_psnr=_psnr(targets[0], stills.x0[j]),
        )
        for j, targets in enumerate(stills.at_targets)
    )


def _contact_sheet(stills: _Stills) -> np.ndarray:
    """All stills of a scene, uint8: a row for the target view, one for each novel view and each context view; in the
    columns the context view, the samples, the deterministic estimate and the truth, if it is known."""
    contexts, at_contexts, at_targets = stills.contexts, stills.at_contexts, stills.at_targets
    columns = ["context", *(f"sample {j + 1}" for j in range(len(at_targets))), "estimate"]
    rows = [[contexts[0], *at_targets[:, 0], stills.estimate]]
    rows += [[None, *at_targets[:, k], None] for k in range(1, at_targets.shape[1])]
    rows += [[None, *at_contexts[:, k], None] for k in range(len(contexts))]
    if stills.truths is not None:
        columns.append("truth")
        rows = [[*row, truth] for row, truth in zip(rows, [*stills.truths, *contexts], strict=True)]
    labels = ["target", *["novel"] * (at_targets.shape[1] - 1), *["context, rendered"] * len(contexts)]
    return pictures.grid(rows, columns, labels, side=max(128, contexts.shape[1]))


def _write_path(folder: Path, scene: int, path: Trajectory) -> str:
    """Writes the cameras of a video as nerfstudio has them, and returns the file's path; '' where it has no such."""
    camera = path.frames
    size = path.size or (VIDEO_SIDE, VIDEO_SIDE)
    if not is_representable(camera, size):
        return ""
    name = f"{scene_folder(scene)}/camera_path.json"
    write_camera_path(folder / name, camera, size, path.fps or pictures.FRAMES_PER_SECOND)
    return name


def _write_photograph(folder: Path, scene: int, number: int, image: Image.Image) -> str:
    """Writes a photograph, and returns its path."""
    path = f"{scene_folder(scene)}/photograph_{number}.jpg"
    image.save(folder / path, quality=90)
    return path


def _psnr(images: np.ndarray, truth: np.ndarray) -> float:
    """Of the mean error over all images; at most 99 dB, so that it is a number in JSON."""
    return float(min(99.0, psnr(images.reshape(1, -1, 3), truth.reshape(1, -1, 3))))
