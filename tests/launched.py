"""What processes do that tests start as a launcher of clusters does:

python -m tests.launched modes | join | fail [RANK|both]
"""

import json
import sys
import time

import jax

from dfm_jax.errors import UserError
from dfm_jax.training import cluster


def modes():
    """Prints what each mode but training says to being one of several processes."""
    from dfm_jax import main

    main.parse_flags(sys.argv[:1])
    for mode in main.MODES:
        if mode != "train":
            try:
                main.join_others(mode)
            except UserError as error:
                print(error)


def join():
    """Joins the others, and prints who it is and how many processes and devices there are."""
    cluster.join(cluster.choose(None, "", None, None))
    print(json.dumps([jax.process_index(), jax.process_count(), jax.device_count()]))


def fail(rank):
    """Joins the others, and fails, or does not; 'both' fail."""
    place = cluster.choose(None, "", None, None)
    cluster.join(place)
    with cluster.leaving_after_errors():
        if rank in ("both", str(place.process_id)):
            raise UserError(f"shard {place.process_id} is gone")
        time.sleep(1000)


if __name__ == "__main__":
    {"modes": modes, "join": join, "fail": fail}[sys.argv[1]](*sys.argv[2:])
