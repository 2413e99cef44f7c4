"""What processes do that tests start as a launcher of clusters does:

python -m tests.launched modes | join | fail [RANK|both] | main PIXELS_AT_ONCE MODULE ARGUMENTS
"""

import importlib
import json
import sys
import time

import jax
import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.runs import barriers, cluster, log


def modes():
    """Prints what each mode for one process says to being one of several."""
    from dfm_jax import main

    main.parse_flags(sys.argv[:1])
    for mode in main.MODES:
        if mode not in main.DISTRIBUTED_MODES:
            try:
                main.initialize_processes(mode)
            except UserError as error:
                print(error)


def join():
    """Joins the others, and prints who it is, how many processes and devices there are, and what all have sent."""
    cluster.initialize(cluster.resolve(None, "", None, None))
    own = np.full(3_000_000 * jax.process_index(), jax.process_index())
    sent = [[x.size, int(x.sum())] for x in barriers.gather(own)]
    print(json.dumps([jax.process_index(), jax.process_count(), jax.device_count(), sent]))


def fail(rank):
    """Joins the others, and fails, or does not; 'both' fail."""
    spec = cluster.resolve(None, "", None, None)
    cluster.initialize(spec)
    with cluster.exit_on_error():
        if rank in ("both", str(spec.process_id)):
            raise UserError(f"shard {spec.process_id} is gone")
        time.sleep(1000)


def main(pixels_at_once, module, *arguments):
    """A command of the package, which computes few samples at a time; a benchmark multiplies small matrices."""
    from dfm_jax.profiling import programs
    from dfm_jax.sampling import batches, signals

    batches.PIXELS_AT_ONCE = int(pixels_at_once)
    signals.NUMBERS_AT_ONCE = 100
    programs.PRODUCT_SIDE["cpu"] = 256
    shorten_studies(setattr)
    sys.argv = [module, *arguments]
    command = importlib.import_module(module)
    sys.exit(command.main() if module == "dfm_jax.main" else command.main(list(arguments)))


def shorten_studies(patch):
    """Leaves a few points of each sweep; `patch` is `setattr`."""
    from dfm_jax.evaluation.calibration import calibrate
    from dfm_jax.studies import guidance_sweep, steps_sweep

    patch(calibrate, "STEPS", (1, 2))
    patch(steps_sweep, "STEPS", (1,))
    patch(steps_sweep, "LONG", 2)
    patch(steps_sweep, "SAMPLERS", ("ddim",))
    patch(guidance_sweep, "SCALES", (1.0, 2.0, 3.0))
    # Not rescaling: the grey images of an untrained model have hardly any contrast that could be divided by.
    patch(guidance_sweep, "CURES", {name: guidance_sweep.CURES[name] for name in ("none", "interval")})


if __name__ == "__main__":
    log.to_terminal()
    {"modes": modes, "join": join, "fail": fail, "main": main}[sys.argv[1]](*sys.argv[2:])
