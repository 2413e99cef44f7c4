"""Counting operations: against formulas, and against XLA's count where that is right (no loops)."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from dfm_jax.flops import count_flops

A, B = jnp.ones((6, 5)), jnp.ones((5, 7))
PRODUCT = 2 * 6 * 5 * 7


def test_a_product_costs_two_operations_a_term():
    assert count_flops(jnp.matmul, A, B) == PRODUCT
    batched = lambda a, b: jnp.einsum("bij,bjk->bik", a, b)
    assert count_flops(batched, jax.ShapeDtypeStruct((3, 6, 5), "float32"), jnp.ones((3, 5, 7))) == 3 * PRODUCT


def test_a_convolution_costs_its_kernel_at_every_output():
    image, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((5, 5, 3, 4))
    convolve = lambda x, k: lax.conv_general_dilated(x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert count_flops(convolve, image, kernel) == 2 * (2 * 4 * 4 * 4) * (5 * 5 * 3)


def test_a_loop_costs_every_round_and_a_condition_its_dearer_branch():
    loop = lambda a, b: lax.scan(lambda total, _: (total + jnp.sum(a @ b), None), 0.0, length=10)[0]
    assert count_flops(loop, A, B) == 10 * PRODUCT
    choose = lambda a, b: lax.cond(jnp.sum(a) > 0, lambda: jnp.sum(a @ b), lambda: jnp.sum(a @ b @ b.T))
    assert count_flops(choose, A, B) == 2 * PRODUCT


def test_a_gradient_costs_twice_and_what_is_computed_again_once_more():
    layers = lambda b: jnp.sum(jnp.sin(jnp.sin(A @ b) @ jnp.ones((7, 7))))
    forward = PRODUCT + 2 * 6 * 7 * 7
    # Of the first product the gradient of one side is asked for, of the second the same.
    assert count_flops(jax.grad(layers), B) == forward + PRODUCT + 2 * 6 * 7 * 7
    assert count_flops(jax.grad(jax.checkpoint(layers)), B) > count_flops(jax.grad(layers), B)


def test_it_agrees_with_xla_where_there_are_no_loops():
    mlp = lambda a, b: jax.nn.relu(a @ b) @ b.T @ b
    a, b = jnp.ones((256, 128)), jnp.ones((128, 192))
    theirs = jax.jit(mlp).lower(a, b).compile().cost_analysis()["flops"]
    # XLA counts the additions and the ReLU, too: one operation in a hundred.
    assert count_flops(mlp, a, b) == pytest.approx(theirs, rel=0.02)


def test_an_unknown_number_of_rounds_is_refused():
    with pytest.raises(ValueError, match="while loop"):
        count_flops(lambda a, b: lax.while_loop(lambda x: jnp.sum(x) < 9, lambda x: x + jnp.sum(a @ b), a), A, B)
