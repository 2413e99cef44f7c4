"""The published model's state dict, name for name: which arrays there are, of which shapes, and where they go.

A state dict is a mapping from names (`model.enc...`, `model.pixelNeRF_joint...`) to numpy arrays in PyTorch's layout:
linear kernels `[out, in]`, convolutions `[out, in, h, w]`. Ours are `[in, out]` and `[h, w, in, out]`, transformer
blocks are stacked, and the first layer of a field is two: one for the point code, one for the looked-up features.

Its arrays are of three kinds. Those that are *taken* are our parameters; `rules` lists them. Those that are *derived*
follow from sizes and settings. *Leftovers* are stored there and never read.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from dfm_jax.config import ModelConfig
from dfm_jax.forward_models.protocol import Params, parameter_shapes
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel
from dfm_jax.models.embeddings import token_position_code

Path = tuple[str, ...]
Shapes = dict[str, tuple[int, ...]]

LABEL_EMBEDDING = "model.enc.y_embedder.embedding_table.weight"
TIME_BIAS = "model.enc.t_embedder.mlp.2.bias"

FIELDS = {"pixelNeRF_joint": "scene_field", "pixelNeRF_joint_coarse": "conditioning_field"}
POSITION_CODE = "model.enc.pos_embed"
BACKGROUND = "model.renderer.backgrd_color"
LABELS = 1001  # ImageNet's, and the one that stands for none; the model only ever uses label 0


@dataclasses.dataclass(frozen=True)
class Rule:
    """One published array and where it goes: to several of our arrays if it is cut along its inputs, into row `layer`
    of stacked transformer blocks if that is not None."""

    name: str
    paths: tuple[Path, ...]
    layer: int | None = None


def layer_rules(name: str, path: Path, layer: int | None = None, bias: bool = True) -> Iterator[Rule]:
    yield Rule(f"{name}.weight", ((*path, "kernel"),), layer)
    if bias:
        yield Rule(f"{name}.bias", ((*path, "bias"),), layer)


def _encoder_rules(config: ModelConfig) -> Iterator[Rule]:
    names = {
        "x_embedder.proj": "patch_embedding",
        "t_embedder.mlp.0": "time_in",
        "t_embedder.mlp.2": "time_out",
        "final_layer.linear": "final",
        "final_layer.adaLN_modulation.1": "final_modulation",
        "cnn_skip": "skip",
        "cnn_refine": "refine",
    }
    if config.encoder.absolute_pose:
        names |= {"pose_mlp.0": "pose_in", "pose_mlp.2": "pose_out", "fuse_mlp.0": "fuse_in", "fuse_mlp.2": "fuse_out"}
    for theirs, ours in names.items():
        yield from layer_rules(f"model.enc.{theirs}", ("encoder", ours))
    for theirs, ours in {"conv1": "clean_stem", "general_conv1": "noisy_stem"}.items():
        yield from layer_rules(f"model.enc.{theirs}", ("encoder", ours), bias=False)
    block = {
        "attn.qkv": "qkv",
        "attn.proj": "attention_out",
        "mlp.fc1": "mlp_in",
        "mlp.fc2": "mlp_out",
        "adaLN_modulation.1": "modulation",
    }
    for i in range(config.encoder.depth):
        for theirs, ours in block.items():
            yield from layer_rules(f"model.enc.blocks.{i}.{theirs}", ("encoder", "blocks", ours), layer=i)


def _mlp_rules(name: str, path: Path, view_blocks: int, joint_blocks: int) -> Iterator[Rule]:
    yield Rule(f"{name}.lin_in.weight", ((*path, "point_in", "kernel"), (*path, "feature_in", "kernel")))
    yield Rule(f"{name}.lin_in.bias", ((*path, "feature_in", "bias"),))
    yield from layer_rules(f"{name}.time_mlp.1", (*path, "time_in"))
    yield from layer_rules(f"{name}.time_mlp.3", (*path, "time_out"))
    yield from layer_rules(f"{name}.lin_out_feats", (*path, "out"))
    blocks = [f"view_blocks_{i}" for i in range(view_blocks)] + [f"joint_blocks_{i}" for i in range(joint_blocks)]
    for i, block in enumerate(blocks):
        for theirs, ours in {"fc_0": "fc_0", "fc_1": "fc_1", "mlp.1": "film"}.items():
            yield from layer_rules(f"{name}.blocks.{i}.{theirs}", (*path, block, ours))


def rules(config: ModelConfig) -> list[Rule]:
    """All arrays that a model of these sizes takes from a published state dict."""
    found = list(_encoder_rules(config))
    for theirs, ours in FIELDS.items():
        sizes, path = getattr(config, ours), (ours,)
        parts = {"mlp": path}
        if ours == "scene_field":
            parts = {"mlp": (*path, "coarse")}
            if config.ray_marching.num_fine:
                parts["mlp_fine"] = (*path, "fine")
        for part, path in parts.items():
            found += _mlp_rules(f"model.{theirs}.{part}", path, sizes.view_blocks, sizes.joint_blocks)
    return found


# Axes of PyTorch's array in the order of ours, and back, by the number of axes: biases, linear kernels, convolutions.
TO_OURS = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
TO_THEIRS = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}


def targets(params: Params, rule: Rule) -> list[Any]:
    """The arrays of `params` that a published one goes to, without the axis of the layers."""
    found = []
    for path in rule.paths:
        leaf = params
        for part in path:
            leaf = leaf[part]
        found.append(leaf if rule.layer is None else leaf[rule.layer])
    return found


def taken_shapes(model: RadianceFieldModel) -> Shapes:
    """Names and shapes, in PyTorch's layout, of all arrays that are taken."""
    # Views of one number: shapes without memory, from which layers can be taken.
    empty = lambda leaf: np.broadcast_to(np.float32(0), leaf.shape)
    params = jax.tree.map(empty, parameter_shapes(model))
    return {rule.name: published_shape(targets(params, rule)) for rule in rules(model.config)}


def published_shape(parts: Sequence[Any]) -> tuple[int, ...]:
    """Shape, in PyTorch's layout, of the array that our arrays `parts` are cut from."""
    joined = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return tuple(joined[axis] for axis in TO_THEIRS[len(joined)])


def unused_shapes(config: ModelConfig, taken: Shapes) -> Shapes:
    """Names and shapes of the arrays that are stored and never read: the output layer that another replaced, and fine
    MLPs where nothing is rendered with them. The label embedding is not among them."""
    shapes = {}
    for theirs, ours in FIELDS.items():
        prefix = f"model.{theirs}.mlp."
        coarse = {name: shape for name, shape in taken.items() if name.startswith(prefix)}
        width = getattr(config, ours).width
        coarse |= {f"{prefix}lin_out.weight": (4, width), f"{prefix}lin_out.bias": (4,)}
        fine = {name.replace(".mlp.", ".mlp_fine.", 1): shape for name, shape in coarse.items()}
        shapes |= coarse | fine
    return {name: shape for name, shape in shapes.items() if name not in taken}


def derived_arrays(config: ModelConfig, side: int) -> dict[str, np.ndarray]:
    """The arrays that follow from sizes and settings, for `side * side` tokens."""
    octave = np.arange(6)
    code = token_position_code(side, side, config.encoder.width, config.encoder.position_grid)
    derived = {POSITION_CODE: code[None]}
    for field in FIELDS:
        derived[f"model.{field}.pos_enc._freqs"] = np.repeat(1.5 * 2.0**octave, 2).astype(np.float32)[None, :, None]
        derived[f"model.{field}.pos_enc._phases"] = np.tile(np.float32([0, np.pi / 2]), 6)[None, :, None]
    for renderer in ("renderer", "renderer_coarse"):
        derived[f"model.{renderer}.backgrd_color"] = np.full(3, config.ray_marching.background, np.float32)
    return derived
