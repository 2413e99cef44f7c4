"""Writes a page about a prepared data set, on which a person sees in seconds whether its cameras are right.

    python -m dfm_jax.data.inspect --data_dir=DIR [--name=NAME] [--scene=SCENE ...] [--out=DIR]

For each scene: thumbnails, the cameras in 3D, bounds, warnings, and points of some views with their epipolar lines in
others. Without --name all data sets in DIR get a page each; without --scene the first few scenes of each split are
shown. The page is one file, DIR/NAME.inspect/index.html or OUT/NAME/index.html; it needs no network. The last line on
standard output is one JSON object: `pages`, and for each of `scenes` its `frames`, `median_epipolar_error_px` and
`warnings`.
"""

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dfm_jax.data.inspecting import inspect_page, inspect_scene
from dfm_jax.data.inspecting.inspect_scene import SceneReport
from dfm_jax.data.loading import dataset
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.preparing.quarantine import reason_kind
from dfm_jax.errors import Parser, UserError
from dfm_jax.runs import log
from dfm_jax.runs.output_folders import check_room, replacing

logger = logging.getLogger(__name__)

PAGE = "index.html"
SCENES = 4  # of each split, where none is named


def inspect(data_dir: Path, name: str, scenes: Sequence[str], folder: Path) -> tuple[Path, list[SceneReport]]:
    """Writes `folder`/index.html about the data set `data_dir`/`name`.

    Raises:
      UserError: there is no such data set or scene, or the folder cannot be written.
    """
    splits = dataset.open_splits(data_dir, name)
    chosen = [(split, i) for split in splits for i in _choose(split, scenes)]
    missing = sorted(set(scenes) - {split.names[i] for split, i in chosen})
    if missing:
        some = ", ".join(splits[0].names[:5])
        raise UserError(f"data set {data_dir / name} has no scene '{missing[0]}'; its scenes are: {some}, ...")
    check_room(folder)
    reports = []
    for split, i in chosen:
        logger.info(f"{name}: {split.split}/{split.names[i]}")
        reports.append(inspect_scene.look_at(split, i))
    counts = {split.split: (len(split), sum(split.num_frames)) for split in splits}
    page = inspect_page.render(name, counts, reports, _rejections(data_dir / f"{name}.quarantine.jsonl"))
    with replacing(folder, [PAGE], "inspecting") as building:
        (building / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE, reports


def _choose(split: SceneDataset, scenes: Sequence[str]) -> list[int]:
    if not scenes:
        return list(range(min(SCENES, len(split))))
    return [i for i, name in enumerate(split.names) if name in scenes]


def _rejections(path: Path) -> dict[str, int]:
    """How often each reason is given in a quarantine file; none if there is no such file.

    Raises:
      UserError: the file is damaged.
    """
    reasons: dict[str, int] = {}
    if path.is_file():
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                reason = reason_kind(json.loads(line)["reason"])
                reasons[reason] = reasons.get(reason, 0) + 1
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(f"{path} is damaged ({error}); the data set can do without it") from error
    return reasons


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, type=Path, help="folder in which data sets lie")
    parser.add_argument("--name", help="of the data set; default: all of them")
    parser.add_argument("--scene", nargs="+", action="extend", default=[], help="names of the scenes to show")
    parser.add_argument("--out", type=Path, help="folder for the pages; default: beside the data set")
    return parser.parse_args(argv)


@log.command
def main(argv: list[str]) -> int:
    args = _parse(argv)
    names = [args.name] if args.name else dataset.names(args.data_dir)
    pages, scenes = {}, []
    for name in names:
        folder = args.out / name if args.out else args.data_dir / f"{name}.inspect"
        path, reports = inspect(args.data_dir, name, args.scene, folder)
        print(f"look at {path}")
        pages[name] = str(path)
        scenes += [_summary(name, report) for report in reports]
    print(json.dumps({"pages": pages, "scenes": scenes}))
    return 0


def _summary(name: str, report: SceneReport) -> dict[str, object]:
    error = report.error_pixels
    return {
        "dataset": name,
        "split": report.split,
        "scene": report.name,
        "frames": report.num_frames,
        "median_epipolar_error_px": None if math.isnan(error) else round(error, 3),
        "matches": sum(pair.matches for pair in report.pairs),
        "warnings": list(report.warnings),
    }


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing here computes on an accelerator
    sys.exit(main(sys.argv[1:]))
