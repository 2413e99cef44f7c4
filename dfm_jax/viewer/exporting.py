"""The panel's exports: files of a sample that other programs open (`exports/formats.py`)."""

from typing import Any

from dfm_jax.errors import UserError
from dfm_jax.exports.formats import FORMATS, KINDS
from dfm_jax.viewer import limits
from dfm_jax.viewer.answers import on
from dfm_jax.viewer.files import written
from dfm_jax.viewer.jobs import Job


class ExportPanel:
    """Writes the sample that a browser has chosen, below the viewer's folder."""

    def __init__(self, viewer: Any):
        self._viewer, gui = viewer, viewer.server.gui
        with viewer.tabs["Export"]:
            gui.add_markdown("Of the sample that is chosen under View; below the folder that was said at the start.")
            self.kind = gui.add_dropdown("Format", KINDS)
            self.name = gui.add_text("Name", "scene")
            self.export = gui.add_button("Export")
        on(self.export, self._export)

    def _export(self, client: Any) -> None:
        viewer = self._viewer
        kind, name = limits.one_of(self.kind.value, KINDS, "the format"), limits.file_name(self.name.value)
        drawn = viewer.browser(client).drawn()
        if drawn is None:
            raise UserError("one sample is exported: choose it under View")
        scene, suffix = viewer.session.among_its_like(drawn), next(each.suffix for each in FORMATS if each.kind == kind)

        def export(job: Job) -> str:
            told = {}
            path = written(viewer.folder, name + suffix, lambda path: told.update(scene.export(path, kind=kind)))
            viewer.hand_over(client, path)
            return f"{path} is written, in the coordinates of the {told['frame']}"

        viewer.jobs.add(f"exporting {name}{suffix}", export, client)
