"""Forward models: how a signal that nobody observes makes the observations that are seen.

`ForwardModel` is what diffusion with forward models needs of one (Tewari et al. 2023, section 3): infer a signal from
observations, and observe a signal. The denoiser, the losses and the samplers are written against it, and training,
resuming, guidance, evaluation and the export of the denoiser with them. What only some models can do has a smaller
protocol of its own: `SceneModel`, `RecordingModel`, `MarchedModel`, `GeneratingModel`, `PartlyFrozenModel`, and what is
known or shown of signals: `KnownPosterior`, `DiscretePosterior`, `MeasuredSignals`, `EstimatedSignals`,
`PicturedSignals`. `build.py` says which models there are.
"""

import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax import Array

from dfm_jax.config import LossConfig, SampleConfig
from dfm_jax.config.marching import MarchingLevel
from dfm_jax.forward_models.terms import Terms
from dfm_jax.structs import Camera, RenderedViews, Views

Params = dict[str, Any]


class Inference(NamedTuple):
    """What is inferred from a context and a noisy observation."""

    signal: Any
    estimate: Any | None  # deterministic estimate of the target observation, from the context alone, if one is made


class Prediction(NamedTuple):
    """What a training step compares."""

    observation: Any  # of the inferred signal, at the queries of `supervision`, as `observe` returns it: see `to_x0`
    truth: Array  # what it should be, in diffusion's range
    estimate: Any | None


@runtime_checkable
class ForwardModel(Protocol):
    """A pair of functions, `signal = infer(observations)` and `observation = observe(signal, query)`, and what ties
    them to an example. Diffusion runs on observations, in a range of about [-1, 1]; `b` is the batch.

    A model is frozen and hashable: it has networks and settings, no arrays, and knows no weight of a loss. An example
    is any tree of arrays `[b, ...]` with an `index [b]`, its number in the global sequence of examples.
    """

    def init(self, key: Array) -> Params:
        """New parameters, float32."""

    def encode_context(self, params: Params, example: Any) -> Any:
        """What the context alone tells, whatever the noisy observation: leaves `[b, ...]`."""

    def infer(self, params: Params, context: Any, x_t: Array, timestep: Array) -> Inference:
        """The signal seen in the (encoded) context and in a noisy observation `x_t [b, ...]` at noise level `timestep
        [b]`."""

    def observe(self, params: Params, signal: Any, query: Any, keys: Array | None = None) -> Any:
        """Observation of a signal. `keys [b]`: randomness, if the model has any; None: deterministic."""

    def target(self, example: Any) -> tuple[Array, Any]:
        """The observation that is noised, `x0 [b, ...]`, and the query that makes it."""

    def to_x0(self, observation: Any) -> Array:
        """An observation in diffusion's range, in the layout of its query."""

    def supervision(self, example: Any, keys: Array) -> tuple[Any, Array]:
        """A query to train on, and the observation it should make, in diffusion's range."""

    def drop_context(self, example: Any, dropped: Array) -> Any:
        """The example without its context where `dropped [b]` (classifier-free guidance)."""

    def loss_terms(self, example: Any, prediction: Prediction, weights: LossConfig, perceptual: Any = None) -> Terms:
        """What is minimised: `target`, the error of the observations, which counts with weight 1; `estimate`, that of
        the deterministic estimate; and others, each with the weight of its name in `weights`, which must have it. Terms
        whose weight is 0 may be left out.

        Args:
          perceptual: LPIPS, where `weights.lpips` is not 0.
        """

    def cache(self, params: Params, context: Any, query: Any, cache_bytes: int) -> Any:
        """The query of `target` with what all denoising steps would compute alike for it, in at most `cache_bytes` an
        example. A model that has nothing to keep returns the query as it is."""


@runtime_checkable
class SceneModel(ForwardModel, Protocol):
    """A model whose signals are scenes: cameras can look at them, and its examples are posed images (`Example`)."""

    image_size: int  # side of the images that diffusion runs on, pixels

    def render(self, params: Params, signal: Any, camera: Camera, height: int, width: int) -> RenderedViews:
        """What cameras [b, k] see of scenes [b]: views [b, k, height, width]."""

    def estimated_view(self, estimate: Any) -> RenderedViews:
        """The deterministic estimate of target view 0, as views [b, h, w] of the model's image size."""


@runtime_checkable
class RecordingModel(SceneModel, Protocol):
    """A model of scenes whose target views are of cameras that may take no pictures in colour. Its `x0`, estimate and
    renderings are what they record, laid out as pictures."""

    in_colour: bool  # whether they do; else nothing is known of its scenes' colours

    def recorded_truth(self, views: Views, near: Any, far: Any) -> Array:
        """What they would record of true views, as pictures [*batch, 3] in [0, 1]; NaN where what was measured of these
        does not tell. Bounds broadcast against the depth."""


def in_colour(model: ForwardModel) -> bool:
    """Whether a model of scenes knows their colours, and its `x0` is a picture in colour."""
    return not isinstance(model, RecordingModel) or model.in_colour


@runtime_checkable
class MarchedModel(SceneModel, Protocol):
    """A model of scenes that marches along rays, and can leave out some of that work (docs/performance.md). What these
    return has the same parameters."""

    def saving(self, sample: SampleConfig) -> "MarchedModel":
        """The model, rendering as the settings say that sampling does at all noise levels."""

    def at_level(self, level: MarchingLevel) -> "MarchedModel":
        """That model, rendering as denoising steps of a level of the marching schedule do. Its `to_x0` takes the
        observation of its `target`, which may have fewer rays than the target has pixels."""


@runtime_checkable
class GeneratingModel(ForwardModel, Protocol):
    """A model that makes its own examples, instead of a data set."""

    def generate(self, seed: int, index: np.ndarray, *, held_out: bool = False) -> Any:
        """The examples of these numbers [b], numpy arrays: each a function of the seed and its own number alone.

        Args:
          held_out: whether they are to judge by; they do not repeat those of training.
        """


@runtime_checkable
class PartlyFrozenModel(ForwardModel, Protocol):
    """A model of which some parameters are not trained: they are what `init` makes them, or what a run starts from."""

    frozen: tuple[str, ...]  # the groups at the top of its parameters that are not


def frozen_groups(model: ForwardModel) -> tuple[str, ...]:
    """The groups of a model's parameters that are not trained; none, of most models."""
    return model.frozen if isinstance(model, PartlyFrozenModel) else ()


@runtime_checkable
class KnownPosterior(ForwardModel, Protocol):
    """A model whose signals are vectors, and whose posterior has a closed form."""

    def posterior(self, example: Any) -> tuple[np.ndarray, np.ndarray]:
        """Mean [b, d] and covariance [b, d, d] of the signals, given the contexts of examples."""


@runtime_checkable
class DiscretePosterior(ForwardModel, Protocol):
    """A model whose contexts leave open which value a discrete attribute of the signal has, with known odds.

    Letters, here and below: `s` examples, `n` sampled signals of each (leaves [s, n, ...]), `k` values.
    """

    attribute: str  # what is open: "direction"
    values: tuple[str, ...]  # what its values are called

    def value_odds(self, example: Any) -> np.ndarray:
        """[s, k] probability of each value, given the contexts of examples."""

    def read_values(self, params: Params, example: Any, signal: Any) -> np.ndarray:
        """[s, n] int, the number of the value that each signal has; -1 where none is recognised."""


@runtime_checkable
class MeasuredSignals(ForwardModel, Protocol):
    """A model that knows the true signals behind its examples, or has other measures of a sampled one."""

    def signal_errors(self, params: Params, example: Any, signal: Any) -> dict[str, np.ndarray]:
        """[s, n] by name; smaller is better."""


@runtime_checkable
class EstimatedSignals(ForwardModel, Protocol):
    """A model that also infers a signal from the context alone: one answer, where samples differ."""

    def estimated_signal(self, params: Params, example: Any) -> Any:
        """Leaves [s, ...]."""


@runtime_checkable
class PicturedSignals(ForwardModel, Protocol):
    """A model whose signals can be looked at."""

    def pictures(self, params: Params, example: Any, signal: Any) -> dict[str, np.ndarray]:
        """Pictures [s, n, h, w, 3] or videos [s, n, t, h, w, 3], in [0, 1], by caption. What an example has one of,
        such as its context or the truth, is [s, 1, ...]."""


def parameter_shapes(model: ForwardModel) -> Params:
    """A model's parameters, with shapes and dtypes instead of arrays; no device is started for it."""
    return jax.tree.map(lambda leaf: leaf, _parameter_shapes(model))  # a tree of its own for each who asks


@functools.lru_cache(maxsize=64)  # tracing a model takes a second, and most commands ask several times
def _parameter_shapes(model: ForwardModel) -> Params:
    return jax.eval_shape(lambda: model.init(jax.random.key(0)))
