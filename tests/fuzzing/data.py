"""Data for the fuzzer: undamaged sources, data sets and index files, what reads them, and how many frames they list."""

import contextlib
import functools
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path as Folder

from dfm_jax.data import prepare, verify
from dfm_jax.data.loading import dataset
from dfm_jax.evaluation import evaluation_index
from tests import captures_source, co3d_source, format_sources, realestate10k_source


def prepared(form: str, *options: str) -> Callable[[Folder, Folder], int]:
    def read(source: Folder, out: Folder) -> int:
        arguments = [f"--format={form}", f"--source={source}", f"--data_dir={out}", "--name=d", "--num_workers=1"]
        return prepare.main([*arguments, *options])

    return read


def listed_in_transforms(source: Folder) -> int | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        frames = json.loads((source / "transforms.json").read_bytes())["frames"]
        return len(frames) if isinstance(frames, list) else None
    return None


def listed_lines(pattern: str, header: int, lines_of_a_frame: int = 1) -> Callable[[Folder], int | None]:
    """Frames that the text files of a source list."""

    def count(source: Folder) -> int | None:
        listed = 0
        for path in source.glob(pattern):
            try:
                lines = [line for line in path.read_text("utf-8").splitlines()[header:] if line.strip()]
            except (OSError, ValueError):
                return None
            listed += sum(not line.startswith("#") for line in lines) // lines_of_a_frame
        return listed

    return count


def write_transforms(source: Folder) -> None:
    captures_source.write_transforms(source)


def write_colmap(text: bool) -> Callable[[Folder], None]:
    return lambda source: captures_source.write_colmap(source, text=text) and None


def write_middlebury(source: Folder) -> None:
    captures_source.write_middlebury(source)


def write_views(kind: str) -> Callable[[Folder], None]:
    return lambda source: format_sources.WRITERS[kind](source / "scene")


def write_realestate10k(source: Folder) -> None:
    realestate10k_source.write_clip(source, "a")
    realestate10k_source.write_clip(source, "b", number=1)


def write_chunks(source: Folder) -> None:
    from tests.test_realestate10k_chunks import clip, write_chunk

    write_chunk(source, "000000", [clip("a"), clip("b", 1)])


def write_co3d(source: Folder) -> None:
    co3d_source.write_category(source, "apple", "ab", depth=True)
    folder = source / "apple" / "set_lists"
    co3d_source.write_json(
        folder / "set_lists_manyview_dev_0.json",
        {"train": co3d_source.listed("apple", "a", range(5)), "val": [], "test": []},
    )


def read_dataset(root: Folder, out: Folder) -> None:
    for split in dataset.open_splits(root, "d"):
        for i in range(len(split)):
            scene = split.scene(i)
            for frame in range(scene.num_frames):
                split.image(scene, frame, 8)


def verify_dataset(root: Folder, out: Folder) -> int:
    return verify.main([f"--data_dir={root}", "--name=d"])


def write_dataset(root: Folder) -> None:
    with tempfile.TemporaryDirectory() as source:
        write_transforms(Folder(source))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert prepared("transforms")(Folder(source), root) == 0


@functools.cache
def indexed_dataset() -> dataset.SceneDataset:
    root = Folder(tempfile.mkdtemp())
    write_dataset(root)
    return dataset.open_splits(root, "d")[0]


def write_index(folder: Folder) -> None:
    (name,) = indexed_dataset().names
    examples = [{"scene": name, "context": [0], "target": [1, "images/2.png"]}, {"scene": "*", "context": [2]}]
    examples[1]["target"] = [3]
    (folder / "index.json").write_text(json.dumps({"examples": examples}))


def read_index(folder: Folder, out: Folder) -> None:
    entries, _ = evaluation_index.read(folder / "index.json")
    evaluation_index.resolve(entries, indexed_dataset())
