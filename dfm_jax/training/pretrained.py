"""Trained models as one file, to be handed on.

    python -m dfm_jax.training.pretrained unpack --workdir=runs/pretrained     # then --mode=sample or evaluate
    python -m dfm_jax.training.pretrained pack --workdir=runs/calibrated --file=toy.npz
    python -m dfm_jax.training.pretrained unpack --workdir=runs/other --file=toy.npz

A packed checkpoint is one `.npz`: the averaged parameters of a run by their paths, its step and its settings, but for
those that name places on one machine (the data's folder is `data` again, others are empty). Without
`--file`, `unpack` takes the one that comes with dfm_jax, of `configs/toy.py:calibrated`. The last line on standard
output is one JSON object.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from dfm_jax import platforms
from dfm_jax.config.reading import from_dict
from dfm_jax.errors import Parser, UserError
from dfm_jax.runs import log, packed
from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.runs.new_workdirs import check_empty, write_checkpoint
from dfm_jax.runs.workdirs import shipped_file

# Settings that name places on the machine that trained, and what they are in a file to be handed on.
PLACES = {
    "data.dir": "data",
    "init_from": "",
    "distillation.teacher": "",
    "model.encoder.init_file": "",
    "evaluate.index": "",
    "evaluate.inception_file": "",
    "sample.solver_file": "",
}


def pack(workdir: Path, file: Path) -> dict[str, Any]:
    """Writes the latest averaged parameters of a run to one file.

    Raises:
      UserError: the run has no checkpoint, or the file cannot be written.
    """
    params, step, settings = restore_params(workdir)
    flat = flatten_dict(settings, sep=".")
    flat |= {name: place for name, place in PLACES.items() if name in flat}
    packed.write(file, params, step, unflatten_dict(flat, sep="."))
    return {"file": str(file), "step": step, "bytes": file.stat().st_size}


def unpack(workdir: Path, file: Path) -> dict[str, Any]:
    """Writes the parameters of such a file as the checkpoint of a new workdir.

    Raises:
      UserError: there is no such file, it is damaged, or the workdir has checkpoints already or cannot be
        written.
    """
    check_empty(workdir)
    params, step, settings = packed.read(file)
    write_checkpoint(workdir, step, from_dict(settings), params=params, ema=params)
    return {"workdir": str(workdir), "step": step, "parameters": sum(x.size for x in jax.tree.leaves(params))}


@log.command
def main(argv: list[str]) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["pack", "unpack"])
    parser.add_argument("--workdir", required=True, type=Path, help="of the run")
    parser.add_argument("--file", type=Path, help="the packed checkpoint; unpack has one without")
    arguments = parser.parse_args(argv)
    platforms.start()
    if arguments.command == "unpack":
        done = unpack(arguments.workdir, arguments.file or shipped_file("toy"))
    elif arguments.file:
        done = pack(arguments.workdir, arguments.file)
    else:
        raise UserError("pack needs --file=FILE.npz: where to write to")
    print(json.dumps(done))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
