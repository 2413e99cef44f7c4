"""Frames of any size, rendered a few tiles at a time: one compiled program for all sizes, and work that can be left at
any time.

Letters: `k` tiles, `h w` pixels of a frame, `n` scenes that it shows.
"""

import dataclasses
import time
from collections.abc import Sequence

import jax
import numpy as np

from dfm_jax.exports.protocol import RenderableScene
from dfm_jax.geometry import pixel_grid
from dfm_jax.structs import Camera, RenderedViews

TILE = 16  # pixels along a side
CALLS = (4, 64)  # tiles in a call: where rendering takes long, and where it does not
LONGEST_CALL = 0.2  # seconds, where there is a choice: work is left between calls


@dataclasses.dataclass
class Speed:
    """What rendering takes here, as it is measured."""

    pixels_per_second: float = 0.0  # 0: not known
    tiles: int = CALLS[0]  # in a call

    def measured(self, pixels: int, seconds: float) -> None:
        rate = pixels / max(seconds, 1e-6)
        self.pixels_per_second = 0.7 * self.pixels_per_second + 0.3 * rate if self.pixels_per_second else rate

    def seconds(self, pixels: int) -> float:
        """That so many pixels will take; 0 where nothing is known."""
        return pixels / self.pixels_per_second if self.pixels_per_second else 0.0


def compile_calls(scene: RenderableScene, camera: Camera, grid: str) -> Speed:
    """Compiles what frames of such scenes are rendered by, and measures it."""
    speed = Speed()
    for tiles in CALLS:
        if speed.seconds(tiles * TILE**2) > LONGEST_CALL:
            break
        cameras = tile_cameras(camera, (TILE, TILE), [(0, 0)] * tiles, grid)
        scene.render(cameras, TILE, TILE)
        start = time.monotonic()
        scene.render(cameras, TILE, TILE)
        speed = Speed(tiles=tiles)
        speed.measured(tiles * TILE**2, time.monotonic() - start)
    return speed


class Frame:
    """A frame of `n` scenes that is being rendered, `advance` by `advance`; `views` hold what is there already."""

    def __init__(
        self,
        scenes: Sequence[RenderableScene],
        camera: Camera,
        size: tuple[int, int],
        grid: str,
        before: Sequence[RenderedViews] | None = None,
    ):
        """
        Args:
          camera: one, for all scenes.
          size: height and width.
          grid: where pixels lie, as the model has it (`geometry.pixel_grid`).
          before: a smaller frame of the same, to be seen where nothing is rendered yet.
        """
        height, width = self.size = size
        self.views = [_enlarged(x, size) for x in before] if before else [_empty(size) for _ in scenes]
        self._scenes, self._camera, self._grid = scenes, camera, grid
        corners = [(y, x) for y in range(0, height, TILE) for x in range(0, width, TILE)]
        centre = np.array([height - TILE, width - TILE]) / 2
        corners.sort(key=lambda corner: float(np.square(np.array(corner) - centre).sum()))
        self._corners = corners  # the middle first
        self._next = (0, 0)  # scene, tile

    @property
    def done(self) -> bool:
        return self._next[0] == len(self._scenes)

    def advance(self, speed: Speed) -> None:
        """Renders some tiles more."""
        which, first = self._next
        chosen = self._corners[first : first + speed.tiles]
        filled = chosen + chosen[-1:] * (speed.tiles - len(chosen))  # calls of one shape: one compilation
        start = time.monotonic()
        rendered = self._scenes[which].render(tile_cameras(self._camera, self.size, filled, self._grid), TILE, TILE)
        speed.measured(speed.tiles * TILE**2, time.monotonic() - start)
        for (y, x), tile in zip(chosen, _each(rendered), strict=False):
            for whole, part in zip(_arrays(self.views[which]), tile, strict=True):
                room = whole[y : y + TILE, x : x + TILE]
                room[...] = part[: room.shape[0], : room.shape[1]]
        last = first + speed.tiles >= len(self._corners)
        self._next = (which + 1, 0) if last else (which, first + speed.tiles)


def tile_cameras(camera: Camera, size: tuple[int, int], corners: Sequence[tuple[int, int]], grid: str) -> Camera:
    """Cameras [k] whose images of `TILE` pixels are parts of the frame that `camera` sees, pixel by pixel.

    Args:
      size: height and width of the frame.
      corners: first row and column of each tile; a tile may reach beyond the frame.
    """
    frame = np.asarray(pixel_grid(*size, grid), np.float64)
    tile = np.asarray(pixel_grid(TILE, TILE, grid), np.float64)
    step, own = frame[1, 1] - frame[0, 0], tile[1, 1] - tile[0, 0]
    intrinsics = []
    for y, x in corners:
        scale = step / own  # of a tile's coordinates in those of the frame
        offset = frame[0, 0] + step * (x, y) - scale * tile[0, 0]
        to_frame = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]], [0, 0, 1]])
        intrinsics.append(np.linalg.solve(to_frame, np.asarray(camera.intrinsics, np.float64)))
    poses = np.broadcast_to(np.asarray(camera.camera_to_world, np.float64), (len(corners), 4, 4))
    return Camera(poses, np.stack(intrinsics))


def _arrays(views: RenderedViews) -> tuple[np.ndarray, ...]:
    return views.rgb, views.depth, views.opacity


def _each(views: RenderedViews) -> list[tuple[np.ndarray, ...]]:
    return list(zip(*_arrays(views), strict=True))


def _empty(size: tuple[int, int]) -> RenderedViews:
    return RenderedViews(*(np.zeros((*size, *channels), np.float32) for channels in ((3,), (), ())))


def _enlarged(views: RenderedViews, size: tuple[int, int]) -> RenderedViews:
    """With pixels repeated."""

    def enlarged(x: np.ndarray) -> np.ndarray:
        rows, columns = (np.arange(n) * old // n for n, old in zip(size, x.shape[:2], strict=True))
        return x[rows][:, columns]

    return jax.tree.map(enlarged, views)
