"""Samples from a model that --mode=export wrote: python sample_exported.py FOLDER; needs jax, flatbuffers and numpy."""

import hashlib
import itertools
import json
import pathlib
import sys

import jax
import numpy as np

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
    for t, after in itertools.pairwise(np.arange(about["num_steps"], -1, -1) * (len(a) - 1) // about["num_steps"] - 1):
        x0 = denoise(params, inputs, x, np.full(len(x), t, np.int32))
        x = a[after] ** 0.5 * x0 + ((1 - a[after]) / (1 - a[t])) ** 0.5 * (x - a[t] ** 0.5 * x0)  # DDIM
except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
    sys.exit(f"error: {folder} holds no whole export ({error!r}): write it again with --mode=export")
np.save(folder / "samples.npy", x)  # [b, h, w, 3] in [-1, 1], or of another shape
