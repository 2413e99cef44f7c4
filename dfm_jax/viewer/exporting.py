"""The panel's exports: files of a sample that other programs open (`exports/formats.py`)."""

from typing import Any

from dfm_jax.errors import UserError
from dfm_jax.exports.formats import FORMATS
from dfm_jax.viewer import limits
from dfm_jax.viewer.answers import on
from dfm_jax.viewer.files import written
from dfm_jax.viewer.jobs import Job

LABELS = {f"{each.kind} ({each.suffix or 'folder'})": each for each in FORMATS}


class ExportPanel:
    """Writes the sample that a browser has chosen, below the viewer's folder."""

    def __init__(self, viewer: Any):
        self._viewer, gui = viewer, viewer.server.gui
        with viewer.tabs["Export"]:
            gui.add_markdown("Of the sample that is chosen under View; below the folder that was said at the start.")
            self.kind = gui.add_dropdown("Format", tuple(LABELS))
            self.name = gui.add_text("Name", "scene")
            self.export = gui.add_button("Export")
        on(self.export, self._export)

    def _export(self, client: Any) -> None:
        viewer = self._viewer
        chosen = LABELS[limits.one_of(self.kind.value, tuple(LABELS), "the format")]
        name = limits.file_name(self.name.value) + chosen.suffix
        sample = viewer.browser(client).sample()
        if sample is None:
            raise UserError("one sample is exported: choose it under View")
        scene = viewer.session.among_its_like(sample)

        def export(job: Job) -> str:
            told = {}
            path = written(viewer.folder, name, lambda path: told.update(scene.export(path, kind=chosen.kind)))
            viewer.hand_over(client, path)
            return f"{path} is written, in the coordinates of the {told['frame']}"

        viewer.jobs.add(f"exporting {name}", export, client)
