"""What a call says of the cameras and bounds of its photographs or views."""

import dataclasses
import math
from typing import Any

import numpy as np

from dfm_jax.config import Config
from dfm_jax.data.loading.transforms import scale_world
from dfm_jax.errors import UserError
from dfm_jax.sampling.cameras import checked_camera
from dfm_jax.structs import Camera


@dataclasses.dataclass(frozen=True)
class Placement:
    """None: nothing is said. Cameras and bounds are in the units of the source."""

    camera: Camera | None = None  # [v] of the photographs
    # One, in the coordinates of the others; or what `cameras.named_target` understands.
    target_camera: Camera | str | None = None
    near: float | None = None
    far: float | None = None
    fov: float | None = None  # of a photograph without a camera: horizontal, degrees, as viewers show it uncropped
    focal: float | None = None  # in its place: in pixels of that picture
    crop: str | None = None  # 'centre' (if nothing is said) or 'pad', see `photographs.Crop`
    scale: float | None = None  # units of the source in one unit of the model; 1, if nothing is said

    @property
    def units(self) -> float:
        """Of the source in one of the model.

        Raises:
          UserError: it is no such number.
        """
        scale = 1.0 if self.scale is None else self.scale
        if isinstance(scale, bool) or not isinstance(scale, int | float | np.number) or not 0 < scale < math.inf:
            raise UserError(f"scale, in source units a unit of the model, must be a number above 0, not {scale!r}")
        return float(scale)

    def in_model_units(self, count: int) -> "Placement":
        """With cameras (checked, `count` of the photographs) and bounds in the units of the model."""
        units, known = self.units, {}
        if self.camera is not None:
            known["camera"] = in_model_units(checked_camera(self.camera, count), units)
        if self.target_camera is not None and not isinstance(self.target_camera, str):
            target = checked_camera(self.target_camera, what="target_camera")
            if target.intrinsics.ndim == 3 and len(target.intrinsics) > 1:
                raise UserError("target_camera is one camera: a scene can be rendered at any others")
            target = Camera(target.camera_to_world.reshape(1, 4, 4), target.intrinsics.reshape(1, 3, 3))
            known["target_camera"] = in_model_units(target, units)
        known |= {name: value / units for name in ("near", "far") if (value := getattr(self, name)) is not None}
        return dataclasses.replace(self, **known)


def in_model_units(camera: Camera, units: float) -> Camera:
    """Cameras [k], whose positions are in the units of the source."""
    return camera if units == 1 else Camera(scale_world(camera.camera_to_world, 1 / units), camera.intrinsics)


def bounds(config: Config, placement: Placement) -> tuple[float, float, str]:
    """`near` and `far`, as the call says (in the model's units), as the model knows, or as the config assumes of a
    photograph; and which of these."""
    near, far, said = placement.near, placement.far, "as given"
    if near is None or far is None:
        known, said = config.data, "as in the data that the model was trained on"
        if not config.data.near:
            known = assumed(config, "photograph", "near= and far=")
            said = "as the model's config assumes of photographs (sample.photograph)"
        near, far = (known.near if near is None else near), (known.far if far is None else far)
    if not 0 < near < far < np.inf:
        raise UserError(f"near={near:g} must be above 0 and below far={far:g}")
    return float(near), float(far), said


def assumed(config: Config, name: str, instead: str) -> Any:
    """What `config.sample` assumes of photographs under this name."""
    if (found := getattr(config.sample, name)) is None:
        raise UserError(f"the model's config assumes nothing of photographs (config.sample.{name}): give {instead}")
    return found
