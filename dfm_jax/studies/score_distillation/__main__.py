"""Why distillation burns and sampling does not: score distillation measured against a known posterior.

    python -m dfm_jax.studies.score_distillation --workdir=toy [--methods=ddim,sds-7.5,...] [--evaluations=64]
        [--results=200] [--target=image|scene|image,scene] [--out=DIR] [--config.FIELD=VALUE ...]

Optimises the target view itself (of `configs/linear.py`, the target vector) with the gradients of each method, or
samples it, at the same number of evaluations of the denoiser for each result; or as a scene, a grid of density and
colour that is rendered at random cameras, and at the photograph's, where it is to look as that does. METHODS are ddim,
dpm-solver++, cfg++, sds, sjc, csd, nfsd, dds, vsd, esd, sdi, ism and carv, with the scale of guidance behind a hyphen:
sds-100.

Writes `index.html`, its pictures, and `score_distillation.json` to `<workdir>/score_distillation/`; the last line on
standard output is that JSON. Results of the same model and settings that are there are not computed again, so that a
study that was interrupted goes on. `seconds` are those of all results of a method, but for compiling.
`docs/score-distillation.md` says what the measures are, and what was found.
"""

import json
import logging
import sys
from functools import partial

from dfm_jax.errors import Parser, UserError
from dfm_jax.runs import log
from dfm_jax.runs.barriers import is_first
from dfm_jax.studies.arguments import count, run_sweep
from dfm_jax.studies.score_distillation.methods import method_of
from dfm_jax.studies.score_distillation.study import FILE, OURS, Options, study

logger = logging.getLogger(__name__)

METHODS = "ddim,dpm-solver++,sds-1,sds-7.5,sds-100,csd,nfsd,vsd,sdi,cfg++"


@log.command
def main(argv: list[str]) -> int:
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--evaluations", type=count, default=64)
    parser.add_argument("--results", type=count, default=200)
    parser.add_argument("--target", choices=("image", "scene", "image,scene"), default="image")
    own, rest = parser.parse_known_args(argv)
    names = tuple(dict.fromkeys(name.strip() for name in own.methods.split(",") if name.strip()))
    if not names:
        raise UserError("--methods names none")
    options = Options(
        {name: method_of(name) for name in names}, own.evaluations, own.results, tuple(own.target.split(","))
    )
    result, folder = run_sweep(
        rest, __doc__, partial(study, options=options), name="score_distillation", ours=OURS, marker=FILE
    )
    logger.info(f"look at {folder / 'index.html'}")
    if is_first():
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
