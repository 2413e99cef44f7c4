"""Weights of I3D, the network of FVD, from a file that the user names: a state dict with pytorch-i3d's names.

`i3d_pretrained_400.pt` of VideoGPT and those who took it from there is the network of published FVDs (trained on
Kinetics-400 by DeepMind, ported); `rgb_imagenet.pt` of pytorch-i3d has the same form. `i3d_torchscript.pt` is a
program, which is not run.
"""

import pathlib

import numpy as np

from dfm_jax.interop.normalised_convolutions import Params, channels_last, folded, not_weights
from dfm_jax.interop.state_files import read_state
from dfm_jax.models import i3d

LOGITS = "logits"
UNUSED = r".*\.num_batches_tracked"


def load(path: str | pathlib.Path) -> Params:
    """Reads the weights; `.pt` and `.pth` need torch, `.safetensors` and `.npz` do not.

    Raises:
      UserError: the file cannot be read, or lacks arrays, or has others or other shapes.
    """
    state = read_state(path)
    needed = i3d.shapes()
    *_, inputs, outputs = needed.pop(LOGITS)["kernel"].shape
    last = {f"{LOGITS}.conv3d.weight": (outputs, inputs, 1, 1, 1), f"{LOGITS}.conv3d.bias": (outputs,)}
    is_not = not_weights(path, "I3D (pytorch-i3d's names, 400 classes)")
    params = folded(state, needed, "conv3d", last, UNUSED, is_not)
    kernel, bias = (state[name] for name in last)
    return params | {LOGITS: {"kernel": channels_last(kernel), "bias": np.asarray(bias, np.float32)}}
