"""A training step, a denoising step and a sample here and in plain PyTorch, in turn: how many times as fast.

    python -m dfm_jax.profiling.alternate --yardstick=torch_baseline.py [--programs=gradients,train,denoise,sample]
        [--rounds=5]

Both compute the same, in float32, at the yardstick's size (32 pixels; its training step with 4 blocks of 384): with
`gradients`, what it computes; with `train`, a whole training step, with AdamW's update and the average, which the
yardstick lacks. A machine's speed changes: each round runs one after the other, and the ratio is the median of the
rounds' ratios. `--config.*` changes what is computed here. The yardstick has no sampler: its sample is the published
number of steps, 50, of which one is run; here it is the whole of `config.sample`, without guidance. The last line on
standard output is one JSON object.
"""

import argparse
import json
import logging
import os
import pathlib
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from dfm_jax import platforms
from dfm_jax.config.automatic import told
from dfm_jax.config.command_line import read_config
from dfm_jax.errors import Parser, UserError
from dfm_jax.profiling.measure import Compiled, compile_program
from dfm_jax.profiling.measurement_plan import AS_THE_YARDSTICK
from dfm_jax.profiling.programs import Inference, Training, compile_quickly
from dfm_jax.profiling.pytorch_baseline import load, step_of
from dfm_jax.profiling.synthetic import synthetic_example
from dfm_jax.runs import log

logger = logging.getLogger(__name__)

CONFIG = "configs/realestate10k.py:64"
SIZE = 32
AT_ITS_SIZE = (
    f"--config.image_size={SIZE}", f"--config.model.estimate_size={SIZE}", "--config.loss.lpips=0",
    "--config.loss.patch_size=16", "--config.model.compute_dtype=float32", *AS_THE_YARDSTICK,
)  # fmt: skip
# Of its training step; its denoising step is the published architecture's.
SMALL = (
    "--config.model.encoder.depth=4", "--config.model.encoder.width=384", "--config.model.encoder.num_heads=6",
    "--config.model.ray_marching.num_coarse=32", "--config.model.ray_marching.num_fine=32",
)  # fmt: skip
Started = tuple[Callable[[], Any], Compiled]


def _training(overrides: Sequence[str]) -> Training:
    config = read_config(CONFIG, [*AT_ITS_SIZE, *SMALL, *overrides])
    training = Training(config)
    logger.info(f"the training step: {told(config, training.config)}")
    return training


def training_step(overrides: Sequence[str]) -> Started:
    training = _training(overrides)
    compiled = training.compile()
    return training.program(compiled).start, compiled


def gradients(overrides: Sequence[str]) -> Started:
    """The training step's loss and the norm of its gradients: of the state that follows, nothing is computed."""
    training, key = _training(overrides), jax.random.key(0)
    metrics = lambda *arguments: training.setup.step(*arguments, *training.setup.frozen_params)[1]
    example = lambda _: synthetic_example(training.config, training.config.train.batch_size)
    given = (training.init, example, lambda key: key)
    compiled = compile_program(metrics, *(jax.eval_shape(make, key) for make in given))
    return partial(compiled.call, *(compile_quickly(make, key) for make in given)), compiled


def inference(name: str, overrides: Sequence[str]) -> Started:
    """A part of `Inference`."""
    made = Inference(read_config(CONFIG, [*AT_ITS_SIZE, "--config.sample.guidance=1", *overrides]))
    compiled = made.compile(name)

    def run(name: str) -> Any:
        part = made.parts[name]
        return compile_quickly(part.function, *[made.arrays(x, run) for x in part.arguments])

    arguments = [made.arrays(x, run) for x in made.parts[name].arguments]
    return partial(compiled.call, *arguments), compiled


PROGRAMS: dict[str, Callable[[Sequence[str]], Started]] = {
    "gradients": gradients,
    "train": training_step,
    "denoise": partial(inference, "denoising step"),
    "sample": partial(inference, "sample"),
}
# The yardstick's program, where it has another name, and how many of it make one.
MADE_OF = {"gradients": ("train", 1), "sample": ("denoise", 50)}


def seconds(start: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(start())
    return time.perf_counter() - began


def alternate(name: str, yardstick: types.ModuleType, rounds: int, overrides: Sequence[str]) -> dict[str, Any]:
    """The numbers of one program; the first run of each warms up."""
    start, compiled = PROGRAMS[name](overrides)
    step, count = MADE_OF.get(name, (name, 1))
    theirs = step_of(yardstick, step, SIZE)
    seconds(theirs), seconds(start)
    pairs = []
    for number in range(rounds):
        pairs.append((count * seconds(theirs), seconds(start)))
        logger.info(f"{name}, round {number + 1}: {pairs[-1][0]:.2f} s in PyTorch, {pairs[-1][1]:.2f} s here")
    return {
        "pytorch_s": statistics.median(a for a, _ in pairs),
        "here_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "rounds": pairs,
        "tflop": compiled.flops / 1e12,
        "temp_bytes": compiled.temp_bytes,
        "load_average": os.getloadavg()[0],
    }


@log.command
def main(argv: Sequence[str]) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yardstick", required=True, metavar="FILE")
    parser.add_argument("--programs", default="train,denoise", metavar="NAMES")
    parser.add_argument("--rounds", default=5, type=int)
    arguments, overrides = parser.parse_known_args(argv)
    names = arguments.programs.split(",")
    if unknown := [name for name in names if name not in PROGRAMS]:
        raise UserError(f"--programs={','.join(unknown)} is not known: choose of {','.join(PROGRAMS)}")
    if not os.path.exists(arguments.yardstick):
        raise UserError(f"--yardstick={arguments.yardstick}: there is no such file")
    platforms.start()
    yardstick = load(pathlib.Path(arguments.yardstick))
    result = {name: alternate(name, yardstick, max(1, arguments.rounds), overrides) for name in names}
    for name, row in result.items():
        speed = f"{row['pytorch_s']:.2f} s in PyTorch, {row['here_s']:.2f} s here, ratio {row['ratio']:.2f}"
        print(f"{name}: {speed}; {row['tflop']:.2f} TFLOP, {row['temp_bytes'] / 1e9:.2f} GB of temporaries")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
