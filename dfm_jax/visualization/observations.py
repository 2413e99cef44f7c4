"""Pictures of observations of any kind: images (in colour or grey) as they are, other vectors as points.

Letters: `n` samples of a target, `...` the shape of an observation.
"""

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8

from dfm_jax.visualization.pictures import grid

SIDE = 320  # pixels of a plot
MOST_IMAGES = 6  # samples that are shown of each target
PLOTS_IN_A_ROW = 4


def observation_sheet(
    x0: Float[np.ndarray, "s n ..."], truth: Float[np.ndarray, "s ..."], estimate: np.ndarray | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Samples beside the truth and the estimate, in diffusion's range: a row (images) or a plot for each example."""
    if truth.ndim == 4 and truth.shape[-1] in (1, 3):
        columns = ["truth"] + ["estimate"] * (estimate is not None) + ["sample"] * min(MOST_IMAGES, x0.shape[1])
        to_image = lambda x: np.broadcast_to(np.clip(0.5 * x + 0.5, 0, 1), (*x.shape[:-1], 3))
        given = [truth] if estimate is None else [truth, estimate]
        rows = [[to_image(x[i]) for x in given] + [to_image(x) for x in x0[i, :MOST_IMAGES]] for i in range(len(x0))]
        return grid(rows, columns)
    plots = [_points(x0[i], truth[i], None if estimate is None else estimate[i]) for i in range(len(x0))]
    columns = min(PLOTS_IN_A_ROW, len(plots))
    plots += [np.full_like(plots[0], 255)] * (-len(plots) % columns)
    return rearrange(np.stack(plots), "(r c) h w rgb -> (r h) (c w) rgb", c=columns)


def _points(x0: np.ndarray, truth: np.ndarray, estimate: np.ndarray | None) -> UInt8[np.ndarray, "h w 3"]:
    """The first two numbers of each sample as a point; of a single number, its distribution."""
    from dfm_jax.visualization.figures import Figure, FigureCanvasAgg  # takes long, and images need none of it

    figure = Figure((SIDE / 100, SIDE / 100), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    samples = x0.reshape(len(x0), -1)
    shown = [("truth", truth.ravel(), "#D55E00")]
    shown += [] if estimate is None else [("estimate", estimate.ravel(), "#009E73")]
    if samples.shape[1] > 1:
        axes.scatter(samples[:, 0], samples[:, 1], s=4, color="#0072B2", label="samples")
        for name, at, colour in shown:
            axes.scatter(at[:1], at[1:2], s=60, color=colour, marker="X", label=name)
    else:
        axes.hist(samples[:, 0], bins=30, color="#0072B2", label="samples")
        for name, at, colour in shown:
            axes.axvline(at[0], color=colour, label=name)
    axes.legend(frameon=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
