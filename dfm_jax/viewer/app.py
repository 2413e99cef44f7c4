"""The interactive viewer: sampled scenes in a browser, rendered here (`--mode=view`).

The session (samples, settings, key frames) is shared by all browsers; each has its own camera, frames and choices.
"""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfm_jax.errors import UserError
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.structs import Camera
from dfm_jax.viewer import objects, server
from dfm_jax.viewer.answers import tell
from dfm_jax.viewer.browser import Browser
from dfm_jax.viewer.exporting import ExportPanel
from dfm_jax.viewer.frames import compile_calls
from dfm_jax.viewer.jobs import MAX_WAITING, Job
from dfm_jax.viewer.panels import PathPanel, Progress, SamplePanel
from dfm_jax.viewer.paths import camera_path
from dfm_jax.viewer.returning import Returning
from dfm_jax.viewer.samples import Sample
from dfm_jax.viewer.scheduler import RenderScheduler
from dfm_jax.viewer.session import Session
from dfm_jax.viewer.sources import Source

logger = logging.getLogger(__name__)

FIRST_SAMPLES = 3  # that are sampled at the start
FITS_LAST = 1e6  # their place in the panel: below all else
MAX_FITS = 1_000_000  # waiting fits: one for each sample, and samples are bounded
LONGEST_WAIT = 1.0  # seconds that a step of fitting waits for frames
LARGEST_DOWNLOAD = 64 * 2**20  # bytes that are sent to a browser


class Viewer:
    """A running viewer. Its server answers as soon as this is made; samples come one after the other."""

    def __init__(
        self,
        sampler: Sampler,
        sources: Sequence[Source],
        folder: Path,
        host: str,
        port: int,
        fit_gaussians: bool = True,
    ):
        """
        Args:
          folder: for videos and exports.
          port: a free one.
          fit_gaussians: to every sample, to be seen while cameras move.
        """
        self.folder, self.grid = folder, sampler.config.model.pixel_grid
        self._browsers: dict[int, Browser] = {}
        self.returning = Returning()
        self._lock, self._compiled, self._fitting = threading.Lock(), False, fit_gaussians
        self.session = Session(sampler, sources)
        self.scheduler = RenderScheduler(self.grid, failed=self._tell_failed)
        self.server = server.start_server(host, port, f"dfm_jax: {Path(sampler.name).name}")
        self.server.gui.configure_theme(control_width="large", dark_mode=True, show_logo=False, show_share_button=False)
        self.server.gui.main_panel.dock_right()
        self.jobs = Progress(self.server.gui, self._tell_ended, -10, MAX_WAITING).jobs
        group = self.server.gui.add_tab_group()
        self.tabs = {name: group.add_tab(name) for name in ("View", "Sample", "Path", "Export")}
        self.fits = Progress(self.server.gui, self._tell_ended, FITS_LAST, MAX_FITS).jobs
        self.samples, self.paths, self.exports = SamplePanel(self), PathPanel(self), ExportPanel(self)
        self._point_initial_camera()
        self.session.changed = self._refresh
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(self._disconnect)
        self.samples.add_samples(min(FIRST_SAMPLES, sampler.config.sample.num_samples))

    @property
    def port(self) -> int:
        return self.server.get_port()

    def close(self) -> None:
        self.fits.close()
        self.jobs.close()
        self.scheduler.close()
        server.stop_server(self.server)

    def browser(self, client: Any) -> Browser:
        """
        Raises:
          UserError: it has left.
        """
        with self._lock:
            if client.client_id not in self._browsers:
                raise UserError("this browser is not connected any more")
            return self._browsers[client.client_id]

    def is_connected(self, client: Any) -> bool:
        return client.client_id in self.server.get_clients()

    def camera_path(self, name: str, num_frames: int) -> Camera:
        return camera_path(self.session, name, num_frames)

    def path_objects(self, scene: Any) -> list[Any]:
        """The camera path that is chosen, in viser's `scene`."""
        if self.paths.shown() is None:
            return []
        try:
            path = self.paths.cameras()
        except UserError:  # there are no key frames yet
            return []
        return objects.add_path(scene, path, self.session.key_frames, self.session.source)

    def prepare_frames(self, sample: Sample) -> None:
        """Compiles what frames are rendered by, once there is something to render; then has gaussians fitted."""
        if not self._compiled:
            self.scheduler.speed = compile_calls(sample.scene, sample.scene.target_camera, self.grid)
            self._compiled = True
            self._refresh()
        if self._fitting:
            self.fits.add(f"gaussians of sample {sample.scene.number}", lambda job: self._fit(job, sample))

    def _fit(self, job: Job, sample: Sample) -> str:
        """While nobody waits for frames or anything else."""

        def give_way(longest: float) -> None:
            end = time.monotonic() + longest
            while self.jobs.busy or (self.scheduler.busy and time.monotonic() < end):
                time.sleep(0.02)
                job.progress(job.share)

        def progress(done: int, total: int) -> None:
            job.progress(done / total)
            give_way(LONGEST_WAIT)

        give_way(float("inf"))
        self.session.fit_gaussians(sample, progress)
        return ""

    def hand_over(self, client: Any, path: Path) -> None:
        """Sends a file to the browser that asked for it, which may be elsewhere."""
        if self.is_connected(client) and path.is_file() and path.stat().st_size <= LARGEST_DOWNLOAD:
            client.send_file_download(path.name, path.read_bytes())

    def _tell_ended(self, job: Job, message: str, well: bool) -> None:
        """What came of a job, to the browser that asked for it, or here where none did."""
        if job.owner is None and not well:
            logger.error(message)
        elif message and job.owner is not None and self.is_connected(job.owner):
            tell(job.owner, message, well)

    def _tell_failed(self, client_id: int, message: str) -> None:
        """A frame could not be rendered."""
        client = self.server.get_clients().get(client_id)
        if client is not None:
            tell(client, message, well=False)

    def _connect(self, client: Any) -> None:
        with self._lock:
            known = [browser.client for browser in self._browsers.values()]
        for other in known:  # this may be one of them that comes back, before anything told that it left
            if not self.is_connected(other):
                self._disconnect(other)
        browser = Browser(client, self)
        with self._lock:
            self._browsers[client.client_id] = browser
        if not self.is_connected(client):  # it has left meanwhile
            self._disconnect(client)

    def _disconnect(self, client: Any) -> None:
        with self._lock:
            browser = self._browsers.pop(client.client_id, None)
            if browser is not None:
                browser.keep()
        if browser is not None:
            browser.leave()

    def _refresh(self) -> None:
        if self.session.source is not self._looked_at:
            self._point_initial_camera()
        with self._lock:
            browsers = list(self._browsers.values())
        for browser in browsers:
            browser.refresh()

    def _point_initial_camera(self) -> None:
        """Of browsers that will come, and of the button that resets the view."""
        camera, source = self.server.initial_camera, self.session.source
        self._looked_at, (up, look_at, position) = source, objects.overview(source)
        self.server.scene.set_up_direction(up)
        camera.position, camera.look_at, camera.up = position, look_at, up
        camera.fov = objects.overview_field(source)
