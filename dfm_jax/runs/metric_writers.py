"""Where a run's numbers and pictures go: `<workdir>/{metrics.jsonl,images,tensorboard}`.

This is the only module that knows clu, whose writers run in the background. clu's own TensorBoard writer needs
TensorFlow; ours, on tensorboardX, takes its place before clu's writers are imported.
"""

import contextlib
import dataclasses
import importlib
import json
import logging
import os
import pathlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from clu.asynclib import AsyncError
from PIL import Image

from dfm_jax.config import Config
from dfm_jax.errors import UserError
from dfm_jax.runs import earlier_results
from dfm_jax.runs.output_folders import cure_of
from dfm_jax.runs.workdirs import is_remote, path_of

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
ERRORS = (OSError, AsyncError)  # of writers: at once, or of what went wrong in the background before


class _Records:
    """tensorboardX's own writer of records, whose thread would end with a traceback where it fails: the error is kept,
    for who writes next."""

    def __init__(self, writer: Any):
        self._writer, self.error = writer, None

    def write(self, data: bytes) -> None:
        self._try(self._writer.write, data)

    def flush(self) -> None:
        self._try(self._writer.flush)

    def close(self) -> None:
        self._try(self._writer.close)

    def _try(self, function: Callable, *arguments: bytes) -> None:
        if self.error is None:
            try:
                function(*arguments)
            except OSError as error:
                self.error = error


class TensorBoardWriter:
    """The part of clu's `MetricWriter` that this program uses, on tensorboardX. Images are uint8 [h, w, 3].

    What cannot be written is an OSError of a later call.
    """

    def __init__(self, logdir: str | pathlib.Path, start_step: int = 0):
        """What the run logged after `start_step` before will not be shown."""
        self._writer = _tensorboardx().SummaryWriter(str(logdir), purge_step=start_step + 1 if start_step else None)
        events = self._writer.file_writer.event_writer._ev_writer
        self._records = events._py_recordio_writer = _Records(events._py_recordio_writer)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._check()
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self._check()
        for name, image in images.items():
            self._writer.add_image(name, image, step, dataformats="HWC")

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        self._check()
        for name, text in texts.items():
            self._writer.add_text(name, text, step)

    def flush(self) -> None:
        self._writer.flush()
        self._check()

    def close(self) -> None:
        self._writer.close()
        self._check()

    def _check(self) -> None:
        if self._records.error is not None:
            raise self._records.error


class RewrittenFile:
    """A text that grows where files cannot: in a bucket, each is written whole."""

    def __init__(self, path: pathlib.Path, text: str):
        self._path, self._text = path, text

    def write(self, text: str) -> None:
        self._text += text

    def flush(self) -> None:
        self._path.write_text(self._text)

    def close(self) -> None:
        self.flush()


class FolderWriter:
    """Plain files of the same: scalars with `step` as a JSON object a line, images as `images/<name>/<step>.png`."""

    def __init__(self, workdir: str | pathlib.Path, start_step: int = 0):
        """Drops the lines that an earlier run wrote after `start_step`, and one that it did not finish."""
        self._folder = path_of(workdir)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / METRICS_FILE
        kept = [line for line in read_metrics(workdir) if line["step"] <= start_step] if path.exists() else []
        text = "".join(json.dumps(line) + "\n" for line in kept)
        if is_remote(workdir):
            self._file: Any = RewrittenFile(path, text)
            return
        rewritten = path.with_suffix(".tmp")
        rewritten.write_text(text)
        os.replace(rewritten, path)
        self._file = path.open("a")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for name, image in images.items():
            folder = self._folder / "images" / name
            folder.mkdir(parents=True, exist_ok=True)
            self._write_picture(folder / f"{step:08d}.png", image)

    def _write_picture(self, path: Any, image: np.ndarray) -> None:
        """Whole or not at all; an earlier run's of the same step stays until then. Buckets do so themselves."""
        unfinished = path if is_remote(self._folder) else path.with_name(f".{path.name}.incomplete")
        try:
            with unfinished.open("wb") as file:
                Image.fromarray(image).save(file, format="png")
            if unfinished != path:
                unfinished.replace(path)
        finally:
            if unfinished != path:
                unfinished.unlink(missing_ok=True)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Texts are for TensorBoard only."""

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def create_writer(workdir: str | pathlib.Path, *, start_step: int = 0, enabled: bool = True) -> Any:
    """clu's asynchronous writer to all places, with `write_scalars`, `write_images`, `write_texts`, `flush`, `close`.

    Args:
      start_step: step that the run resumes from.
      enabled: False, as on all processes but the first: a writer that writes nothing.
    """
    writers = _clu_metric_writers()
    if not enabled:
        return writers.MultiWriter([])
    folder = path_of(workdir)
    if start_step == 0 and not is_remote(workdir):
        _set_aside_earlier_run(folder)
    return writers.AsyncMultiWriter(
        [FolderWriter(folder, start_step), TensorBoardWriter(folder / "tensorboard", start_step)]
    )


@contextlib.contextmanager
def writing_metrics(config: Config, workdir: str | pathlib.Path, start_step: int) -> Iterator[Any]:
    """A writer (see `create_writer`) that begins with the settings, and is closed at the end.

    Raises:
      UserError: something cannot be written, and nothing else has ended the run.
    """
    try:
        writer = create_writer(workdir, start_step=start_step, enabled=jax.process_index() == 0)
        try:
            writer.write_texts(start_step, {"config": f"```\n{json.dumps(dataclasses.asdict(config), indent=2)}\n```"})
            yield writer
        except BaseException:
            with contextlib.suppress(*ERRORS):  # what ended the run is what the user must know
                writer.close()
            raise
        writer.close()
    except ERRORS as error:
        raise UserError(
            f"numbers and pictures could not be written to {workdir} ({error}): {cure_of(error)}"
        ) from error


def _set_aside_earlier_run(workdir: pathlib.Path) -> None:
    """Keeps what a run left that began here before, and whose checkpoints are gone: else its pictures and curves would
    be taken for those of the run that begins now."""
    if not (workdir / METRICS_FILE).exists() or not read_metrics(workdir):
        return
    kept = earlier_results.new_folder(workdir / "earlier-run")
    names = [name for name in (METRICS_FILE, "images", "tensorboard") if (workdir / name).exists()]
    for name in names:
        (workdir / name).rename(kept / name)
    logger.info(f"there is no checkpoint, but an earlier run was here: its {', '.join(names)} are kept in {kept}")


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl` in order; one that is still being written is left out, and so are damaged ones."""
    path = path_of(workdir) / METRICS_FILE
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    parsed = [values for values in map(_parse, lines) if values is not None]
    if damaged := len(lines) - len(parsed):
        logger.warning(f"{damaged} of the {len(lines)} lines of {path} are damaged, and left out")
    return parsed


def _parse(line: bytes) -> dict[str, float] | None:
    """The numbers of a line, if it is as it was written."""
    try:
        values = json.loads(line)
        return values if isinstance(values["step"], int) else None
    except (ValueError, TypeError, LookupError):
        return None


def _tensorboardx() -> types.ModuleType:
    """tensorboardX, without PyTorch, whose tensors it would take as well: importing that takes seconds."""
    if "tensorboardX" in sys.modules or "torch" in sys.modules:
        return importlib.import_module("tensorboardX")
    sys.modules["torch"] = None  # as if it were not installed
    try:
        return importlib.import_module("tensorboardX")
    finally:
        del sys.modules["torch"]


def _clu_metric_writers() -> types.ModuleType:
    name = "clu.metric_writers.summary_writer"
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.SummaryWriter = TensorBoardWriter
        sys.modules[name] = module
    from clu import metric_writers

    return metric_writers
