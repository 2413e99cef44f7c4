"""The evaluated scenes on disk.

<workdir>/evaluation/settings.json           what the numbers below were made from, with fingerprints
<workdir>/evaluation/scenes/00007.json       a scene that is done: `SceneScores`
<workdir>/evaluation/scenes/00007.npz        its images, 8 bits, for distances of distributions and the page
<workdir>/evaluation/scenes/00007.csv        a row a sample and view
<workdir>/evaluation/scenes.csv              a row a scene
<workdir>/evaluation/metrics.json            everything, with what was skipped and left out, and why
"""

import csv
import dataclasses
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.evaluation.scores import SceneScores
from dfm_jax.evaluation.summary import scene_row, view_rows
from dfm_jax.runs import earlier_results
from dfm_jax.runs.result_files import reading

logger = logging.getLogger(__name__)


RESULTS = ("scenes/*.json", "sweep/*.json", "metrics.json")  # of which one is enough not to be lost
AGAIN = "remove it and run --mode=evaluate again, which measures its scene anew"


class StoredScenes:
    """The scenes of an evaluation that are done, to read."""

    def __init__(self, folder: Path):
        self.folder = folder

    def done(self) -> set[int]:
        """Numbers of the scenes of which every file is there: emptying the folder may have been interrupted, too."""
        stems = [{path.stem for path in (self.folder / "scenes").glob(f"*.{end}")} for end in ("json", "npz", "csv")]
        return {int(stem) for stem in set.intersection(*stems)}

    def scores(self, index: int) -> SceneScores:
        path, stored = self._read(index)
        if others := _other_measures(stored):
            raise UserError(f"{path} is of another version of dfm_jax ({others}): {AGAIN}")
        with reading(path, AGAIN):
            return SceneScores(**stored)

    def row(self, index: int) -> dict[str, Any]:
        """`scene_row` of a scene."""
        scores = self.scores(index)
        with reading(self.folder / "scenes" / f"{index:05d}.json", AGAIN):
            return scene_row(scores)

    def _read(self, index: int) -> tuple[Path, Any]:
        path = self.folder / "scenes" / f"{index:05d}.json"
        with reading(path, AGAIN):
            return path, json.loads(path.read_text(encoding="utf-8"))

    def images(self, index: int) -> dict[str, np.ndarray]:
        """uint8 [..., h, w, 3] by name: `context` [v], `samples` [n, t], `truth` [t] and `estimate`."""
        path = self.folder / "scenes" / f"{index:05d}.npz"
        with reading(path, AGAIN), np.load(path) as arrays:
            return dict(arrays)

    def images_of_all(self, name: str, count: int) -> Iterator[np.ndarray]:
        """Those of one name, [_, h, w, 3] of each of the first `count` scenes, read when they are asked for."""
        for index in range(count):
            path = self.folder / "scenes" / f"{index:05d}.npz"
            with reading(path, AGAIN), np.load(path) as arrays:
                images = arrays[name]
                images = images.reshape(-1, *images.shape[-3:])
            yield images


class StoredScores(Sequence[SceneScores]):
    """The scores of the first `count` scenes of a store, read when they are looked at: none is kept."""

    def __init__(self, store: StoredScenes, count: int):
        self._store, self._count = store, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> SceneScores:
        if not 0 <= index < self._count:
            raise IndexError(index)  # ends a loop over all of them
        return self._store.scores(index)


class SceneStore(StoredScenes):
    """The scenes of the evaluation that is running; they stay when it is interrupted."""

    def __init__(self, folder: Path, made_from: Mapping[str, Any]):
        """Opens the folder; what it holds that was made from something else stays there until `complete` is called, as
        is said. Then it is set aside."""
        place, message = earlier_results.place_for(folder, made_from, RESULTS)
        super().__init__(place)
        self._final = folder
        earlier_results.open_for(place, made_from, RESULTS)
        if message:
            logger.info(message)
        (place / "scenes").mkdir(exist_ok=True)

    def done(self) -> set[int]:
        """Those of another version, with other measures, are not done: they are measured again, as is said."""
        others = {index: told for index in super().done() if (told := _other_measures(self._read(index)[1]))}
        if others:
            how = min(others.values())
            logger.info(f"measuring {len(others)} scenes again: they are of another version of dfm_jax ({how})")
        return super().done() - others.keys()

    def complete(self) -> None:
        """All files are there: they take their place."""
        if self.folder != self._final:
            if message := earlier_results.put_in_place(self._final):
                logger.info(message)
            self.folder = self._final

    def write(self, index: int, scores: SceneScores, images: Mapping[str, np.ndarray]) -> None:
        """Stores a scene; it counts as done when the last of its files is complete.

        Args:
          images: [..., h, w, 3] in [0, 1], by name.
        """
        stem = self.folder / "scenes" / f"{index:05d}"
        quantised = {name: np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8) for name, x in images.items()}
        np.savez_compressed(stem.with_suffix(".npz"), **quantised)
        _write_csv(stem.with_suffix(".csv"), view_rows(scores))
        unfinished = stem.with_suffix(".incomplete")
        unfinished.write_text(json.dumps(dataclasses.asdict(scores)) + "\n")
        unfinished.replace(stem.with_suffix(".json"))


def _other_measures(stored: Any) -> str:
    """How a stored scene's measures differ from those of now; '' if they do not, or if it is no such record."""
    if not isinstance(stored, dict):
        return ""
    now = [field.name for field in dataclasses.fields(SceneScores)]
    missing, unknown = [x for x in now if x not in stored], [x for x in stored if x not in now]
    told = [f"without {', '.join(missing)}"] * bool(missing) + [f"with {', '.join(unknown)}"] * bool(unknown)
    return ", ".join(told)


def write_scene_table(path: Path, scenes: Iterable[SceneScores]) -> None:
    _write_csv(path, map(scene_row, scenes))


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = iter(rows)
    first = next(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(first))
        writer.writeheader()
        writer.writerow(first)
        writer.writerows(rows)
