"""A config for a published state dict: its sizes, read from shapes, in the settings of one of our recipes."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from dfm_jax.config import Config, DiTConfig, ModelConfig
from dfm_jax.config.reading import from_dict
from dfm_jax.interop.published import State, StateDictError, token_side
from dfm_jax.interop.published_names import BACKGROUND, FIELDS, POSITION_CODE
from dfm_jax.models.dit import TOKEN_SIDE

COLOUR_AND_DENSITY = 4  # outputs of a field before its features


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What shapes tell of a published model."""

    image_size: int | None  # pixels; None where no position codes are stored
    depth: int  # transformer blocks
    width: int  # channels of a token
    features: int  # channels of a feature map
    absolute_pose: bool
    position_grid: int  # see `DiTConfig`
    rendered_features: int
    field_widths: Mapping[str, int]  # by our names of the fields
    field_blocks: Mapping[str, int]  # residual blocks, before and after views are averaged together
    background: float  # grey, [0, 1]


def read_sizes(state: State) -> Sizes:
    """Sizes of a published state dict.

    Raises:
      StateDictError: if one of the arrays that tell them is not there or has another number of axes.
    """
    side = token_side(state)
    return Sizes(
        image_size=side and side * TOKEN_SIDE,
        depth=_count(state, "model.enc.blocks.{}.attn.qkv.weight"),
        width=_outputs(state, "model.enc.x_embedder.proj.weight", 4),
        features=_outputs(state, "model.enc.cnn_refine.weight", 4),
        absolute_pose=any(name.startswith("model.enc.pose_mlp.") for name in state),
        position_grid=_position_grid(state, side),
        rendered_features=_outputs(state, "model.pixelNeRF_joint.mlp.lin_out_feats.weight", 2) - COLOUR_AND_DENSITY,
        field_widths={ours: _outputs(state, f"model.{theirs}.mlp.lin_in.weight", 2) for theirs, ours in FIELDS.items()},
        field_blocks={
            ours: _count(state, f"model.{theirs}.mlp.blocks.{{}}.fc_0.weight") for theirs, ours in FIELDS.items()
        },
        background=_background(state),
    )


def _outputs(state: State, name: str, axes: int) -> int:
    if name not in state:
        raise StateDictError(f"this is no state dict of the published model: it has no {name}")
    shape = np.shape(state[name])
    if len(shape) != axes or 0 in shape:
        raise StateDictError(f"this is no state dict of the published model: {name} has the shape {shape}")
    return shape[0]


def _count(state: State, pattern: str) -> int:
    """How many of the names made from a pattern and 0, 1, ... are there, without a gap."""
    number = 0
    while pattern.format(number) in state:
        number += 1
    if not number:
        raise StateDictError(f"this is no state dict of the published model: it has no {pattern.format(0)}")
    return number


def _position_grid(state: State, side: int | None) -> int:
    """Tokens a side that the position codes count: the first channel of the first token is the sine of its place."""
    code = np.ravel(state.get(POSITION_CODE, ()))
    if not side or not code.size or not np.issubdtype(code.dtype, np.floating) or not -1 <= code[0] <= 1:
        return 0
    grid = round(side * (2 * float(np.arcsin(code[0])) + 1))
    return 0 if grid == side else grid


def _background(state: State) -> float:
    colour = np.ravel(state.get(BACKGROUND, np.zeros(3)))
    numbers = colour.size == 3 and np.issubdtype(colour.dtype, np.floating)
    if not numbers or not np.all(colour == colour[0]) or not 0 <= colour[0] <= 1:
        raise StateDictError(f"{BACKGROUND} must be a grey in [0, 1], not {colour.tolist()}")
    return float(colour[0])


def check_form(model: ModelConfig) -> None:
    """Makes sure that a model has the published form, whatever its sizes.

    Raises:
      StateDictError: it is a pixelNeRF, or has another encoder or a proposal field.
    """
    if model.name != "radiance_field":
        raise StateDictError(f"published checkpoints are of the model 'radiance_field': this config has '{model.name}'")
    if not isinstance(model.encoder, DiTConfig):
        raise StateDictError(f"published checkpoints have the encoder 'dit': this config has '{model.encoder.name}'")
    if model.proposal is not None:
        raise StateDictError("published checkpoints have a full coarse field: this config has a proposal in its place")


def published_config(base: Config, sizes: Sizes, *, num_heads: int | None, image_size: int | None) -> Config:
    """The settings `base` with a published model's sizes and pixel grid.

    Args:
      num_heads: of the transformer; None: those of `base`, if that is as wide.
      image_size: pixels, to be used at another size than the model was trained at; None: the one it was trained at.

    Raises:
      StateDictError: if one of them is needed and not given, or `base` is the config of another kind of model.
      ConfigError: if the sizes are inconsistent.
    """
    check_form(base.model)
    values = dataclasses.asdict(base)
    encoder = values["model"]["encoder"]
    if num_heads is None and sizes.width != encoder["width"]:
        raise StateDictError(
            f"shapes do not tell the number of attention heads, and the config is not {sizes.width} wide: "
            "say it with --num_heads"
        )
    image_size = image_size or sizes.image_size
    if image_size is None:
        raise StateDictError("no position codes of a square image tell the image size: say it with --image_size")
    encoder |= {"depth": sizes.depth, "width": sizes.width, "features": sizes.features}
    encoder |= {"absolute_pose": sizes.absolute_pose, "position_grid": sizes.position_grid}
    encoder |= {"num_heads": num_heads or encoder["num_heads"]}
    values["image_size"] = image_size
    values["loss"]["patch_size"] = min(base.loss.patch_size, image_size)
    # As the published code computes, unless somebody asked for less.
    if values["model"]["compute_dtype"] in ("auto", "float32"):
        values["model"] |= {"compute_dtype": "float32", "matmul_precision": "highest"}
    values["model"] |= {
        "pixel_grid": "corners",
        "estimate_size": image_size,
        "rendered_features": sizes.rendered_features,
        "ray_marching": values["model"]["ray_marching"] | {"background": sizes.background},
    }
    for name in FIELDS.values():
        values["model"][name] |= _field(name, sizes, values["model"][name]["view_blocks"])
    return from_dict(values)


def _field(name: str, sizes: Sizes, view_blocks: int) -> dict[str, int]:
    blocks = sizes.field_blocks[name]
    if blocks <= view_blocks:
        raise StateDictError(f"the {name} has {blocks} blocks, not more than the {view_blocks} of each view")
    return {"width": sizes.field_widths[name], "view_blocks": view_blocks, "joint_blocks": blocks - view_blocks}
