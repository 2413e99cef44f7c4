"""Samples from a model that --mode=export wrote: python sample_exported.py FOLDER; needs jax, flatbuffers and numpy."""

import hashlib
import itertools
import json
import pathlib
import sys

import jax
import numpy as np

if len(sys.argv) != 2:
    sys.exit(__doc__)
folder = pathlib.Path(sys.argv[1])
try:
    about = json.loads((folder / "export.json").read_text())
    for name, sha256 in about["sha256"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
            raise ValueError(f"{name} is damaged")
    denoise = jax.jit(jax.export.deserialize((folder / "denoiser.jax_export").read_bytes()).call)
    params, inputs = (dict(np.load(folder / f"{name}.npz")) for name in ("params", "inputs"))
    shape = len(next(iter(inputs.values()))), *about.get("shape", [about["image_size"]] * 2 + [3])
    a = np.append(about["alpha_bar"], 1.0).astype(np.float32)  # a[-1]: clean
    x = about["temperature"] * np.random.default_rng(0).normal(size=shape).astype("f")
    T, first = len(a) - 1, x
    if solver := about.get("solver"):  # fitted: states are of the first noise and averages D of all predictions
        a_s, seen = [1 / (1 + np.exp(-2 * np.float32(y))) for y in solver["log_snr"]] + [1.0], []
        for t, weights, s in zip(solver["timesteps"], solver["weights"], a_s, strict=True):
            seen.append(x0 := denoise(params, inputs, x, np.full(len(x), t, np.int32)))
            D = x0 + sum(weight * (earlier - x0) for weight, earlier in zip(weights, seen, strict=False))
            x = s**0.5 * D + ((1 - s) / (1 - a[T - 1])) ** 0.5 * (first - a[T - 1] ** 0.5 * D)
    else:
        for t, after in itertools.pairwise(np.arange(n := about["num_steps"], -1, -1) * T // n - 1):
            x0 = denoise(params, inputs, x, np.full(len(x), t, np.int32))
            x = a[after] ** 0.5 * x0 + ((1 - a[after]) / (1 - a[t])) ** 0.5 * (x - a[t] ** 0.5 * x0)  # DDIM
except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
    sys.exit(f"error: {folder} holds no whole export ({error!r}): write it again with --mode=export")
np.save(folder / "samples.npy", x)  # [b, h, w, 3] in [-1, 1], or of another shape
