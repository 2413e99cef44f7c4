"""What a config leaves to the program: number format, chunks, recomputation and micro-batches, by platform and memory;
and that none of it changes what is computed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config.automatic import Device, for_training, told, with_dtype
from dfm_jax.config.command_line import read_config
from dfm_jax.config.memory import training_needs
from dfm_jax.config.model import KEPT
from dfm_jax.examples import abstract_example
from dfm_jax.flops import _jaxprs as jaxprs_of
from dfm_jax.flops import count_flops
from dfm_jax.forward_models.radiance_field.rendering import estimate_image, image_rays, render
from dfm_jax.interop.published_config import published_config, read_sizes
from dfm_jax.rendering.ray_marching import rays_per_chunk
from dfm_jax.runs.new_workdirs import write_checkpoint
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.training import choices
from dfm_jax.training.setup import make_train_setup
from tests.published_state import HEADS, made_up_state, model_of, small_config
from tests.tiny import SIZE, assert_trees_close, jit, random_params, reconfigured, tiny_model, tiny_scene

PARAMETERS = 735_000_000  # of the published model
GB = 1e9


def published(name="realestate10k.py:64", *overrides):
    return read_config(f"configs/{name}", [f"--config.{x}" for x in overrides])


# --- what is chosen


@pytest.mark.parametrize(("platform", "dtype"), [("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")])
def test_the_number_format_is_the_platforms_where_nothing_is_said_or_trained(platform, dtype):
    config = published()
    assert with_dtype(config, platform).model.compute_dtype == dtype
    assert with_dtype(config, platform, trained="float32").model.compute_dtype == "float32"
    said = published("realestate10k.py:64", "model.compute_dtype=float32")
    assert with_dtype(said, platform, trained="bfloat16") == said


@pytest.mark.parametrize("name", ["realestate10k.py:64", "realestate10k.py:128", "co3d.py:128", "co3d.py:64,resnet34"])
@pytest.mark.parametrize("device", [Device("gpu", 80 * GB), Device("gpu", 24 * GB, 8), Device("cpu", 64 * GB)])
def test_nothing_is_left_open_and_what_is_chosen_fits(name, device):
    config = published(name)
    chosen = for_training(config, device, PARAMETERS)
    marching, settings = chosen.model.ray_marching, chosen.train
    assert chosen.model.compute_dtype != "auto" and marching.chunk_size > 0 and settings.accumulate > 0
    assert settings.batch_size % (settings.accumulate * device.count) == 0
    assert training_needs(chosen, device.count, PARAMETERS).total < device.memory_bytes
    assert told(config, chosen) and not told(chosen, for_training(chosen, device, PARAMETERS))


def test_more_memory_never_means_that_more_is_computed_again_or_one_after_the_other():
    config, before = published(), (0, True, 1000)
    for memory in np.linspace(20, 400, 20) * GB:
        chosen = for_training(config, Device("gpu", memory), PARAMETERS)
        now = (chosen.model.ray_marching.chunk_size, chosen.model.encoder.remat, chosen.train.accumulate)
        assert now[0] >= before[0] and (now[:2] != before[:2] or now[2] <= before[2]), memory
        before = now
    assert before == (64**2, False, 1)


def test_what_is_said_stays():
    said = ("model.ray_marching.chunk_size=128", "train.accumulate=4", "train.recompute=always")
    config = published("realestate10k.py:64", *said)
    chosen = for_training(config, Device("gpu", 1000 * GB), PARAMETERS)
    assert chosen == with_dtype(config, "gpu")
    small = published("toy.py:tiny")
    assert for_training(small, Device("gpu", 80 * GB), 10**6) == small
    never = published("realestate10k.py:64", "model.encoder.remat=False", "train.batch_size=1")
    assert not for_training(never, Device("gpu", 20 * GB), PARAMETERS).model.encoder.remat


def test_a_cpu_splits_no_batch_that_it_can_hold():
    config = published("realestate10k.py:64", "model.encoder.remat=False", "train.batch_size=4")
    assert for_training(config, Device("cpu", 64 * GB), PARAMETERS).train.accumulate == 1


# Peak of a training step of one scene, as docs/gpu.md has it, in GB.
@pytest.mark.parametrize(
    ("name", "views", "coarse", "chunk", "measured"),
    [
        ("realestate10k.py:64", 1, 0, 128, 14.8),
        ("realestate10k.py:64", 1, 0, 1152, 15.1),
        ("realestate10k.py:64", 1, 0, 0, 23.3),
        ("co3d.py:128", 3, 0.1, 128, 15.7),
        ("co3d.py:128", 3, 0.1, 0, 64.6),
    ],
)
def test_the_memory_is_about_what_was_measured(name, views, coarse, chunk, measured):
    where = "data.view_sampling."
    said = (f"{where}min_context={views}", f"{where}max_context={views}", "train.batch_size=1", "loss.lpips=0")
    said = (*said, f"loss.coarse={coarse}", f"model.ray_marching.chunk_size={chunk}")
    said = (*said, f"train.recompute={'always' if chunk else 'auto'}")
    chosen = for_training(published(name, *said), Device("gpu", 135 * GB), PARAMETERS)
    # Rough, as memory.py says: a compiler shares and adds buffers.
    assert training_needs(chosen, 1, PARAMETERS).total / GB == pytest.approx(measured, rel=0.2)


def test_chunks_of_sampling_suit_the_platform_and_share_the_memory_between_scenes():
    assert rays_per_chunk(77, 4, "gpu") == 77
    assert rays_per_chunk(0, 1, "gpu") == 4 * rays_per_chunk(0, 4, "gpu") > rays_per_chunk(0, 1, "cpu")
    assert rays_per_chunk(0, 10**6, "gpu") > 0


# --- when


def test_a_run_stores_the_number_format_and_goes_on_with_it(tmp_path, monkeypatch, capsys):
    config = published("realestate10k.py:tiny")
    monkeypatch.setattr(choices, "this_device", lambda: Device("gpu", 80 * GB))
    stored, made = choices.settle(config, tmp_path)
    assert stored == with_dtype(config, "gpu") and made.model.compute_dtype == "bfloat16"
    assert "networks in bfloat16" in capsys.readouterr().err
    # A run that began on a CPU stays in float32, also where its config is sampled by its file.
    params = {"encoder": {"w": np.zeros(2, np.float32)}}
    write_checkpoint(tmp_path, 3, with_dtype(config, "cpu"), params=params, ema=params)
    assert choices.settle(config, tmp_path)[0].model.compute_dtype == "float32"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert restore_trained(config, tmp_path).config.model.compute_dtype == "float32"


def test_imported_checkpoints_are_computed_as_published_unless_less_is_asked_for():
    sizes = read_sizes(made_up_state(model_of(small_config())))
    imported = lambda dtype: (
        published_config(small_config(**{"model.compute_dtype": dtype}), sizes, num_heads=HEADS, image_size=None).model
    )
    assert (imported("auto").compute_dtype, imported("auto").matmul_precision) == ("float32", "highest")
    assert imported("bfloat16").compute_dtype == "bfloat16"


# --- what it computes

MODEL = tiny_model(chunk_size=16)
SCENE = tiny_scene(b=1)


def rendering_loss(what):
    """Of what is rendered in a training step, in chunks that keep `what`."""
    marching = dataclasses.replace(MODEL.config.ray_marching, keep=what)
    nets = reconfigured(MODEL, ray_marching=marching).networks

    def loss(params):
        camera = jax.tree.map(lambda x: x[:, 0], SCENE.views.camera)
        estimate = estimate_image(params, nets, SCENE, camera)
        rays = image_rays(camera, SIZE, SIZE // 4, "centres")
        rendering = render(params, nets, SCENE, rays, jax.random.split(jax.random.key(0), 1))
        return sum(jnp.sum(jnp.square(x)) for x in (estimate.rgb, rendering.rgb, rendering.depth))

    return loss


def test_the_more_is_kept_the_less_is_computed_and_the_gradients_are_the_same():
    params = random_params(MODEL)
    operations = [count_flops(jax.grad(rendering_loss(what)), params) for what in KEPT]
    assert operations == sorted(set(operations), reverse=True)
    assert operations[-1] < 0.9 * operations[0]  # a quarter less of the wide layers
    gradients = [jit(jax.value_and_grad(rendering_loss(what)))(params) for what in (KEPT[0], KEPT[-1])]
    assert_trees_close(*gradients)


def precisions(jaxpr):
    """Of all products and convolutions, wherever they are."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.params["precision"]
        for inner in jaxprs_of(equation.params):
            yield from precisions(inner)


@pytest.mark.parametrize("precision", ["default", "highest"])
def test_exact_products_are_exact_in_the_backward_pass_too(precision):
    said = (f"model.matmul_precision={precision}", "model.encoder.remat=True", "train.batch_size=1")
    config = for_training(published("realestate10k.py:tiny", *said), Device("cpu"), 10**6)
    setup, key = make_train_setup(config, ()), jax.random.key(0)
    state, example = jax.eval_shape(setup.init, key), abstract_example(config, 1)
    found = list(precisions(jax.make_jaxpr(setup.step)(state, example, key).jaxpr))
    # By default nobody asks for it in networks; geometry is always exact.
    inexact = sum(x is None for x in found)
    assert len(found) > 100 and (inexact == 0 if precision == "highest" else inexact > 50)
