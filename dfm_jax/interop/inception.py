"""Weights of Inception v3 from a file that the user names: torchvision's state dict, or the port of the network that
published FIDs are computed with.

`inception_v3_google-0cc3c7bd.pth` is torchvision's; `pt_inception-2015-12-05-6726825d.pth`, of the package pytorch-fid,
is the port. The two have the same names; the port tells 1008 classes apart and lacks the auxiliary classifier.
"""

import dataclasses
import pathlib

from dfm_jax.interop.normalised_convolutions import Params, folded, not_weights
from dfm_jax.interop.state_files import read_state
from dfm_jax.models import inception

CLASSIFIER = "fc.weight"
PUBLISHED_CLASSES = 1008  # of the network of published FIDs; torchvision's tells 1000 apart
UNUSED = r"AuxLogits\..*|fc\.(weight|bias)|.*\.num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class InceptionWeights:
    params: Params  # float32, as `models.inception` names them
    published_fid: bool  # which of the two networks they are of


def load(path: str | pathlib.Path) -> InceptionWeights:
    """Reads the weights; `.pt` and `.pth` need torch, `.safetensors` and `.npz` do not.

    Raises:
      UserError: the file cannot be read, or lacks arrays, or has others or other shapes.
    """
    state = read_state(path)
    is_not = not_weights(path, "Inception v3 (torchvision's, or pytorch-fid's)")
    params = folded(state, inception.shapes(), "conv", {CLASSIFIER: None}, UNUSED, is_not)
    return InceptionWeights(params, published_fid=len(state[CLASSIFIER]) == PUBLISHED_CLASSES)
