"""torchvision, its networks without weights, and a made-up state dict of its resnet34, or of a narrower one."""

import contextlib
import types
from collections.abc import Iterator

import numpy as np
import pytest

BLOCKS = (3, 4, 6, 3)


def import_torchvision() -> tuple[types.ModuleType, types.ModuleType]:
    """torch and torchvision; where they are not installed, the test is skipped."""
    reason = "compares with torchvision: make .venv/.installed-reference"
    torch, torchvision = (pytest.importorskip(name, reason=reason) for name in ("torch", "torchvision"))
    torch.set_num_threads(1)  # several would spin while they wait for each other, and for the other tests
    return torch, torchvision


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Networks of torch that are made meanwhile have any weights: drawing what is replaced would take the longest."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "constant_", "ones_", "zeros_"):
            patch.setattr(torch.nn.init, name, lambda weights, *_, **__: weights)
        yield


def resnet34_state(base: int, classes: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of a size that keeps the signal's, and random statistics, under torchvision's names."""
    rng = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}

    def convolution(name: str, norm: str, inputs: int, outputs: int, size: int) -> None:
        kernel = rng.normal(size=(outputs, inputs, size, size)) * np.sqrt(2 / (inputs * size**2))
        vectors = {
            "weight": rng.uniform(0.3, 1.0, outputs),
            "bias": 0.2 * rng.normal(size=outputs),
            "running_mean": 0.5 * rng.normal(size=outputs),
            "running_var": rng.uniform(0.3, 3.0, outputs),
        }
        state.update({f"{name}.weight": kernel, **{f"{norm}.{part}": value for part, value in vectors.items()}})
        state[f"{norm}.num_batches_tracked"] = np.array(7)

    convolution("conv1", "bn1", 3, base, 7)
    inputs = base
    for layer, count in enumerate(BLOCKS, start=1):
        outputs = base * 2 ** (layer - 1)
        for i in range(count):
            name = f"layer{layer}.{i}"
            convolution(f"{name}.conv1", f"{name}.bn1", inputs, outputs, 3)
            convolution(f"{name}.conv2", f"{name}.bn2", outputs, outputs, 3)
            if inputs != outputs:
                convolution(f"{name}.downsample.0", f"{name}.downsample.1", inputs, outputs, 1)
            inputs = outputs
    state |= {"fc.weight": rng.normal(size=(classes, inputs)), "fc.bias": np.zeros(classes)}
    return {name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in state.items()}
