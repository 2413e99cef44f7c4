"""The paper's stages on toy data, as small as they go: pixelNeRF, diffusion from it, and more pixels."""

import copy
from functools import partial

import jax
import numpy as np
import pytest

from configs import toy as toy_config
from dfm_jax.commands.sample import sample
from dfm_jax.config.reading import from_dict
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import UserError
from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.runs.metric_writers import read_metrics
from dfm_jax.training import loop
from dfm_jax.training.data import PosedScenes
from dfm_jax.training.initialization import compare_position_codes
from tests.forward_model_cases import made_up_start

SIZE = 8

train = partial(loop.train, make_setup=made_up_start, open_data=partial(PosedScenes.open, prepare=with_data_set))


def stage(folder, variant="", **settings):
    """A tiny config that trains for two steps; dotted names as on the command line, with `_` for the dots' place."""
    config = toy_config.get_config(variant)
    config.image_size = SIZE
    config.data.update(dir=str(folder / "data"), toy_scenes=8)
    config.model.rendered_features = 4
    config.model.encoder.update(depth=1, width=16, num_heads=2, features=8)
    for field in {"conditioning_field", "scene_field"} & {k for k, v in config.model.items() if v is not None}:
        config.model[field].update(width=8, view_blocks=1, joint_blocks=1)
    config.model.ray_marching.num_coarse = 4
    if variant == "":
        config.model.estimate_size = SIZE // 2
        config.model.ray_marching.num_conditioning = 4
    config.loss.patch_size = 4
    config.train.update(num_steps=2, batch_size=4, checkpoint_every=2, log_every=1, sample_every=0)
    config.train.optimizer.update(warmup_steps=1, learning_rate=1e-2)
    config.sample.update(num_scenes=2, video_frames=3, scenes_in_3d=0)
    config.update(settings)
    return config


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The folder of three runs: the second and the third start from the first, and learn nothing."""
    folder = tmp_path_factory.mktemp("stages")
    frozen = stage(folder).train
    frozen.optimizer.learning_rate = 0.0
    first = stage(folder, "pixelnerf")
    second = stage(folder, init_from=str(folder / "pixelnerf"), init_rule="pixelnerf", train=frozen)
    third = stage(folder, "pixelnerf", init_from=str(folder / "pixelnerf"), train=frozen)  # half the program
    third.image_size, third.data.dir = 2 * SIZE, str(folder / "more_pixels")
    for name, config in (("pixelnerf", first), ("small", second), ("large", third)):
        assert train(from_dict(config), folder / name) == loop.EXIT_DONE
    return folder


def test_all_stages_train(chain):
    for name in ("pixelnerf", "small", "large"):
        assert [line["step"] for line in read_metrics(chain / name)] == [1, 2]
        assert all(np.isfinite(line["loss"]) for line in read_metrics(chain / name))


def began_with(chain, before, after):
    """The average that a stage ended with, and the parameters of the next: these have not moved, to the bit. (The next
    one's average may have: processors round a mean of equal numbers to either side of them.)"""
    return restore_params(chain / before)[0], restore_params(chain / after, "params")[0]


def test_diffusion_starts_with_what_pixelnerf_ended_with(chain):
    before, after = began_with(chain, "pixelnerf", "small")
    assert "conditioning_field" not in before
    jax.tree.map(np.testing.assert_array_equal, after["conditioning_field"], before["scene_field"]["coarse"])
    jax.tree.map(np.testing.assert_array_equal, after["scene_field"], before["scene_field"])
    jax.tree.map(np.testing.assert_array_equal, after["encoder"]["blocks"], before["encoder"]["blocks"])


def test_more_pixels_start_with_all_that_fewer_pixels_ended_with(chain):
    before, after = began_with(chain, "pixelnerf", "large")
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.parametrize(("grid", "said"), [(0, ["position_grid=2"]), (2, [])])
def test_other_places_than_those_that_were_learnt_are_mentioned(chain, capsys, grid, said):
    config = stage(chain)
    config.image_size, config.model.encoder.position_grid = 2 * SIZE, grid
    compare_position_codes(restore_params(chain / "small")[2], from_dict(config), "small")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(said) and all(name in line for name, line in zip(said, lines, strict=True))


def test_pixelnerf_is_sampled_by_the_same_command(chain):
    config = stage(chain, "pixelnerf")
    summary = sample(from_dict(config), chain / "pixelnerf")
    assert [len(scene.samples) for scene in summary.scenes] == [1, 1]
    for scene in summary.scenes:
        arrays = np.load(chain / "pixelnerf" / "samples" / scene.arrays)
        assert arrays["samples"].shape == (1, SIZE, SIZE, 3) and arrays["hidden"].any()
        assert scene.estimate_psnr == pytest.approx(scene.samples[0].target_psnr, abs=1e-4)  # they are one picture


def test_a_stage_that_needs_a_rule_says_so(chain):
    config = stage(chain, init_from=str(chain / "pixelnerf"))
    with pytest.raises(UserError, match=r"set config\.init_rule='pixelnerf'"):
        train(from_dict(config), chain / "refused")


def test_pixelnerf_takes_no_settings_of_what_it_has_not(chain):
    config = copy.deepcopy(stage(chain, "pixelnerf"))
    config.sample.num_steps = 10
    with pytest.raises(UserError, match=r"sample\.num_steps must be 1 with model\.name='pixelnerf'"):
        from_dict(config)
