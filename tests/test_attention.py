"""Which attention computes where, and that it is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config.command_line import read_config
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import _parameter_shapes, parameter_shapes
from dfm_jax.models import attention
from tests.tiny import assert_trees_close, jit

# bfloat16 has 8 bits, and attention rounds several times.
ROUNDING = {"rtol": 0.05, "atol": 0.1}


def summed(attend):
    """Value and gradients of something made of its result."""
    weigh = lambda *qkv: jnp.sum(jnp.square(attend(*qkv).astype(jnp.float32)))
    return jit(jax.value_and_grad(weigh, argnums=(0, 1, 2)))


@pytest.mark.skipif(not attention._has_cudnn(), reason="there is no GPU with cuDNN here")
def test_cudnns_attention_is_the_plain_one():
    draw = lambda seed: jax.random.normal(jax.random.key(seed), (2, 1024, 16, 72), jnp.bfloat16)
    qkv = draw(0), draw(1), draw(2)
    assert "cudnn" in jax.jit(attention.attend).lower(*qkv).compile().as_text()
    wide = lambda *qkv: jax.nn.dot_product_attention(*(x.astype(jnp.float32) for x in qkv))
    with jax.default_matmul_precision("highest"):
        expected = summed(wide)(*qkv)
    found = summed(attention.attend)(*qkv)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert np.linalg.norm(x - y) < 0.02 * np.linalg.norm(y)


def test_attention_is_cudnns_where_that_is_faster(monkeypatch):
    tokens = lambda n, dtype="bfloat16", width=72: jnp.zeros((1, n, 1, width), dtype)
    assert attention.suits_cudnn(tokens(1024)) and attention.suits_cudnn(tokens(4096, "float16"))
    others = tokens(256), tokens(1024, "float32"), tokens(1024, width=70), tokens(1024, width=256)
    assert not any(map(attention.suits_cudnn, others))
    asked = []
    plain = jax.nn.dot_product_attention

    def attend(q, k, v, implementation=None):
        asked.append(implementation)
        result = plain(q, k, v)
        return 2 * result if implementation == "cudnn" else result

    monkeypatch.setattr(jax.nn, "dot_product_attention", attend)
    q = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1024, 1, 8)), jnp.bfloat16)
    monkeypatch.setattr(attention, "_has_cudnn", lambda: False)
    attention.attend(q, q, q)
    assert asked == [None]
    monkeypatch.setattr(attention, "_has_cudnn", lambda: True)
    attention.attend(q[:, :256], q[:, :256], q[:, :256])
    assert asked == [None, None]
    # Made on a GPU, it is cuDNN's there, and XLA's elsewhere; also in gradients.
    value = jax.value_and_grad(lambda q: jnp.sum(attention.attend(q, q, q).astype(jnp.float32)))
    times = 2 if jax.default_backend() == "gpu" else 1
    expected = jax.value_and_grad(lambda q: times * jnp.sum(plain(q, q, q).astype(jnp.float32)))
    assert_trees_close(jit(value)(q), jit(expected)(q), **ROUNDING)
    assert asked[2:] == ["cudnn", "xla"]
    for platform, twice in (("cpu", False), ("cuda", True)):
        text = jax.jit(attention.attend).trace(q, q, q).lower(lowering_platforms=(platform,)).as_text()
        assert ("dense<2.0" in text) == twice, platform


def test_the_shapes_of_parameters_are_known_before_devices_may_be_looked_at(monkeypatch):
    """Processes of one run join after that, and cannot once a device was started."""

    def looked_at():
        raise AssertionError("a device is looked at")

    monkeypatch.setattr(attention, "_has_cudnn", looked_at)
    tiny = ("model.encoder.depth=1", "model.encoder.width=64", "model.encoder.num_heads=4")
    overrides = [f"--config.{setting}" for setting in (*tiny, "model.compute_dtype=bfloat16")]
    model = make_model(read_config("configs/realestate10k.py:128", overrides))
    _parameter_shapes.cache_clear()
    assert parameter_shapes(model)
