"""The published model's state dict, name for name: into our parameters and back.

A state dict is a mapping from names (`model.enc...`, `model.pixelNeRF_joint...`) to numpy arrays in PyTorch's layout:
linear kernels `[out, in]`, convolutions `[out, in, h, w]`. Ours are `[in, out]` and `[h, w, in, out]`, transformer
blocks are stacked, and the first layer of a field is two: one for the point code, one for the looked-up features.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from dfm_jax.config import ModelConfig
from dfm_jax.errors import UserError
from dfm_jax.forward_model import Params, RadianceFieldModel

State = Mapping[str, np.ndarray]
Path = tuple[str, ...]

LABEL_EMBEDDING = "model.enc.y_embedder.embedding_table.weight"
TIME_BIAS = "model.enc.t_embedder.mlp.2.bias"

# What a published state dict also holds and the model never reads, or what follows from the sizes alone.
UNUSED = (
    r"model\.enc\.pos_embed",
    r"model\.pixelNeRF_joint(_coarse)?\.pos_enc\._(freqs|phases)",
    r"model\.renderer(_coarse)?\.backgrd_color",
    r"model\.pixelNeRF_joint(_coarse)?\.mlp(_fine)?\.lin_out\.(weight|bias)",
    r"model\.pixelNeRF_joint_coarse\.mlp_fine\..*",
)
# Stored as well where no fine samples are drawn.
FINE_FIELD = r"model\.pixelNeRF_joint\.mlp_fine\..*"


class StateDictError(UserError):
    """Names or shapes of a state dict that are not those of the model."""


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
    scene, conditioning = config.scene_field, config.conditioning_field
    found = list(_encoder_rules(config))
    parts = {"mlp": "coarse"} | ({"mlp_fine": "fine"} if config.ray_marching.num_fine else {})
    for theirs, ours in parts.items():
        path = ("scene_field", ours)
        found += _mlp_rules(f"model.pixelNeRF_joint.{theirs}", path, scene.view_blocks, scene.joint_blocks)
    found += _mlp_rules(
        "model.pixelNeRF_joint_coarse.mlp",
        ("conditioning_field",),
        conditioning.view_blocks,
        conditioning.joint_blocks,
    )
    return found


# Axes of PyTorch's array in the order of ours, and back, by the number of axes: biases, linear kernels, convolutions.
TO_OURS = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
TO_THEIRS = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}


def _at(tree: Params, path: Path) -> np.ndarray:
    for part in path:
        tree = tree[part]
    return tree


def import_params(state: State, model: RadianceFieldModel) -> Params:
    """Our parameters (float32, numpy) from a published state dict.

    The embedding of the only class that the published model uses is added to the bias that it always meets.

    Raises:
      StateDictError: lists every missing, unexpected or ill-shaped array.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.empty(leaf.shape, np.float32), shapes)
    table = rules(model.config)
    problems = [f"missing: {name}" for name in sorted({r.name for r in table} | {LABEL_EMBEDDING}) if name not in state]
    known = {rule.name for rule in table} | {LABEL_EMBEDDING}
    ignored = UNUSED if model.config.ray_marching.num_fine else (*UNUSED, FINE_FIELD)
    unused = lambda name: any(re.fullmatch(pattern, name) for pattern in ignored)
    problems += [f"unexpected: {name} {state[name].shape}" for name in state if name not in known and not unused(name)]
    for rule in table:
        if rule.name in state:
            problems += fill(params, rule, np.asarray(state[rule.name], np.float32))
    if LABEL_EMBEDDING in state:
        problems += _label_problems(np.shape(state[LABEL_EMBEDDING]), model.config.encoder.width)
    if problems:
        raise StateDictError("the state dict is not that of this model:\n  " + "\n  ".join(problems))
    params["encoder"]["time_out"]["bias"] += np.asarray(state[LABEL_EMBEDDING], np.float32)[0]
    return params


def _label_problems(shape: tuple[int, ...], width: int) -> list[str]:
    fits = len(shape) == 2 and shape[0] >= 1 and shape[1] == width
    return [] if fits else [f"shape of {LABEL_EMBEDDING}: {shape}, needed (classes, {width})"]


def fill(params: Params, rule: Rule, theirs: np.ndarray) -> list[str]:
    """Writes one array into `params`; returns what is wrong with its shape."""
    targets = [_at(params, path) for path in rule.paths]
    if rule.layer is not None:
        targets = [target[rule.layer] for target in targets]
    inputs = sum(target.shape[0] for target in targets)
    expected = (inputs, *targets[0].shape[1:])
    needed = tuple(expected[axis] for axis in TO_THEIRS[len(expected)])
    if theirs.shape != needed:
        return [f"shape of {rule.name}: {theirs.shape}, needed {needed}"]
    ours = theirs.transpose(TO_OURS[theirs.ndim])
    start = 0
    for target in targets:
        target[...] = ours[start : start + target.shape[0]]
        start += target.shape[0]
    return []


def export_arrays(params: Params, model: RadianceFieldModel) -> dict[str, np.ndarray]:
    """Our parameters (or their gradients) under the published names and in PyTorch's layout.

    The inverse of `import_params`, but for the label embedding, which stays folded into the time embedding's bias.
    """
    state = {}
    for rule in rules(model.config):
        arrays = [np.asarray(_at(params, path)) for path in rule.paths]
        if rule.layer is not None:
            arrays = [array[rule.layer] for array in arrays]
        joined = np.concatenate(arrays, axis=0)
        state[rule.name] = joined.transpose(TO_THEIRS[joined.ndim])
    return state
