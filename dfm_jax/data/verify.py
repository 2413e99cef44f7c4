"""Checks that every file of a data set has the bytes that it was written with.

    python -m dfm_jax.data.verify --data_dir=DIR --name=NAME

The last line on standard output is one JSON object that counts `files` and `bytes`. Damage is an error that lists the
files.
"""

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from dfm_jax.data.loading import dataset, records
from dfm_jax.errors import Parser, UserError
from dfm_jax.runs import log


def verify(data_dir: Path, name: str) -> dict[str, int]:
    """Number and size of the files that were checked.

    Raises:
      UserError: there is no such data set, it has no checksums, or files are damaged.
    """
    root, index = data_dir / name, dataset.read_index(data_dir, name)
    if "files" not in index:
        raise UserError(f"data set {root} was made before there were checksums; prepare it again")
    files = {path: records.RecordFile(**expected) for path, expected in index["files"].items()}
    progress = tqdm(files.items(), unit="file", desc="verify", file=sys.stderr, mininterval=1.0)
    damaged = [path for path, expected in progress if not records.is_intact(root / path, expected)]
    if damaged:
        raise UserError(f"{len(damaged)} of {len(files)} files of {root} are damaged or missing: {', '.join(damaged)}")
    return {"files": len(files), "bytes": sum(file.bytes for file in files.values())}


@log.command
def main(argv: list[str]) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, type=Path, help="folder in which data sets lie")
    parser.add_argument("--name", required=True, help="of the data set")
    args = parser.parse_args(argv)
    summary = verify(args.data_dir, args.name)
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
