"""How many scenes a TPU chip can train on at once: the table of docs/pods.md.

    python -m dfm_jax.profiling.compile_table --results=results.jsonl \
        --configs configs/co3d.py:128 configs/realestate10k.py:64 --topologies v5e:2x2 v5e:4x4 v5p:4x4x4 \
        [--options=--config.model.compute_dtype=bfloat16 ...]

For each config and topology, `--mode=compile` is run with 1, 2, 4, ... scenes on a chip until a step does not fit;
parameters are split over all chips. A line of JSON for each is added to `results`, and what is there is not compiled
again, so that this can be interrupted (published sizes take minutes and several GB each); unless the settings in the
config, the code of the step, or jax have changed since. The table, of the newest of these, goes to standard output.
"""

import importlib.metadata
import json
import logging
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from dfm_jax import errors
from dfm_jax.config.command_line import read_config
from dfm_jax.config.reading import flatten
from dfm_jax.errors import UserError
from dfm_jax.runs import fingerprints, log

logger = logging.getLogger(__name__)

MOST_SCENES = 64  # on a chip
GIB = 2**30
# Parts of the package that no step is made of.
NOT_OF_A_STEP = ("config", "data", "evaluation", "interop", "profiling", "runs")

Result = dict[str, Any]


@log.command
def main(argv: Sequence[str]) -> int:
    parser = errors.Parser(prog="python -m dfm_jax.profiling.compile_table", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=pathlib.Path, required=True, help="file of JSON lines, to be added to")
    parser.add_argument("--configs", nargs="+", required=True, help="FILE.py:variant")
    parser.add_argument("--topologies", nargs="+", required=True, help="such as v5e:4x4")
    parser.add_argument("--options", action="append", default=[], help="of dfm_jax.main, for all")
    arguments = parser.parse_args(argv)
    for config in arguments.configs:
        for topology in arguments.topologies:
            fill(arguments.results, config, topology, arguments.options)
    print(table(read(arguments.results)))
    return 0


def fill(results: pathlib.Path, config: str, topology: str, options: Sequence[str]) -> None:
    """Adds what is missing of a config and topology."""
    scenes, wanted = 1, {"config": config, "topology": topology, "options": list(options)}
    earlier = [x for x in read(results) if wanted.items() <= x.items()]
    wanted["made_from"] = made_from(config, options)
    if earlier and earlier[-1].get("made_from") != wanted["made_from"]:
        changes = fingerprints.differences(earlier[-1].get("made_from", {}), wanted["made_from"])
        logger.info(
            f"{results} has {config} on {topology} of something else ({'; '.join(changes)}): compiling it again"
        )
    while scenes <= MOST_SCENES:
        known = [x for x in read(results) if wanted.items() <= x.items() and x["batch_per_device"] == scenes]
        if not known:
            logger.info(f"{config} on {topology}, {scenes} scenes a chip ...")
            known = [run(config, topology, scenes, options) | wanted]
            with results.open("a") as file:
                file.write(json.dumps(known[0]) + "\n")
        if not known[0]["fits"]:
            return
        scenes *= 2


def made_from(config: str, options: Sequence[str]) -> dict[str, str]:
    """What decides how much a step needs, but for its topology: settings, code and compiler."""
    settings = read_config(config, [option for option in options if option.startswith("--config.")])
    package = pathlib.Path(__file__).resolve().parents[1]
    code = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in NOT_OF_A_STEP:
            code[name.as_posix()] = fingerprints.of_file(path)
    known = {"settings": fingerprints.of_json(flatten(settings)), "code": fingerprints.of_json(code)}
    return known | {name: _version(name) for name in ("jax", "jaxlib", "libtpu")}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def run(config: str, topology: str, scenes: int, options: Sequence[str]) -> Result:
    """The report on one of them, from a process of its own, whose memory is free again after it.

    Raises:
      UserError: something else than a lack of memory went wrong.
    """
    chips = topology.split(":")[-1].split("x")
    devices = 1
    for side in chips:
        devices *= int(side)
    batch = [f"--config.train.batch_size={devices * scenes}", "--config.train.accumulate=1"]
    mesh = ["--config.train.mesh.data=1", "--config.train.mesh.fsdp=-1"]
    program = [sys.executable, "-m", "dfm_jax.main", f"--config={config}", "--mode=compile", f"--topology={topology}"]
    done = subprocess.run([*program, *mesh, *batch, *options], capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise UserError(f"{config} on {topology}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def read(results: pathlib.Path) -> list[Result]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def table(results: Sequence[Result]) -> str:
    """Markdown: a line for each config and topology, with the most scenes that fit."""
    head = ("config", "topology", "chips", "scenes a chip", "arguments", "in all", "of", "TFLOP", "sent", "compiled in")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in _rows(results)])


def _rows(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    gib = lambda size: f"{size / GIB:.1f} GiB"
    best: dict[tuple[str, str, str], Result] = {}
    for result in results:  # the newest come last
        key = (result["config"], " ".join(result["options"]), result["topology"])
        old = best.get(key)
        newer = old is None or old.get("made_from") != result.get("made_from")
        if newer or (result["fits"], result["batch_per_device"]) > (old["fits"], old["batch_per_device"]):
            best[key] = result
    for (config, options, topology), x in best.items():
        memory = (gib(x["argument_bytes"]), gib(x["peak_bytes"]), gib(x["hbm_bytes"]))
        sent = gib(sum(kind["bytes"] for kind in x["collectives"].values())) if x["collectives"] is not None else "-"
        scenes = f"{x['batch_per_device']:g}" if x["fits"] else "0"
        name = f"{pathlib.Path(config).name} {options}".strip()
        yield (
            f"`{name}`", topology, str(x["devices"]), scenes, *memory, f"{x['flops'] / 1e12:.1f}", sent,
            f"{x['compile_s']:.0f} s",
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
