"""Forward models: how a signal that nobody observes makes the observations that are seen.

`ForwardModel` is what diffusion with forward models needs of one (Tewari et al. 2023, section 3): infer a signal from
observations, and observe a signal. The denoiser, the losses and the samplers are written against it.
"""

from typing import Any, Protocol

from jax import Array

Params = dict[str, Any]


class ForwardModel(Protocol):
    """A pair of functions, `signal = infer(observations)` and `observation = forward(signal, query)`, and what ties
    them to an example. Diffusion runs on observations, in a range of about [-1, 1]; `b` is the batch."""

    def encode_context(self, params: Params, example: Any) -> Any:
        """What the context alone tells, whatever the noisy observation: leaves `[b, ...]`."""

    def infer(self, params: Params, context: Any, x_t: Array, timestep: Array) -> tuple[Any, Any | None]:
        """Signal seen in the (encoded) context and in a noisy observation `x_t [b, ...]` at noise level `timestep [b]`;
        and a deterministic estimate of that observation, made from the context alone (None: the model makes none)."""

    def infer_from(self, params: Params, example: Any, x_t: Array, timestep: Array) -> tuple[Any, Any | None]:
        """`infer` from an example whose context is not encoded: what training does."""

    def forward(self, params: Params, signal: Any, query: Any, keys: Array | None = None) -> Any:
        """Observation of a signal. `keys [b]`: randomness, if the model has any; None: deterministic."""

    def target(self, example: Any) -> tuple[Array, Any]:
        """The observation that is noised, `x0 [b, ...]`, and the query that makes it."""

    def prepare_query(self, params: Params, context: Any, query: Any, memory: int) -> Any:
        """The query of `target` with what all denoising steps would compute alike for it, in at most `memory` bytes an
        example."""

    def supervision(self, example: Any, keys: Array) -> tuple[Any, Array]:
        """A query to train on, and the observation it should make, in diffusion's range."""

    def estimate_target(self, example: Any) -> Array:
        """The observation that the deterministic estimate should make, in diffusion's range."""

    def to_x0(self, observation: Any) -> Array:
        """An observation in diffusion's range, in the layout of its query."""

    def drop_context(self, example: Any, dropped: Array) -> Any:
        """The example without its context where `dropped [b]` (classifier-free guidance)."""
