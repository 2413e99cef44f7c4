"""Inversion of a generator: what parts of pictures leave open is known, and examples hold parts only.

`tests/test_forward_models.py` holds the model to the laws of all; `configs/generator.py` says how well it learns.
"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config.command_line import read_config
from dfm_jax.errors import UserError
from dfm_jax.forward_models import generator, glyph_decoder, glyphs, train_glyph_decoder
from dfm_jax.forward_models.generator import GeneratorModel, observe_pictures
from dfm_jax.forward_models.protocol import DiscretePosterior, EstimatedSignals, MeasuredSignals, PartlyFrozenModel
from dfm_jax.runs.compatibility import check_same_config
from tests.tiny import jit

MODEL = GeneratorModel(width=8, depth=1)
CONFIG = str(pathlib.Path(__file__).resolve().parents[1] / "configs" / "generator.py:tiny")
EVERY = np.arange(len(glyphs.DIGITS))


def test_a_run_whose_decoder_file_has_gone_goes_on_with_the_weights_of_its_checkpoint(tmp_path):
    config = read_config(CONFIG, [])
    saved = dataclasses.asdict(config) | {"model": dataclasses.asdict(config.model) | {"decoder_file": "gone.npz"}}
    check_same_config(saved, config, tmp_path)
    with pytest.raises(UserError, match="init_from brings a generator of its own"):
        read_config(CONFIG, ["--config.init_from=runs/other", "--config.model.decoder_file=mine.npz"])


def same_but_for_the_digit(count: int) -> np.ndarray:
    """Pictures [k, count, h, w, 3]: of each digit, which otherwise are the same."""
    others, _ = glyphs.digits(np.random.default_rng(0).uniform(size=(count, 6)))
    of_digit = lambda k: others.replace(strength=np.tile(glyphs.IS_STROKE[k].astype(np.float32), (count, 1)))
    return np.stack([glyphs.render(of_digit(k)) for k in EVERY])


def test_digits_that_a_view_leaves_open_look_the_same_there_and_others_never_do():
    pictures = same_but_for_the_digit(200)
    for view, mask in enumerate(glyphs.masks()):
        seen = pictures[:, :, mask].reshape(len(EVERY), 200, -1)
        differ = np.abs(seen[:, None] - seen[None]).max(-1)  # [k, k, count]
        possible = glyphs.odds(EVERY, np.full(len(EVERY), view)) > 0
        assert np.all(differ[possible] == 0) and np.all(differ[~possible].max(-1) > 0.2)
        assert np.all(differ[~possible] > 0.05)


def test_odds_are_those_of_draws_with_the_same_view():
    rng, count = np.random.default_rng(1), 100_000
    _, digit = glyphs.digits(rng.uniform(size=(count, 6)))
    given = glyphs.odds(EVERY, np.zeros(len(EVERY), int))  # in the upper view
    np.testing.assert_allclose(given.sum(1), 1)
    for seen in (EVERY[8], EVERY[5]):
        alike = np.isin(digit, EVERY[given[seen] > 0])
        shares = np.bincount(digit[alike], minlength=len(EVERY)) / alike.sum()
        np.testing.assert_allclose(shares, given[seen], atol=0.01)  # three standard errors of 20 000 draws
    np.testing.assert_allclose(np.bincount(digit) / count, glyphs.PROBABILITIES, atol=0.005)  # likewise


def test_true_pictures_are_read_without_a_mistake_and_mixtures_are_not_read():
    pictures = same_but_for_the_digit(30)
    found = glyphs.read(pictures.reshape(-1, *pictures.shape[2:])).reshape(len(EVERY), -1)
    np.testing.assert_array_equal(found, np.broadcast_to(EVERY[:, None], found.shape))
    for one, other in ((0, 8), (3, 9), (5, 6)):
        assert np.all(glyphs.read(0.5 * (pictures[one] + pictures[other])) == -1)
    assert np.all(glyphs.read(np.full((2, glyphs.SIDE, glyphs.SIDE, 3), 0.3)) == -1)


def test_an_example_holds_parts_of_a_picture_that_is_drawn_again_to_judge_by():
    example = MODEL.generate(3, np.arange(250, 270), held_out=True)  # of two blocks
    pictures, digit = generator._truth(example)
    for part, view in ((example.context, example.context_view), (example.part, example.part_view)):
        shown = glyphs.masks()[view]
        assert np.all(part[~shown] == 0)
        np.testing.assert_allclose(part[shown], 2 * pictures[shown] - 1, atol=1e-6)
    grey = pictures.reshape(20, 8, 2, 8, 2, 3).mean((2, 4, 5))
    np.testing.assert_allclose(example.target[..., 0], (2 * grey - 0.69) / 0.57, atol=1e-5)
    assert set(example.context_view) == {0, 1, 2, 3} and np.abs(example.target).max() < 1.1
    odds = MODEL.value_odds(example)
    assert np.all(odds[np.arange(20), digit] > 0) and odds.max() == 1 and odds.min(1).max() == 0
    without = MODEL.drop_context(example, np.ones(20, bool))
    np.testing.assert_allclose(MODEL.value_odds(without), np.broadcast_to(glyphs.PROBABILITIES, odds.shape))


def test_what_is_known_of_signals_is_that_of_their_pictures():
    params, example = jit(MODEL.init)(jax.random.key(0)), MODEL.generate(0, np.arange(3), held_out=True)
    assert isinstance(MODEL, DiscretePosterior) and isinstance(MODEL, MeasuredSignals)
    assert isinstance(MODEL, EstimatedSignals) and isinstance(MODEL, PartlyFrozenModel)
    signal = np.random.default_rng(0).normal(size=(3, 2, glyph_decoder.LATENT)).astype(np.float32)
    shown = MODEL.pictures(params, example, signal)
    made, truth = shown["sample"], shown["truth"]
    errors = MODEL.signal_errors(params, example, signal)
    np.testing.assert_allclose(errors["picture_error"], np.sqrt(((made - truth) ** 2).mean((2, 3, 4))), rtol=1e-5)
    flat = made.reshape(6, *made.shape[2:])
    np.testing.assert_array_equal(MODEL.read_values(params, example, signal).ravel(), glyphs.read(flat))
    seen = MODEL.observe(params, jnp.asarray(signal[:, 0]), jnp.asarray(example.context_view))
    expected = observe_pictures(made[:, 0], example.context_view, np)
    np.testing.assert_allclose(seen.part, expected.part, atol=1e-6)
    error = np.sqrt(
        ((seen.part - example.context) ** 2).sum((1, 2, 3)) / (3 * glyphs.masks()[example.context_view].sum((1, 2)))
    )
    np.testing.assert_allclose(errors["context_error"][:, 0], error / 2, rtol=1e-5)  # in [-1, 1] there


def test_the_command_makes_a_generator_that_the_model_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_glyph_decoder, "BATCH", 8)
    monkeypatch.setattr(train_glyph_decoder, "BATCHES_AT_ONCE", 2)
    file = tmp_path / "decoder.npz"
    assert train_glyph_decoder.main([f"--out={file}", "--steps=4"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["bytes"] == file.stat().st_size and 0 < told["error"] < 1
    params = jit(GeneratorModel(8, 1, str(file)).init)(jax.random.key(0))
    kernel, shipped = (layers["layer_0"]["kernel"] for layers in (params["generator"], glyph_decoder.load()))
    np.testing.assert_array_equal(kernel, glyph_decoder.load(str(file))["layer_0"]["kernel"])
    assert not np.array_equal(kernel, shipped)
    assert glyph_decoder.SHIPPED.stat().st_size < 500_000
    assert train_glyph_decoder.main([f"--out={tmp_path / 'nowhere' / 'decoder.npz'}", "--steps=4"]) == 1
    assert "nowhere/decoder.npz cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"nothing", "another"])
def test_weights_that_cannot_be_used_are_one_clear_error(content, tmp_path):
    file: pathlib.Path = tmp_path / "decoder.npz"
    if content == "another":
        glyph_decoder.save(file, glyph_decoder.init(jax.random.key(0), (4, 8)))
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"decoder_file: .*(there is no file|is damaged|is of another network)"):
        glyph_decoder.load(str(file))
