"""What one browser's panel consists of."""

import dataclasses
from typing import Any

import numpy as np

from dfm_jax.viewer import limits
from dfm_jax.viewer.overlays import OVERLAYS

NOTHING, ALL = "none yet", "all, side by side"
DEFAULT_FINEST = 512
PREVIEW = 160  # least side of the small picture, pixels
CHOICES = ("which", "overlay", "step", "finest", "cameras", "smooth")  # of the controls, which a browser finds again


@dataclasses.dataclass
class Controls:
    """Viser's handles."""

    status: Any
    which: Any
    overlay: Any
    step: Any
    preview: Any
    finest: Any
    cameras: Any
    smooth: Any
    to_context: Any
    to_target: Any


def add_controls(gui: Any, tab: Any) -> Controls:
    """To a tab of viser's `gui`, of a client."""
    with tab:
        return Controls(
            status=gui.add_markdown("connecting"),
            which=gui.add_dropdown("Sample", (NOTHING,)),
            overlay=gui.add_dropdown("Show", OVERLAYS, hint="The last two compare all samples."),
            step=gui.add_slider("Step", 1, 2, 1, 2, hint="Denoising steps: the scene that each of them infers."),
            preview=gui.add_image(np.zeros((PREVIEW, PREVIEW, 3), np.uint8), label="at the target camera"),
            finest=gui.add_dropdown("Pixels", tuple(map(str, limits.FINEST)), initial_value=str(DEFAULT_FINEST)),
            cameras=gui.add_checkbox("Cameras of views", True),
            smooth=gui.add_checkbox("Gaussians while moving", True, hint="Once they are fitted to the sample."),
            to_context=gui.add_button("To the context camera"),
            to_target=gui.add_button("To the target camera"),
        )
