"""Frames for several browsers at once: coarse ones at once, finer ones while a camera rests.

One thread renders, a call at a time (`frames.py`), for whoever waits for the coarsest frame. A frame finer than the
first is left as soon as its browser wants another one; the first is always finished, so that something is seen while a
camera moves.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Hashable

import jax
import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.exports.protocol import RenderableScene
from dfm_jax.structs import Camera, RenderedViews
from dfm_jax.viewer.frames import Frame, Speed
from dfm_jax.viewer.limits import SIDES, frame_size

logger = logging.getLogger(__name__)

FIRST_SECONDS = 0.25  # that the first frame of a camera may take
SHOW_EVERY = 0.7  # seconds after which an unfinished frame is shown


@dataclasses.dataclass(frozen=True)
class Shot:
    """What a browser wants to see.

    Attributes:
      scenes: all that are seen at once, or compared.
      camera: one.
      aspect: width by height.
      finest: longer side of the last frame, pixels.
      about: what the browser makes of the views.
    """

    scenes: tuple[RenderableScene, ...]
    camera: Camera
    aspect: float
    finest: int
    about: object = None

    def is_same(self, other: "Shot | None") -> bool:
        """Whether both are the same to see."""
        if other is None or len(self.scenes) != len(other.scenes):
            return False
        values = [(each.aspect, each.finest, each.about) for each in (self, other)]
        same_scenes = all(one is two for one, two in zip(self.scenes, other.scenes, strict=True))
        cameras = zip(jax.tree.leaves(self.camera), jax.tree.leaves(other.camera), strict=True)
        return values[0] == values[1] and same_scenes and all(np.array_equal(*pair) for pair in cameras)


@dataclasses.dataclass(frozen=True)
class Shown:
    """A frame as it is handed over."""

    shot: Shot
    views: list[RenderedViews]  # [h, w] of each scene
    size: tuple[int, int]
    complete: bool  # all of it has been rendered
    final: bool  # and it is the finest


def sides(shot: Shot, speed: Speed) -> list[int]:
    """Longer sides of the frames of a shot, coarse to fine."""
    allowed = [side for side in SIDES if side <= shot.finest]
    quick = [s for s in allowed if speed.seconds(_pixels(shot, s)) <= FIRST_SECONDS] if speed.pixels_per_second else []
    first = max(quick, default=allowed[0])
    return [side for side in allowed if side >= first]


def _pixels(shot: Shot, side: int) -> int:
    height, width = frame_size(shot.aspect, side)
    return height * width * len(shot.scenes)


class _Work:
    """The frames of one shot."""

    def __init__(self, shot: Shot, grid: str, speed: Speed):
        self.shot, self.level, self.shown_at = shot, 0, time.monotonic()
        self._grid, self._sides = grid, sides(shot, speed)
        self.frame = self._frame(None)

    def _frame(self, before: list[RenderedViews] | None) -> Frame:
        size = frame_size(self.shot.aspect, self._sides[self.level])
        return Frame(self.shot.scenes, self.shot.camera, size, self._grid, before)

    def shown(self) -> Shown:
        complete = self.frame.done
        final = complete and self.level == len(self._sides) - 1
        self.shown_at = time.monotonic()
        return Shown(self.shot, self.frame.views, self.frame.size, complete, final)

    def refine(self) -> None:
        self.level += 1
        self.frame = self._frame(self.frame.views)


class _Browser:
    def __init__(self, receive: Callable[[Shown], None]):
        self.receive, self.served = receive, 0.0
        self.work: _Work | None = None
        self.wanted: Shot | None = None  # after `work`

    @property
    def rank(self) -> tuple[int, float]:
        return (self.work.level if self.work else 0), self.served


class RenderScheduler:
    """Renders for browsers, which are told apart by keys.

    What `join` was given receives frames of what its browser wants, from the rendering thread, until it wants something
    else.
    """

    def __init__(self, grid: str, speed: Speed | None = None, failed: Callable[[Hashable, str], None] | None = None):
        """
        Args:
          grid: where pixels lie (`geometry.pixel_grid`).
          failed: is told what went wrong with a browser's frame, which is given up.
        """
        self.speed = speed or Speed()
        self._grid, self._failed = grid, failed or (lambda key, message: None)
        self._browsers: dict[Hashable, _Browser] = {}
        self._changed, self._ending = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="frames", daemon=True)
        self._thread.start()

    def join(self, key: Hashable, receive: Callable[[Shown], None]) -> None:
        with self._changed:
            self._browsers[key] = _Browser(receive)

    def leave(self, key: Hashable) -> None:
        with self._changed:
            self._browsers.pop(key, None)

    def want(self, key: Hashable, shot: Shot | None) -> None:
        """In the place of all that was wanted before; None: nothing."""
        with self._changed:
            browser = self._browsers.get(key)
            if browser is None:
                return
            browser.wanted = shot
            if browser.work and (shot is None or browser.work.level > 0 or browser.work.shot.scenes != shot.scenes):
                browser.work = None
            self._changed.notify_all()

    @property
    def busy(self) -> bool:
        with self._changed:
            return any(browser.work or browser.wanted for browser in self._browsers.values())

    def close(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while (chosen := self._choose()) is not None:
            key, browser, work = chosen
            try:
                self._advance(browser, work)
            except Exception as error:  # whatever it is, the other browsers go on
                if not isinstance(error, UserError):
                    logger.error("a frame was given up: %s: %s", type(error).__name__, error, exc_info=error)
                self._finish(browser, work)
                self._failed(key, str(error))

    def _choose(self) -> tuple[Hashable, _Browser, _Work] | None:
        """Waits for something to do; None: to end."""
        with self._changed:
            while not self._ending:
                waiting = [
                    (b.rank, i, key, b) for i, (key, b) in enumerate(self._browsers.items()) if b.work or b.wanted
                ]
                if not waiting:
                    self._changed.wait()
                    continue
                *_, key, browser = min(waiting, key=lambda each: each[:2])
                if browser.work is None:
                    browser.work, browser.wanted = _Work(browser.wanted, self._grid, self.speed), None
                browser.served = time.monotonic()
                return key, browser, browser.work
        return None

    def _advance(self, browser: _Browser, work: _Work) -> None:
        work.frame.advance(self.speed)
        if not work.frame.done:
            if work.level and time.monotonic() - work.shown_at > SHOW_EVERY and browser.work is work:
                browser.receive(work.shown())
            return
        shown = work.shown()
        with self._changed:
            current = browser.work is work
        if current:
            browser.receive(shown)
        if shown.final or browser.wanted:
            self._finish(browser, work)
        else:
            work.refine()

    def _finish(self, browser: _Browser, work: _Work) -> None:
        with self._changed:
            if browser.work is work:
                browser.work = None
