"""Checkpoints of the published PyTorch code, in and out.

    python -m dfm_jax.interop.torch_checkpoint import --source=model.pt --workdir=DIR [--weights=ema|model]
    python -m dfm_jax.interop.torch_checkpoint export --workdir=DIR --target=model.pt [--weights=ema|params]
    python -m dfm_jax.interop.torch_checkpoint check --source=model.pt [--weights=ema|model]

`import` writes DIR/checkpoints/<step>, from which `--mode=sample` samples (it prints the command) and `init_from`
trains. It reads `.pt` (which needs torch), `.safetensors` and `.npz` (which do not). Of a released `.pt` it takes one
set of weights, by default the averaged ones; not the other set, nor the optimiser's state.

Sizes are read from shapes. All else is taken from a config: configs/co3d.py where the model knows absolute poses and
configs/realestate10k.py where not. --dataset or --config=FILE.py:variant say otherwise, and settings are overridden as
in --config.data.near=1.0.

`export` writes the names that the PyTorch code loads, of an imported model bit for bit: in a `.pt` as `model` and as
`ema` (averaged and online model), with the `step`; in a `.safetensors` the names alone. There is no `opt`: the
published optimiser cannot resume from it. `check` does both in memory, compares, and exits with 1 if a number changed.
The last line on standard output is one JSON object.
"""

import argparse
import dataclasses
import json
import logging
import os
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dfm_jax.config import Config
from dfm_jax.config.command_line import overrides, read_config
from dfm_jax.config.reading import from_dict
from dfm_jax.errors import Parser, UserError
from dfm_jax.forward_models.protocol import Params
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel
from dfm_jax.interop import published, state_files
from dfm_jax.interop.published_config import Sizes, check_form, published_config, read_sizes
from dfm_jax.interop.published_names import derived_arrays, taken_shapes
from dfm_jax.runs import log
from dfm_jax.runs.checkpoints import restore_leftovers, restore_params
from dfm_jax.runs.new_workdirs import check_empty, write_checkpoint

logger = logging.getLogger(__name__)

DATASETS = ("realestate10k", "co3d")
AVERAGE, ONLINE = "ema_model.", "online_model."
BOOKKEEPING = "ema/"  # prefix among the leftovers, of what the published average stores beside both models


@dataclasses.dataclass(frozen=True)
class Source:
    """One set of weights of a file."""

    state: dict[str, np.ndarray]
    bookkeeping: dict[str, np.ndarray]  # of the average, by its names
    step: int  # training steps; 0 where the file does not say
    not_taken: tuple[str, ...]  # other things in the file


def read_source(path: str, weights: str) -> Source:
    """Reads a set of weights, 'ema' or 'model', or the only one that is there.

    Raises:
      UserError: the file cannot be read, or it holds no such weights.
    """
    tree = state_files.read_tree(path)
    if isinstance(tree.get("params"), Mapping):  # an .npz that has more than parameters
        others = tuple(str(name) for name in tree if name != "params")
        return Source(_arrays(path, tree["params"]), {}, 0, others)
    if not any(isinstance(tree.get(part), Mapping) for part in ("ema", "model")):
        return Source(_arrays(path, tree), {}, 0, ())
    if not isinstance(tree.get(weights), Mapping):
        raise UserError(f"{path} has no weights '{weights}', only: {', '.join(map(str, tree))}; choose with --weights")
    state, bookkeeping = _arrays(path, tree[weights]), {}
    if weights == "ema":
        bookkeeping = {name: np.array(x) for name, x in state.items() if not name.startswith((AVERAGE, ONLINE))}
        state = {name.removeprefix(AVERAGE): x for name, x in state.items() if name.startswith(AVERAGE)}
        if not state:
            raise UserError(f"{path}: its 'ema' has no names that begin with '{AVERAGE}'; try --weights=model")
    step = np.asarray(tree.get("step", 0))
    if step.size != 1 or step.dtype.kind not in "iu" or step.item() < 0:
        raise UserError(f"{path}: its 'step' must be a whole number that is not negative")
    others = tuple(str(name) for name in tree if name not in (weights, "step"))
    return Source(state, bookkeeping, step.item(), others)


def _arrays(path: str, values: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    others = [str(k) for k, v in values.items() if not (isinstance(k, str) and isinstance(v, np.ndarray))]
    if others:
        raise UserError(f"{path}: among the weights are {', '.join(others)}, which are no arrays by name")
    return state_files.without_wrappers(values, path)


# --- import


def import_checkpoint(source: Source, config: Config, workdir: pathlib.Path) -> pathlib.Path:
    """Writes `workdir`/checkpoints/<step>, whole or not at all; parameters and average are the same.

    Raises:
      UserError: the state dict is not that of the config's model, or there are checkpoints in `workdir`.
    """
    check_empty(workdir)
    model = RadianceFieldModel.from_config(config)
    params = published.import_params(source.state, model)
    kept = {name: np.array(array) for name, array in published.leftovers(source.state, model).items()}
    kept |= {BOOKKEEPING + name: array for name, array in source.bookkeeping.items()}
    write_checkpoint(workdir, source.step, config, params=params, ema=params, leftovers=kept)
    return workdir / "checkpoints" / str(source.step)


def _configure(args: argparse.Namespace, changes: Sequence[str], sizes: Sizes) -> tuple[Config, str]:
    """The settings of the imported model, and the config file that they come from."""
    file = args.config
    if not file:
        dataset = args.dataset or ("co3d" if sizes.absolute_pose else "realestate10k")
        size = args.image_size or sizes.image_size or 0
        file = f"configs/{dataset}.py:{128 if size >= 128 else 64}"
    base = read_config(file, changes)
    return published_config(base, sizes, num_heads=args.num_heads, image_size=args.image_size), file


def run_import(args: argparse.Namespace, changes: Sequence[str]) -> dict[str, Any]:
    workdir = pathlib.Path(args.workdir)
    check_empty(workdir)
    source = read_source(args.source, args.weights)
    config, file = _configure(args, changes, read_sizes(source.state))
    checkpoint = import_checkpoint(source, config, workdir)
    model = config.model
    command = f"python -m dfm_jax.main --config={shlex.quote(file)} {overrides(file, config)}"
    return {
        "checkpoint": str(checkpoint),
        "step": source.step,
        "not_taken": source.not_taken,
        "image_size": config.image_size,
        "encoder": dataclasses.asdict(model.encoder),
        "scene_field": dataclasses.asdict(model.scene_field),
        "conditioning_field": dataclasses.asdict(model.conditioning_field),
        "rendered_features": model.rendered_features,
        "config": file,
        "sample": f"python -m dfm_jax.main --workdir={shlex.quote(args.workdir)} --mode=sample",
        "train": f"{command} --config.init_from={shlex.quote(args.workdir)}",
    }


# --- export


def run_export(args: argparse.Namespace) -> dict[str, Any]:
    params, step, values = restore_params(args.workdir, args.weights)
    config = from_dict(values)
    check_form(config.model)
    model = RadianceFieldModel.from_config(config)
    kept = restore_leftovers(args.workdir, step)
    bookkeeping = {k.removeprefix(BOOKKEEPING): kept.pop(k) for k in list(kept) if k.startswith(BOOKKEEPING)}
    state = published.export_state(params, model, kept)
    tree = state
    if pathlib.Path(args.target).suffix in state_files.TORCH:
        ema = {prefix + name: array for prefix in (AVERAGE, ONLINE) for name, array in state.items()}
        counters = {"initted": np.ones(1, np.float32), "step": np.array([step])}
        tree = {"model": state, "ema": ema | counters | bookkeeping, "step": step}
    state_files.write_tree(args.target, tree)
    return {"target": args.target, "step": step, "arrays": len(state), "numbers": sum(x.size for x in state.values())}


# --- check


def run_check(args: argparse.Namespace, changes: Sequence[str]) -> dict[str, Any]:
    source = read_source(args.source, args.weights)
    config, _ = _configure(args, changes, read_sizes(source.state))
    return check(source.state, RadianceFieldModel.from_config(config))


def check(state: Mapping[str, np.ndarray], model: RadianceFieldModel) -> dict[str, Any]:
    """Imports, exports, imports again, and compares bits.

    Returns:
      for each kind of arrays how many there are and how many came back, and `different`, the names of the others.
    """
    params = published.import_params(state, model)
    kept = published.leftovers(state, model)
    again = published.export_state(params, model, kept)
    groups = {"taken": taken_shapes(model), "derived": derived_arrays(model.config, 1), "leftover": {}}
    report = {group: {"arrays": 0, "exact": 0} for group in groups}
    different = [name for name in again if name not in state]
    for name, array in state.items():
        group = next((group for group, names in groups.items() if name in names), "leftover")
        exact = name in again and published.same_bits(array, again[name])
        report[group]["arrays"] += 1
        report[group]["exact"] += exact
        different += [] if exact else [name]
    parameters = _same_trees(params, published.import_params(again, model))
    return report | {"parameters_exact": parameters, "different": different, "exact": parameters and not different}


def _same_trees(a: Params, b: Params) -> bool:
    return all(map(published.same_bits, jax.tree.leaves(a), jax.tree.leaves(b)))


# --- command line


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and what is left, which overrides settings."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="import|export|check")
    add = lambda name: commands.add_parser(name, allow_abbrev=False)
    importing, exporting, checking = add("import"), add("export"), add("check")
    for command in (importing, checking):
        command.add_argument("--source", required=True, help="file to read: .pt, .safetensors or .npz")
        command.add_argument("--weights", choices=("ema", "model"), default="ema", help="of a .pt that has both")
        command.add_argument("--dataset", choices=DATASETS, help="whose recipe to use; default: from the shapes")
        command.add_argument("--config", help="FILE.py:variant to use instead; settings change as in --config.seed=1")
        command.add_argument("--num_heads", type=int, help="of the transformer, where its width is not the config's")
        command.add_argument("--image_size", type=int, help="pixels, to use the model at another size than its own")
    for command in (importing, exporting):
        command.add_argument("--workdir", required=True, help="directory of the run")
    exporting.add_argument("--target", required=True, help="file to write: .pt or .safetensors")
    exporting.add_argument("--weights", choices=("ema", "params"), default="ema", help="averaged, or as last trained")
    args, changes = parser.parse_known_args(argv)
    if args.command == "export" and changes:
        raise UserError(f"cannot make sense of {changes[0]!r} (see --help)")
    if args.command != "export" and args.config and args.dataset:
        raise UserError("--dataset chooses the config: give it or --config, not both")
    return args, changes


def run(argv: Sequence[str]) -> dict[str, Any]:
    """Does what a command line says; returns what it reports.

    Raises:
      UserError: for a mistake in it, or a file that cannot be used; then nothing is written.
    """
    args, changes = _parse(argv)
    if args.command == "export":
        return run_export(args)
    return run_import(args, changes) if args.command == "import" else run_check(args, changes)


@log.command
def main(argv: Sequence[str]) -> int:
    report = run(argv)
    for name, value in report.items():
        logger.info(f"{name}: {value}")
    print(json.dumps(report))
    return 0 if report.get("exact", True) else 1


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing here computes on an accelerator
    sys.exit(main(sys.argv[1:]))
