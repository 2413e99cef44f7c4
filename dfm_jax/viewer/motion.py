"""What a browser sees while its camera moves: gaussians, if there are some of the sample, until a frame of the field
has come for where it rests."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from dfm_jax.exports.gaussians import Gaussians

RESTS_AFTER = 0.15  # seconds without a message that the camera has moved
NAME = "/gaussians"


class Motion:
    """Of one browser. Gaussians are drawn by the browser itself; they are hidden whenever a frame is there."""

    def __init__(self, client: Any, background: Any, rests: Callable[[], None]):
        """
        Args:
          background: brightness behind them, in [0, 1]; of each colour, or of all.
          rests: called when the camera has come to rest.
        """
        self._client, self._rests = client, rests
        self._backdrop = np.full((2, 2, 3), np.round(255 * np.asarray(background)), np.uint8)
        self._gaussians: Gaussians | None = None
        self._handle: Any = None
        self._alone = False  # without the last frame behind them
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    @property
    def smooth(self) -> bool:
        """Whether there are gaussians to be seen."""
        return self._handle is not None

    def use(self, gaussians: Gaussians | None, unit: float) -> None:
        """Has these ready; None: none.

        Args:
          unit: a typical length of the scene: viser keeps gaussians in half precision.
        """
        with self._lock:
            if gaussians is self._gaussians:
                return
            if self._handle is not None and gaussians is None:
                self._handle.remove()
                self._handle = None
            self._gaussians, self._alone = gaussians, False
            if gaussians is not None:
                self._handle = self._client.scene.add_gaussian_splats(
                    NAME,
                    centers=(gaussians.means / unit).astype(np.float32),
                    covariances=(gaussians.covariances() / unit**2).astype(np.float32),
                    rgbs=gaussians.colours.astype(np.float32),
                    opacities=gaussians.opacities[:, None].astype(np.float32),
                    scale=unit,
                    visible=False,
                )

    def moved(self) -> None:
        """The camera moves."""
        with self._lock:
            if self._handle is None:
                return
            if not self._handle.visible:
                self._handle.visible = True
            elif not self._alone:  # the browser has had time to draw them: the last frame can go
                self._alone = True
                self._client.scene.set_background_image(self._backdrop, format="png")
            self._stop_timer()
            self._timer = threading.Timer(RESTS_AFTER, self._rests)
            self._timer.daemon = True
            self._timer.start()

    def hide(self) -> None:
        """A frame is there."""
        with self._lock:
            if self._handle is not None and self._handle.visible:
                self._handle.visible = self._alone = False

    def end(self) -> None:
        with self._lock:
            self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
