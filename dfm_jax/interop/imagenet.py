"""Encoders that start from public ImageNet weights, given as a file.

`resnet34`: torchvision's state dict (`ResNet34_Weights.IMAGENET1K_V1`, `resnet34-b627a593.pth`). Statistics of batch
normalisation are folded into the convolutions; layer 4 and the classifier are dropped. The stem of noisy views has more
channels than a photograph: half of the first convolution goes to the noisy image, half to the estimate's colours, and
nothing to the rest, so that the layers behind it see about what they were trained on, a picture.

`dit`: the transformer of Peebles and Xie (2023) at 256 x 256 (`DiT-XL-2-256x256.pt`; the config has depth=28,
width=1152, num_heads=16). Its blocks and its embedding of time are taken; its first and last layers, which are for the
latent codes of an autoencoder, are not. Of its labels the last one is taken, 'no class', with which it was trained to
be unconditional (class 0, which the published forward model always says, would be a fish here); as in
`published` it becomes part of the bias that it always meets.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from dfm_jax.config import ResNet34Config
from dfm_jax.forward_models.protocol import Params, parameter_shapes
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel
from dfm_jax.interop.published import State, StateDictError, fill
from dfm_jax.interop.published_names import LABEL_EMBEDDING, Path, Rule, layer_rules, rules
from dfm_jax.interop.state_files import read_state
from dfm_jax.models.resnet import BLOCKS

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
BATCH_NORM_EPSILON = 1e-5
LISTED = 20  # lines of an error, which for a wrong file would be hundreds
PREFIX = "model.enc."  # of the published forward model's names for the same layers

# What a file holds besides, by the name it is reported under.
RESNET_DROPPED = {"layer4": r"layer4\..*", "fc": r"fc\..*", "num_batches_tracked": r".*\.num_batches_tracked"}
DIT_TAKEN = r"blocks\..*|t_embedder\..*"
DIT_DROPPED = {name: rf"{name}(\..*)?" for name in ("x_embedder", "pos_embed", "final_layer")}


@dataclasses.dataclass(frozen=True)
class EncoderWeights:
    """Some of an encoder's arrays (float32, numpy, by their paths in its parameters), and a report for the user: what
    is taken, what is new, and what is dropped."""

    arrays: dict[Path, np.ndarray]
    report: str


def load_encoder(path: str | pathlib.Path, model: RadianceFieldModel) -> EncoderWeights:
    """Reads the weights that the model's encoder can start from.

    Args:
      path: a state dict, `.pt`, `.pth` (needs torch), `.safetensors` or `.npz`.

    Raises:
      UserError: if the file cannot be read, or (StateDictError) lacks arrays, or has others or other shapes.
    """
    state = read_state(path)
    shapes = parameter_shapes(model)["encoder"]
    params = {"encoder": jax.tree.map(lambda leaf: np.empty(leaf.shape, np.float32), shapes)}
    is_resnet = isinstance(model.config.encoder, ResNet34Config)
    fill_encoder = _fill_resnet if is_resnet else _fill_dit
    problems, taken = fill_encoder(params, state, model)
    if problems:
        more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        lines = "\n  ".join(problems[:LISTED] + more)
        raise StateDictError(f"{path} does not fit config.model.encoder ({model.config.encoder.name}):\n  {lines}")
    flat = {tuple(part.key for part in at): leaf for at, leaf in jax.tree_util.tree_leaves_with_path(params["encoder"])}
    new = [at for at in flat if at not in taken]
    dropped = RESNET_DROPPED if is_resnet else DIT_DROPPED
    lines = [
        f"encoder {model.config.encoder.name}, from {path}:",
        f"  taken: {_summary(taken)}",
        f"  new: {_summary(new)}",
        f"  dropped: {', '.join(name for name, known in dropped.items() if _any_match(known, state)) or 'nothing'}",
    ]
    return EncoderWeights({at: flat[at] for at in taken}, "\n".join(lines))


def _fill_resnet(params: Params, state: State, model: RadianceFieldModel) -> tuple[list[str], list[Path]]:
    """Writes torchvision's arrays into `params`; what is wrong with them, and the paths of those written."""
    convolutions = list(_resnet_convolutions())
    needed = [f"{conv}.weight" for conv, _, _ in convolutions]
    needed += [f"{norm}.{part}" for _, norm, _ in convolutions for part in BATCH_NORM]
    problems = _name_problems(state, needed, RESNET_DROPPED)
    taken = []
    for conv, norm, path in convolutions:
        names = [f"{conv}.weight", *(f"{norm}.{part}" for part in BATCH_NORM)]
        if not all(name in state for name in names):
            continue
        kernel, *vectors = (np.asarray(state[name], np.float64) for name in names)
        if kernel.ndim != 4 or {vector.shape for vector in vectors} != {kernel.shape[:1]}:
            shapes = ", ".join(str(np.shape(state[name])) for name in names)
            problems.append(f"shapes of {conv} and {norm} do not go together: {shapes}")
            continue
        kernel_rule, bias_rule = layer_rules(conv, ("encoder", *path))
        kernel, bias = fold_batch_norm(kernel, *vectors)
        problems += fill(params, kernel_rule, kernel) or fill(params, bias_rule, bias)
        taken += [(*path, "kernel"), (*path, "bias")]
    clean, noisy = params["encoder"]["clean_stem"], params["encoder"].get("noisy_stem")
    if noisy:  # pixelNeRF has none
        noisy["kernel"][...] = 0
        noisy["kernel"][:, :, 0:3] = noisy["kernel"][:, :, 3:6] = clean["kernel"] / 2
        noisy["bias"][...] = clean["bias"]
        taken += [("noisy_stem", "kernel"), ("noisy_stem", "bias")]
    return problems, taken


def _resnet_convolutions() -> Iterator[tuple[str, str, Path]]:
    """torchvision's names of a convolution and of the normalisation behind it, and the path of ours."""
    yield "conv1", "bn1", ("clean_stem",)
    for layer, count in enumerate(BLOCKS, start=1):
        for i in range(count):
            theirs, ours = f"layer{layer}.{i}", f"layer{layer}_{i}"
            yield f"{theirs}.conv1", f"{theirs}.bn1", (ours, "conv_0")
            yield f"{theirs}.conv2", f"{theirs}.bn2", (ours, "conv_1")
            if layer > 1 and i == 0:
                yield f"{theirs}.downsample.0", f"{theirs}.downsample.1", (ours, "shortcut")


def fold_batch_norm(
    kernel: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float = BATCH_NORM_EPSILON,
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel `[out, in, ...]` and bias `[out]` of the convolution that equals one without bias and the (evaluated, not
    trained) batch normalisation behind it."""
    factor = scale / np.sqrt(variance + epsilon)
    return kernel * factor.reshape(-1, *(1,) * (kernel.ndim - 1)), bias - mean * factor


def _fill_dit(params: Params, state: State, model: RadianceFieldModel) -> tuple[list[str], list[Path]]:
    """As `_fill_resnet`, for the ImageNet DiT: it names its layers as the published forward model names its own."""
    published = (rule for rule in rules(model.config) if rule.name.startswith(PREFIX))
    own = (dataclasses.replace(rule, name=rule.name.removeprefix(PREFIX)) for rule in published)
    table: list[Rule] = [rule for rule in own if re.fullmatch(DIT_TAKEN, rule.name)]
    label = LABEL_EMBEDDING.removeprefix(PREFIX)
    problems = _name_problems(state, [*(rule.name for rule in table), label], DIT_DROPPED)
    for rule in table:
        if rule.name in state:
            problems += fill(params, rule, np.asarray(state[rule.name], np.float32))
    if label in state:
        shape, width = np.shape(state[label]), model.config.encoder.width
        if len(shape) != 2 or shape[0] < 2 or shape[1] != width:
            problems.append(f"shape of {label}: {shape}, needed (classes + 1, {width})")
        else:
            params["encoder"]["time_out"]["bias"] += np.asarray(state[label], np.float32)[-1]
    return problems, sorted({path[1:] for rule in table for path in rule.paths})


def _name_problems(state: State, needed: list[str], dropped: Mapping[str, str]) -> list[str]:
    known = set(needed)
    unexpected = [
        name for name in state if name not in known and not any(re.fullmatch(p, name) for p in dropped.values())
    ]
    problems = [f"missing: {name}" for name in needed if name not in state]
    problems += [f"unexpected: {name} {np.shape(state[name])}" for name in unexpected]
    return problems + [f"not finite: {name}" for name in needed if name in state and not np.isfinite(state[name]).all()]


def _any_match(pattern: str, state: State) -> bool:
    return any(re.fullmatch(pattern, name) for name in state)


def _summary(paths: list[Path]) -> str:
    """The layers of some arrays, with a star for the numbers of blocks."""
    layers = dict.fromkeys(re.sub(r"_\d+", "_*", "/".join(path[:-1])) for path in sorted(paths))
    return ", ".join(layers) or "nothing"
