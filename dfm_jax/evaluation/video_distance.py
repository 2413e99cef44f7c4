"""FVD, the Frechet video distance (Unterthiner et al. 2018, arXiv 1812.01717): between sampled and true videos.

A video is the first `i3d.FRAMES` target views of an example, in the order in which the index file names them: those of
a path, if it is to be one. It needs a file of weights (`interop.i3d`).
"""

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from dfm_jax.evaluation.distribution_metrics import frechet_distance
from dfm_jax.evaluation.feature_files import open_features, writing_features
from dfm_jax.interop import i3d as i3d_weights
from dfm_jax.models import i3d

FEWEST = 2  # videos on a side


@dataclasses.dataclass(frozen=True)
class VideoNetwork:
    """I3D."""

    params: Any

    def __call__(self, video: UInt8[np.ndarray, "t h w 3"]) -> Float[np.ndarray, "d"]:
        return np.asarray(_extract(self.params, video[None].astype(np.float32) / 255))[0]


def load(path: str) -> VideoNetwork:
    """I3D with the weights of a file.

    Raises:
      UserError: they are not its weights.
    """
    return VideoNetwork(jax.device_put(i3d_weights.load(path)))


def video_numbers(
    network: VideoNetwork, scenes: Iterable[Mapping[str, np.ndarray]], scratch: Path | None = None
) -> tuple[dict[str, float | int], dict[str, str]]:
    """`fvd`, and how many videos it compares; or why it is left out.

    Args:
      scenes: images of 8 bits of each: `samples` [n, t, h, w, 3] and `truth` [t, h, w, 3]. One is looked at at a time.
      scratch: folder in which features lie until they are compared; None: the system's.
    """
    num_real, num_sampled, short = 0, 0, 0
    with tempfile.TemporaryDirectory(prefix=".videos-", dir=scratch) as folder:
        files = [Path(folder) / f"{name}.npy" for name in ("samples", "truth")]
        with writing_features(files[0]) as write_sampled, writing_features(files[1]) as write_real:
            for images in scenes:
                if len(images["truth"]) < i3d.FRAMES:
                    short += 1
                    continue
                write_real(network(images["truth"][: i3d.FRAMES])[None])
                for video in images["samples"]:
                    write_sampled(network(video[: i3d.FRAMES])[None])
                num_real, num_sampled = num_real + 1, num_sampled + len(images["samples"])
        if num_real < FEWEST:
            return {}, {
                "fvd": f"{num_real} of {num_real + short} examples have a video, which is {i3d.FRAMES} target views in "
                f"the order of a path; it compares {FEWEST} or more"
            }
        distance = frechet_distance(open_features(files[0], num_sampled), open_features(files[1], num_real))
    return {"fvd": distance, "num_drawn_videos": num_sampled, "num_real_videos": num_real}, {}


_extract = jax.jit(i3d.features)
