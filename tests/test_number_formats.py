"""bfloat16 stays inside the networks: geometry, compositing, losses and all that training keeps are float32."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from dfm_jax.config import DiffusionConfig
from dfm_jax.denoiser import cache_context, denoise
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.losses import training_loss
from tests.tiny import LOSS, RESNET, SIZE, jit, random_params, tiny_example, tiny_model

X_T = jnp.asarray(np.random.default_rng(5).normal(size=(2, SIZE, SIZE, 3)), jnp.float32)
TIMESTEP = jnp.array([300, 800])
DIFFUSION = DiffusionConfig(num_timesteps=1000, guidance_dropout=0.1, high_noise_fraction=0.0, high_noise_from=0)


def equations(jaxpr: Jaxpr) -> Iterator[Any]:
    """Of a computation and of all inside it, but for the resizing of images."""
    for equation in jaxpr.eqns:
        if equation.params.get("name") == "_resize":
            continue
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, ClosedJaxpr):
                    yield from equations(inner.jaxpr)
                elif isinstance(inner, Jaxpr):
                    yield from equations(inner)


def formats_of_products(jaxpr: Jaxpr) -> set:
    """Number formats of what is multiplied (products and convolutions)."""
    formats = set()
    for equation in equations(jaxpr):
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            formats.update(str(x.aval.dtype) for x in equation.invars)
    return formats


@functools.cache
def traced_step(name, encoder=None):
    """A denoising step in a format; and what it is given."""
    model = tiny_model(compute_dtype=name, encoder=encoder)
    step = lambda params, example: denoise(
        params, model, X_T, TIMESTEP, cache_context(params, model, example, cache_bytes=2**30)
    )
    given = random_params(model), tiny_example()
    return jit(step).trace(*given), given


def loss(model):
    key = jax.random.key(0)
    return lambda params, example: training_loss(
        params, example, key, model=model, schedule=cosine_schedule(), diffusion=DIFFUSION, weights=LOSS
    )


@pytest.mark.parametrize("encoder", [None, RESNET], ids=["dit", "resnet34"])
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_networks_multiply_in_their_format(name, encoder):
    assert formats_of_products(traced_step(name, encoder)[0].jaxpr.jaxpr) == {name}


def test_what_leaves_the_networks_is_float32():
    model = tiny_model(compute_dtype="bfloat16")
    params, example = random_params(model), tiny_example()
    made = traced_step("bfloat16")[0].out_info
    assert made.signal.views.features.dtype == jnp.bfloat16
    rest = [
        made.x0,
        made.observation,
        made.estimate,
        made.signal.replace(views=made.signal.views.replace(features=None)),
    ]
    assert {str(x.dtype) for x in jax.tree.leaves(rest)} == {"float32", "bool"}
    (value, metrics), gradients = jax.eval_shape(jax.value_and_grad(loss(model), has_aux=True), params, example)
    assert {str(x.dtype) for x in jax.tree.leaves((value, metrics, gradients))} == {"float32"}


def test_bfloat16_predicts_nearly_the_same():
    steps = [traced_step(name) for name in ("float32", "bfloat16")]
    exact, rounded = (traced.lower().compile()(*given).x0 for traced, given in steps)
    # bfloat16 has 8 bits; errors of single layers mostly average out.
    assert 0 < float(np.mean(np.abs(exact - rounded))) < 0.01
    assert float(np.max(np.abs(exact - rounded))) < 0.15
