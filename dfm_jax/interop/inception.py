"""Weights of Inception v3 from a file that the user names: torchvision's state dict, or the port of the network that
published FIDs are computed with.

`inception_v3_google-0cc3c7bd.pth` is torchvision's; `pt_inception-2015-12-05-6726825d.pth`, of the package pytorch-fid,
is the port. The two have the same names; the port tells 1008 classes apart and lacks the auxiliary classifier.
"""

import dataclasses
import pathlib
import re

import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.interop.imagenet import fold_batch_norm
from dfm_jax.interop.state_files import read_state
from dfm_jax.models import inception

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
BATCH_NORM_EPSILON = 1e-3
CLASSIFIER = "fc.weight"
PUBLISHED_CLASSES = 1008  # of the network of published FIDs; torchvision's tells 1000 apart
UNUSED = r"AuxLogits\..*|fc\.(weight|bias)|.*\.num_batches_tracked"
LISTED = 10  # problems that an error lists; a wrong file has hundreds


@dataclasses.dataclass(frozen=True)
class InceptionWeights:
    params: dict[str, dict[str, np.ndarray]]  # float32, as `models.inception` names them
    published_fid: bool  # which of the two networks they are of


def load(path: str | pathlib.Path) -> InceptionWeights:
    """Reads the weights; `.pt` and `.pth` need torch, `.safetensors` and `.npz` do not.

    Raises:
      UserError: the file cannot be read, or lacks arrays, or has others or other shapes.
    """
    state = read_state(path)
    needed = inception.shapes()
    names = {f"{layer}.conv.weight" for layer in needed}
    names |= {f"{layer}.bn.{part}" for layer in needed for part in BATCH_NORM} | {CLASSIFIER}
    problems = [f"missing: {name}" for name in sorted(names - state.keys())]
    problems += [f"unexpected: {name}" for name in state if name not in names and not re.fullmatch(UNUSED, name)]
    problems += [f"not finite: {name}" for name in names & state.keys() if not np.isfinite(state[name]).all()]
    if not problems:
        problems = [problem for layer, leaves in needed.items() for problem in _shape_problems(state, layer, leaves)]
    if problems:
        more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        lines = "\n  ".join(problems[:LISTED] + more)
        raise UserError(
            f"{path} does not hold the weights of Inception v3 (torchvision's, or pytorch-fid's):\n  {lines}"
        )
    return InceptionWeights(
        params={layer: _folded(state, layer) for layer in needed},
        published_fid=len(state[CLASSIFIER]) == PUBLISHED_CLASSES,
    )


def _shape_problems(state: dict[str, np.ndarray], layer: str, leaves: dict) -> list[str]:
    height, width, inputs, outputs = leaves["kernel"].shape
    wanted = {f"{layer}.conv.weight": (outputs, inputs, height, width)}
    wanted |= {f"{layer}.bn.{part}": (outputs,) for part in BATCH_NORM}
    return [
        f"{name} is {state[name].shape}, not {shape}" for name, shape in wanted.items() if state[name].shape != shape
    ]


def _folded(state: dict[str, np.ndarray], layer: str) -> dict[str, np.ndarray]:
    vectors = (np.asarray(state[f"{layer}.bn.{part}"], np.float64) for part in BATCH_NORM)
    kernel, bias = fold_batch_norm(
        np.asarray(state[f"{layer}.conv.weight"], np.float64), *vectors, epsilon=BATCH_NORM_EPSILON
    )
    return {"kernel": kernel.transpose(2, 3, 1, 0).astype(np.float32), "bias": bias.astype(np.float32)}
