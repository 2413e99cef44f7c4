"""One browser: its camera, what it has chosen to see, and the frames that it gets. None of this is shared."""

import threading
from typing import Any

import numpy as np
from viser import CameraFrustumHandle

from dfm_jax.errors import UserError
from dfm_jax.exports.gaussians import Gaussians
from dfm_jax.forward_models.build import make_model
from dfm_jax.structs import Camera
from dfm_jax.viewer import limits, objects
from dfm_jax.viewer.answers import on, tell
from dfm_jax.viewer.controls import ALL, CHOICES, NOTHING, PREVIEW, Controls, add_controls
from dfm_jax.viewer.jobs import Job
from dfm_jax.viewer.motion import Motion
from dfm_jax.viewer.overlays import OF_ALL_SAMPLES, OVERLAYS, Look, depth_along_axis, grid_shape, picture
from dfm_jax.viewer.samples import Sample
from dfm_jax.viewer.scheduler import Shot, Shown
from dfm_jax.viewer.sources import Source
from dfm_jax.visualization.pictures import enlarge, to_uint8

COARSE_QUALITY, FINE_QUALITY = 75, 92  # of JPEG


class Browser:
    """Of viser's `client`; `viewer` is the `app.Viewer` that it is connected to."""

    def __init__(self, client: Any, viewer: Any):
        self.client, self._viewer = client, viewer
        self._cameras: list[Any] = []
        self._path: list[Any] = []
        self._source, self._shown_path, self._wanted = None, None, None
        self._lock = threading.RLock()
        self.controls = self._add_controls()
        self._secret = viewer.returning.secret(client)
        self._motion = Motion(client, make_model(viewer.session.sampler.config).background, self.request)
        viewer.scheduler.join(client.client_id, self.receive)
        self.refresh()
        self._take_up(viewer.returning.come(self._secret))
        client.camera.on_update(lambda _: self._moved())

    def _add_controls(self) -> Controls:
        made = add_controls(self.client.gui, self._viewer.tabs["View"])
        for handle in (made.which, made.overlay, made.finest, made.cameras, made.smooth):
            on(handle, lambda _: self._chosen())
        on(made.step, lambda _: self._stepped())
        on(made.to_context, lambda _: self.look_through(self._viewer.session.source.first_context))
        on(made.to_target, lambda _: self.look_through(self._viewer.session.source.first_target))
        return made

    def leave(self) -> None:
        self._motion.end()
        self._viewer.scheduler.leave(self.client.client_id)

    def keep(self) -> None:
        """Keeps its camera and choices for when it comes back."""
        seen, controls = self.client.camera, self.controls
        camera = {name: getattr(seen, name) for name in ("position", "look_at", "up_direction", "fov")}
        choices = {name: getattr(controls, name).value for name in CHOICES}
        self._viewer.returning.leave(self._secret, (camera, choices))

    def _take_up(self, state: tuple[dict[str, Any], dict[str, Any]] | None) -> None:
        """What this browser had when it left."""
        if state is None:
            return
        camera, choices = state
        if choices["which"] in self.controls.which.options:
            self.controls.which.value = choices.pop("which")
            self._chosen()  # which sample it is says how many steps there are
            for name in choices.keys() - {"which"}:
                getattr(self.controls, name).value = choices[name]
            self._chosen()
        with self.client.atomic():
            for name, value in camera.items():
                setattr(self.client.camera, name, value)

    def refresh(self) -> None:
        """The session has changed."""
        with self._lock:
            session, which = self._viewer.session, self.controls.which
            labels = tuple(sample.label for sample in session.samples)
            options = (*labels, ALL) if len(labels) > 1 else labels or (NOTHING,)
            if which.options != options:
                which.options = options
            if session.source is not self._source:
                if self._source is not None:
                    self._look_over(session.source)
                self._source = session.source
                self._replace("_cameras", objects.add_cameras(self.client.scene, session.source))
            if (path := self._viewer.paths.shown()) != self._shown_path:
                self._shown_path = path
                self._replace("_path", self._viewer.path_objects(self.client.scene))
        self._chosen()

    def _replace(self, name: str, handles: list[Any]) -> None:
        """Objects of the 3D view; those of the same names were replaced when they were added."""
        names = {handle.name for handle in handles}
        for handle in getattr(self, name):
            if handle.name not in names:
                handle.remove()
        setattr(self, name, handles)

    def _chosen(self) -> None:
        """Another sample or overlay, or the same ones again."""
        sample = self.sample()
        slider, last = self.controls.step, sample.num_steps + 1 if sample else 2
        if slider.max != last or not 1 <= slider.value <= last:  # whatever the browser sent
            slider.max, slider.value = last, last
        slider.disabled = sample is None
        self._show_preview(sample)
        self._motion.use(self._gaussians(sample), sum(self._viewer.session.source.bounds) / 8)
        self.request()

    def _gaussians(self, sample: Sample | None) -> Gaussians | None:
        """What is to be seen while the camera moves; None: frames of the field."""
        wanted = self.controls.smooth.value is True and self.controls.overlay.value == OVERLAYS[0]
        finished = sample is not None and self._step(sample) is None
        return sample.gaussians if wanted and finished else None

    def _moved(self) -> None:
        """The camera moves."""
        if self._motion.smooth:
            self._wanted = None
            self._say("gaussians, while it moves")
            self._viewer.scheduler.want(self.client.client_id, None)
            self._motion.moved()
        else:
            self.request()

    def choose(self, label: str) -> None:
        """Shows another sample, as if the browser had chosen it."""
        self.controls.which.value = label
        self._chosen()

    def sample(self) -> Sample | None:
        """The sample that is chosen; None: all, or there is none."""
        return next((d for d in self._viewer.session.samples if d.label == self.controls.which.value), None)

    def _step(self, sample: Sample) -> int | None:
        """The denoising step that is chosen; None: the finished sample."""
        step = limits.whole_number(self.controls.step.value, 1, limits.MAX_STEPS + 1, "the step")
        return step if step <= sample.num_steps else None

    def _stepped(self) -> None:
        """Another denoising step: those of the sample are found first."""
        sample = self.sample()
        if sample is None or self._step(sample) is None or sample.steps is not None:
            self._chosen()
            return

        def find(job: Job) -> str:
            self._viewer.session.find_steps(sample)
            return ""

        if not self._viewer.jobs.busy:
            self._viewer.jobs.add(f"finding the denoising steps of sample {sample.scene.number}", find, self.client)

    def _show_preview(self, sample: Sample | None) -> None:
        if sample is None:
            return
        step = self._step(sample)
        known = step is not None and sample.steps is not None
        image = sample.steps.x0[step - 1, 0] if known else sample.scene.image
        self.controls.preview.image = enlarge(to_uint8(image), PREVIEW)
        self.controls.preview.label = f"x0-prediction of step {step}" if known else "at the target camera"

    def shot(self) -> Shot | None:
        """What is to be seen; None: nothing.

        Raises:
          UserError: the browser has chosen or sent something that cannot be.
        """
        session, controls, seen = self._viewer.session, self.controls, self.client.camera
        samples, (near, far) = session.samples, session.source.bounds
        if not samples:
            return None
        overlay = limits.one_of(controls.overlay.value, OVERLAYS, "what is shown")
        finest = int(limits.one_of(controls.finest.value, tuple(map(str, limits.FINEST)), "the number of pixels"))
        aspect = limits.aspect_of(seen.image_width, seen.image_height)
        scenes = [sample.scene for sample in samples]
        sample = self.sample()
        if sample is None:
            rows, columns = grid_shape(len(scenes))
            aspect = float(np.clip(aspect * rows / columns, *limits.ASPECTS))
            chosen = None
        else:
            chosen = samples.index(sample)
            step = self._step(sample)
            if step is not None and sample.steps is not None:
                scenes[chosen] = session.scene_at(sample, step)
            if overlay not in OF_ALL_SAMPLES:
                scenes, chosen = [scenes[chosen]], 0
        camera = limits.browser_camera(seen.wxyz, seen.position, seen.fov, aspect)
        return Shot(tuple(scenes), camera, aspect, finest, Look(overlay, chosen, near, far))

    def request(self) -> None:
        """Asks for frames of what is to be seen now."""
        with self._lock:  # messages come in several threads: the last one is the one that counts
            try:
                shot = self.shot()
            except UserError as error:
                tell(self.client, str(error), well=False)
                return
            self._show_objects(shot)
            if shot and shot.is_same(self._wanted):
                return
            self._wanted = shot
            self._say("rendering" if shot else "the first scene is being sampled")
            self._viewer.scheduler.want(self.client.client_id, shot)
            if shot is None:
                self.client.scene.set_background_image(None)

    def _say(self, status: str) -> None:
        if self.controls.status.content != status:
            self.controls.status.content = status

    def _show_objects(self, shot: Shot | None) -> None:
        """Frusta, where they are wanted, lie right in one picture, and are not around the camera itself."""
        wanted = self.controls.cameras.value is True and shot is not None and shot.about.chosen is not None
        place = np.asarray(self.client.camera.position)
        for handle in [*self._cameras, *self._path]:
            size = handle.scale if isinstance(handle, CameraFrustumHandle) else 0.0
            visible = wanted and bool(np.linalg.norm(place - np.asarray(handle.position)) > 4 * size)
            if handle.visible != visible:
                handle.visible = visible

    def receive(self, shown: Shown) -> None:
        """A frame has come."""
        if not self._viewer.is_connected(self.client):
            return
        look, grid = shown.shot.about, self._viewer.grid
        image, depth = picture(shown.views, look), None
        if look.chosen is not None:
            depth = depth_along_axis(shown.views[look.chosen], shown.shot.camera, grid)
        quality = FINE_QUALITY if shown.final else COARSE_QUALITY
        with self.client.atomic():
            self.client.scene.set_background_image(image, format="jpeg", jpeg_quality=quality, depth=depth)
            self._motion.hide()
        self.client.flush()
        if shown.complete:
            height, width = image.shape[:2]
            state = "the true rendering" if shown.final else "becoming finer"
            self._say(f"**{width} x {height}** pixels, {state}")

    def look_through(self, camera: Camera) -> None:
        """Moves the browser's camera."""
        seen = self.client.camera
        with self.client.atomic():
            seen.position = np.asarray(camera.camera_to_world)[:3, 3]
            seen.wxyz = objects.orientation(camera)
            seen.fov = objects.vertical_field(camera)

    def _look_over(self, source: Source) -> None:
        """Moves the browser's camera to where a source is seen from first."""
        seen = self.client.camera
        with self.client.atomic():
            up, look_at, seen.position = objects.overview(source)
            seen.look_at, seen.up_direction = look_at, up
            seen.fov = objects.overview_field(source)

    def camera(self) -> Camera:
        """
        Raises:
          UserError: the browser has sent something else.
        """
        seen = self.client.camera
        aspect = limits.aspect_of(seen.image_width, seen.image_height)
        return limits.browser_camera(seen.wxyz, seen.position, seen.fov, aspect)
