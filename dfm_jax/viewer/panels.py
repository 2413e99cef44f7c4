"""The shared part of the panel, the same in all browsers: sampling, camera paths, and how far long work is."""

import threading
from collections.abc import Callable
from typing import Any

from dfm_jax.config.sampling import SAMPLERS
from dfm_jax.errors import UserError
from dfm_jax.viewer import limits, samples, videos
from dfm_jax.viewer.answers import on
from dfm_jax.viewer.jobs import Job, Jobs
from dfm_jax.viewer.paths import KEY_FRAMES, NAMED

KEY_FRAME_BUTTONS = ADD, REMOVE, REMOVE_ALL = ("add", "remove last", "remove all")
UNTRAINED = "This model was trained without guidance: leave it at 1."


class Progress:
    """Jobs, and how far the current one is: a line of text, a bar, and a button that ends it and those that wait."""

    def __init__(self, gui: Any, ended: Callable[[Job, str, bool], None], order: float, max_waiting: int):
        """
        Args:
          ended: is told what came of a job (`Jobs`).
          order: of its place in the panel.
        """
        self._text, self._bar = gui.add_markdown("", order=order), gui.add_progress_bar(0.0, order=order + 1)
        self._stop = gui.add_button("Stop", order=order + 2)
        self._show(None)
        self.jobs = Jobs(self._show, ended, max_waiting)
        on(self._stop, lambda _: self.jobs.stop_all())

    def _show(self, job: Job | None) -> None:
        for handle in (self._text, self._bar, self._stop):
            handle.visible = job is not None
        if job is None:
            return
        left = job.seconds_left
        self._text.content = job.doing + (f", {left:.0f} s left" if left is not None else "")
        self._bar.value, self._bar.animated = 100 * job.share, left is None


class SamplePanel:
    """Samples with settings that are checked when a button is pressed."""

    def __init__(self, viewer: Any):
        self._viewer, gui = viewer, viewer.server.gui
        config = viewer.session.sampler.config
        sample, names = config.sample, [source.name for source in viewer.session.sources]
        trained = viewer.session.sampler.trained_with.get("diffusion", {}).get("guidance_dropout", 0)
        with viewer.tabs["Sample"]:
            self.source = gui.add_dropdown("Scene", names, initial_value=names[0], visible=len(names) > 1)
            self.seed = gui.add_number("Seed", config.seed, min=0, max=limits.MAX_SEED, step=1)
            self.steps = gui.add_number(
                "Steps", min(sample.num_steps, limits.MAX_STEPS), min=1, max=limits.MAX_STEPS, step=1
            )
            self.guidance = gui.add_number(
                "Guidance", float(sample.guidance), step=0.1, hint=None if trained else UNTRAINED
            )
            self.name = gui.add_dropdown("Sampler", tuple(SAMPLERS), initial_value=sample.sampler)
            self.another = gui.add_button("Draw another sample")
            self.clear = gui.add_button("Clear samples")
        on(self.another, lambda client: self.add_samples(1, client))
        on(self.clear, lambda _: viewer.session.clear())
        on(self.source, lambda client: self._show(client))

    def _show(self, client: Any) -> None:
        session = self._viewer.session
        session.show(self.source.value)
        if not session.samples:
            self.add_samples(1, client)

    def add_samples(self, count: int, client: Any = None) -> None:
        """Samples behind the current scene, one after the other.

        Raises:
          UserError: a setting cannot be, or there are too many samples.
        """
        session = self._viewer.session
        values = self.seed.value, self.steps.value, self.guidance.value, self.name.value
        sampler, source = samples.sampled_as(session.sampler, *values), session.source
        session.check_room()

        def sample(job: Job) -> str:
            for i in range(count):
                job.progress(i / count)
                self._viewer.prepare_frames(session.add_sample(sampler, source))
            return ""

        self._viewer.jobs.add("sampling" if count == 1 else f"sampling {count} scenes", sample, client)


class PathPanel:
    """Key frames, a preview of the path, and its video."""

    def __init__(self, viewer: Any):
        self._viewer, gui = viewer, viewer.server.gui
        self._playing: dict[int, threading.Event] = {}
        with viewer.tabs["Path"]:
            self.path = gui.add_dropdown("Path", (*NAMED, KEY_FRAMES), initial_value="orbit")
            self.key_frames = gui.add_button_group("Key frames", KEY_FRAME_BUTTONS)
            self.show = gui.add_checkbox("Show in the scene", False)
            self.frames = gui.add_number("Frames", 48, min=2, max=limits.MAX_FRAMES, step=1)
            self.play = gui.add_button("Play or stop")
            self.side = gui.add_dropdown(
                "Pixels", tuple(map(str, limits.VIDEO_SIDES)), initial_value=str(limits.VIDEO_SIDES[1])
            )
            self.name = gui.add_text("Name", "video")
            self.render = gui.add_button("Render to mp4", hint="As this browser sees it: its sample, overlay and step.")
        on(self.key_frames, self._change_key_frames)
        for handle in (self.path, self.show):
            on(handle, lambda _: viewer.session.changed())
        on(self.play, self._play)
        on(self.render, self._render)

    def _change_key_frames(self, client: Any) -> None:
        session, pressed = self._viewer.session, self.key_frames.value
        pressed = limits.one_of(pressed, KEY_FRAME_BUTTONS, "what is done to key frames")
        if pressed != ADD:
            session.remove_key_frames(1 if pressed == REMOVE else None)
            return
        session.add_key_frame(self._viewer.browser(client).camera())
        if len(session.key_frames) > 1:
            self.path.value, self.show.value = KEY_FRAMES, True
            session.changed()

    def shown(self) -> tuple[Any, ...] | None:
        """What the path in the 3D view depends on; None: it is not shown."""
        session = self._viewer.session
        state = session.source.name, self.path.value, tuple(map(id, session.key_frames))
        return state if self.show.value else None

    def cameras(self) -> Any:
        """Of the path that is chosen [n].

        Raises:
          UserError: it has no two key frames, or is too long.
        """
        name = limits.one_of(self.path.value, (*NAMED, KEY_FRAMES), "the path")
        frames = limits.whole_number(self.frames.value, 2, limits.MAX_FRAMES, "the number of frames")
        return self._viewer.camera_path(name, frames)

    def _play(self, client: Any) -> None:
        """Moves the browser's camera along the path, or stops doing so."""
        playing = self._playing.pop(client.client_id, None)
        if playing is not None:
            playing.set()
            return
        ended = self._playing[client.client_id] = threading.Event()
        try:
            videos.play(self._viewer.browser(client), self.cameras(), ended)
        finally:
            if self._playing.get(client.client_id) is ended:
                del self._playing[client.client_id]

    def _render(self, client: Any) -> None:
        viewer, browser = self._viewer, self._viewer.browser(client)
        name = limits.file_name(self.name.value)
        side = int(limits.one_of(self.side.value, tuple(map(str, limits.VIDEO_SIDES)), "the number of pixels"))
        shot, cameras = browser.shot(), self.cameras()
        if shot is None:
            raise UserError("there is no sample yet")

        def render(job: Job) -> str:
            path = videos.write(viewer.folder, name, shot, cameras, side, viewer.grid, job)
            viewer.hand_over(client, path)
            return f"{path} is written"

        viewer.jobs.add(f"rendering {name}.mp4", render, client)
