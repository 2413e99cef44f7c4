"""The last step of `make demo`: one page about what two models sampled for the same photographs.

    python -m dfm_jax.studies.demo --out=DIR HEADING=SAMPLES HEADING=SAMPLES

Each SAMPLES is a folder that `--mode=sample --out=SAMPLES` wrote. The last line is one JSON object.
"""

import json
import logging
import sys
from pathlib import Path

from dfm_jax.pages.demo_page import write_demo_page
from dfm_jax.runs import log
from dfm_jax.studies.arguments import named_runs

logger = logging.getLogger(__name__)


@log.command
def main(argv: list[str]) -> int:
    runs, out = named_runs(argv, __doc__)
    page = write_demo_page(out, {name: Path(folder) for name, folder in runs.items()})
    logger.info("look at file://%s", page.resolve())
    print(json.dumps({"page": str(page)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
