"""The kinds of measurements of the GPU report that run in jax: each makes a `Task` of a measurement's settings."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dfm_jax.models import feature_lookup
from dfm_jax.profiling import rendering_parts
from dfm_jax.profiling.measure import Compiled, Program, compile_program, describe
from dfm_jax.profiling.programs import PRODUCTS, Inference, Part, Training, compile_quickly, matrix, matrix_products
from dfm_jax.profiling.session import PRECISION, Session, Task, about, timed
from dfm_jax.profiling.synthetic import synthetic_example
from dfm_jax.profiling.trace_summary import kernels
from dfm_jax.rendering.ray_marching import rays_per_chunk
from dfm_jax.training import sharding

RESUMED_STEPS = 3


def inference(
    session: Session,
    name: str,
    *,
    config: str,
    program: str,
    precision: str,
    chunk: int | str,
    overrides: Sequence[str] = (),
    options: dict[str, Any] | None = None,
) -> Task:
    """A part of what a config computes for one scene."""
    made = _inference(session, config, precision, chunk, overrides)

    def run(compiled: Compiled) -> dict[str, Any]:
        arguments = session.arguments(made, program, precision)
        result = timed(session, Program(compiled, partial(compiled.call, *arguments)), name)
        if any(program in part.arguments for part in made.parts.values()):
            session.keep(made, program, compiled.call(*arguments))
        chunk = rays_per_chunk(made.config.model.ray_marching.chunk_size, 1)
        return result | {"chunk": chunk, "rays": made.config.image_size**2}

    return Task(lambda: session.part(made, program, precision, options or {}), run)


def _inference(
    session: Session, config: str, precision: str, chunk: int | str, overrides: Sequence[str] = ()
) -> Inference:
    made = Inference(session.config(config, precision, chunk, overrides, "denoising"))
    made.parts["rendering with maps of one pixel"] = rendering_parts.rendering_of_one_pixel(made)
    return made


def training(
    session: Session, name: str, *, config: str, precision: str, chunk: int | str, overrides: Sequence[str]
) -> Task:
    """The training step. Its memory is known, and reported, even where the device refuses to run it."""
    made = Training(session.config(config, precision, chunk, overrides, "training"))

    def run(compiled: Compiled) -> dict[str, Any]:
        known = about(compiled) | {"chunk": made.config.model.ray_marching.chunk_size}
        try:
            return known | timed(session, made.program(compiled), name)
        except (RuntimeError, MemoryError):
            session.clear()  # what others began with may have been in the way
        try:
            return known | timed(session, made.program(compiled), name)
        except (RuntimeError, MemoryError) as error:
            return known | {"failed": describe(error)}

    return Task(lambda: made.compile(precision=PRECISION[precision][1]), run)


def products(session: Session, name: str, *, precision: str, side: int) -> Task:
    """What the device can do: square matrix products; and how exact it is in doing so."""
    dtype, exactness = PRECISION[precision]
    shape = jax.ShapeDtypeStruct((side, side), dtype)

    def run(compiled: Compiled) -> dict[str, Any]:
        a = compile_quickly(partial(matrix, dtype, side))
        result = timed(session, Program(compiled, partial(compiled.call, a)), name)
        few = min(side, 256)
        with jax.default_matmul_precision(exactness or "default"):
            product = np.asarray(compile_quickly(lambda a: a[:few] @ a[:, :few], a), np.float64)
        wide = np.asarray(a, np.float64)
        truth = wide[:few] @ wide[:, :few]
        error = np.linalg.norm(product - truth) / np.linalg.norm(truth)
        return result | {"flops_per_s": result["flops"] / result["seconds"], "relative_error": float(error)}

    return Task(lambda: compile_program(matrix_products, shape, precision=exactness), run)


def copy(session: Session, name: str, *, bytes: int) -> Task:
    """Bytes a second that are read and written."""
    shape = jax.ShapeDtypeStruct((bytes // 4,), jnp.float32)

    def run(compiled: Compiled) -> dict[str, Any]:
        x = compile_quickly(lambda: jnp.arange(bytes // 4, dtype=jnp.float32))
        result = timed(session, Program(compiled, partial(compiled.call, x)), name)
        return result | {"bytes_per_s": 2 * bytes / result["seconds"]}

    return Task(lambda: compile_program(lambda x: x + 1, shape), run)


def attention(session: Session, name: str, *, shape: Sequence[int], backward: bool, by: str) -> Task:
    """Attention alone, several times one after the other as in a transformer; seconds are those of one."""
    attend = partial(jax.nn.dot_product_attention, implementation=by)

    def several(x: Array) -> Array:
        return jax.lax.fori_loop(0, PRODUCTS, lambda _, q: attend(q, x, x), x)

    def one_way(x: Array) -> Array:
        gradient = jax.grad(lambda q, k: jnp.sum(attend(q, k, k).astype(jnp.float32)), argnums=(0, 1))
        return jax.lax.fori_loop(0, PRODUCTS, lambda _, q: sum(gradient(q, x)), x)

    abstract = jax.ShapeDtypeStruct(tuple(shape), jnp.bfloat16)
    make = lambda: jax.random.normal(jax.random.key(0), tuple(shape), jnp.bfloat16)

    def run(compiled: Compiled) -> dict[str, Any]:
        result = timed(session, Program(compiled, partial(compiled.call, compile_quickly(make))), name)
        return result | {"seconds_of_one": result["seconds"] / PRODUCTS}

    return Task(lambda: compile_program(one_way if backward else several, abstract), run)


def _rendering_part(make: Callable[[Inference], Part]) -> Callable[..., Task]:
    """A kind that measures a piece of rendering on its own."""

    def kind(session: Session, name: str, *, config: str, precision: str, chunk: int | str) -> Task:
        made = _inference(session, config, precision, chunk)
        made.parts[name] = make(made)

        def run(compiled: Compiled) -> dict[str, Any]:
            arguments = session.arguments(made, name, precision)
            return timed(session, Program(compiled, partial(compiled.call, *arguments)), name)

        return Task(lambda: session.part(made, name, precision, {}), run)

    return kind


def trace(session: Session, name: str, *, config: str, program: str, precision: str, chunk: int | str) -> Task:
    """Which kernels a program's time goes to."""
    made = _inference(session, config, precision, chunk)

    def run(compiled: Compiled) -> dict[str, Any]:
        arguments = session.arguments(made, program, precision)
        return kernels(partial(compiled.call, *arguments), compiled.text())

    return Task(lambda: session.part(made, program, precision, {}), run)


def training_trace(
    session: Session, name: str, *, config: str, precision: str, chunk: int | str, overrides: Sequence[str]
) -> Task:
    """Which kernels a training step's time goes to."""
    made = Training(session.config(config, precision, chunk, overrides, "training"))
    run = lambda compiled: kernels(made.program(compiled).start, compiled.text())
    return Task(lambda: made.compile(precision=PRECISION[precision][1]), run)


def lookup_gradients(session: Session, name: str, *, way: str, shape: Sequence[int], dtype: str) -> Task:
    """Adds the gradients of as many lookups as `shape` (places, points, channels) says to the rows of a map."""
    places, points, channels = shape
    add = getattr(feature_lookup, way)
    total, gradient = ((1, n, channels) for n in (places, points))

    def function(gradient: Array) -> Array:
        index = jax.random.randint(jax.random.key(0), (4, 1, points), 0, places)
        weights = jnp.full((4, 1, points), 0.25, gradient.dtype)
        return add(jnp.zeros(total, gradient.dtype), index, weights, gradient)

    def run(compiled: Compiled) -> dict[str, Any]:
        made = compile_quickly(lambda: jax.random.normal(jax.random.key(1), gradient, dtype))
        return timed(session, Program(compiled, partial(compiled.call, made)), name)

    return Task(lambda: compile_program(function, jax.ShapeDtypeStruct(gradient, dtype)), run)


def resume(session: Session, name: str, *, options: dict[str, Any]) -> Task:
    """Whether some steps end in the same bits when they are done again, and when they resume from a saved state.

    A kernel that adds in no fixed order shows here. Of what jax and the files do, the tests of training tell.
    """
    made = Training(session.config("64", "fp32", session.sizes.chunks[0], RESUMED_SETTINGS, "training"))

    def run(compiled: Compiled) -> dict[str, Any]:
        key, size = jax.random.key(made.config.seed), made.config.train.batch_size
        batches = [synthetic_example(made.config, size, seed=n) for n in range(2 * RESUMED_STEPS)]

        def steps(state: Any, first: int) -> Any:
            for batch in batches[first : first + RESUMED_STEPS]:
                state, _ = compiled.call(state, batch, key)
            return jax.device_get(state)

        begin = lambda: sharding.initialize(made.init, key, made.mesh)
        middle = steps(begin(), 0)
        again = steps(begin(), 0)
        ends = [digest(steps(jax.device_put(state), RESUMED_STEPS)) for state in (middle, middle, again)]
        return {
            "same_when_repeated": digest(middle) == digest(again),
            "same_when_resumed": ends[0] == ends[1],
            "steps": 2 * RESUMED_STEPS,
            "digest": ends[0],
            **about(compiled),
        }

    return Task(lambda: made.compile(options=options), run)


# A model small enough to be quick, with all kinds of kernels.
RESUMED_SETTINGS = (
    "--config.image_size=32", "--config.model.estimate_size=16", "--config.loss.patch_size=12",
    "--config.model.encoder.depth=2", "--config.model.encoder.width=96", "--config.model.encoder.num_heads=4",
    "--config.model.encoder.features=32", "--config.model.scene_field.width=64",
    "--config.model.conditioning_field.width=32", "--config.model.rendered_features=16",
    "--config.model.ray_marching.num_coarse=16", "--config.model.ray_marching.num_fine=16",
    "--config.train.batch_size=2",
)  # fmt: skip


def digest(state: Any) -> str:
    """Of all bits of the parameters."""
    sum_ = hashlib.sha256()
    for leaf in jax.tree.leaves(state.params):
        sum_.update(np.asarray(leaf).tobytes())
    return sum_.hexdigest()[:16]


TASKS: dict[str, Callable[..., Task]] = {
    "inference": inference,
    "training": training,
    "products": products,
    "copy": copy,
    "attention": attention,
    "lookups": _rendering_part(rendering_parts.lookups),
    "marching": _rendering_part(rendering_parts.marching),
    "chained": _rendering_part(rendering_parts.chained_products),
    "trace": trace,
    "training trace": training_trace,
    "lookup gradients": lookup_gradients,
    "resume": resume,
}
