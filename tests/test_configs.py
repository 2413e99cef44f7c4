"""Config files: variants that combine, what a file need not state, and files in other folders."""

import ast
import importlib
import itertools
import pathlib
import shutil

import pytest

from dfm_jax.config import LossConfig, ModelConfig, files
from dfm_jax.config.command_line import read_config
from dfm_jax.config.reading import flatten, from_dict
from dfm_jax.config.variants import combine
from dfm_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = [path.stem for path in sorted((ROOT / "configs").glob("*.py")) if path.stem != "published"]
OF_SCENES = [name for name in CONFIGS if isinstance(read_config(f"{ROOT}/configs/{name}.py").model, ModelConfig)]
# As they were spelled when there were no others.
OF_PAPERS = ["", "pixelnerf", "64", "128", "tiny", "pixelnerf-resnet34", "64-resnet34", "128-resnet34"]
OF_PAPERS += ["64-lean", "128-lean", "tiny-lean", "tiny-fine"]
OF_TOY = ["", "calibrated", "pixelnerf", "tiny", "resnet34", "pixelnerf-resnet34", "lean", "fine"]
VARIANTS = [("toy", variant) for variant in OF_TOY] + [("captures", variant) for variant in ("", "64", "tiny")]
VARIANTS += [(name, variant) for name in ("realestate10k", "co3d") for variant in OF_PAPERS]


def load(name, variant):
    return files.load(str(ROOT / "configs" / f"{name}.py"), *([variant] if variant else []))


def choices(name):
    return importlib.import_module(f"configs.{name}").VARIANTS


def combinations(name):
    """All sets of variants that do not exclude each other."""
    for chosen in itertools.product(*[("", *choice) for choice in choices(name)]):
        yield [variant for variant in chosen if variant]


@pytest.mark.parametrize("name", OF_SCENES)
def test_variants_combine_whatever_their_order_and_each_does_what_it_says(name):
    for chosen in combinations(name):
        config = from_dict(load(name, ",".join(chosen)))
        assert config == from_dict(load(name, ",".join(reversed(chosen)))), chosen
        model = config.model
        assert config.data.name == name
        assert config.image_size == 128 or "128" not in chosen
        assert (model.encoder.name == "resnet34") == ("resnet34" in chosen)
        assert (model.proposal is not None) == ("lean" in chosen)
        assert model.ray_marching.num_fine > 0 or not {"lean", "fine"} & set(chosen)
        assert model.deterministic == ("pixelnerf" in chosen)
        assert config.train.num_steps <= 300 or "tiny" not in chosen


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_the_earlier_spelling_of_variants_is_that_of_now(name, variant):
    config = from_dict(load(name, variant))
    assert config == from_dict(load(name, variant.replace("-", ",")))
    size = {"128": 128, "64": 64, "": 24 if name == "toy" else 64}
    assert config.image_size == size.get(variant.removesuffix("-resnet34"), config.image_size)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_are_short_and_say_how_to_run_them_and_what_variants_there_are(name):
    text = (ROOT / "configs" / f"{name}.py").read_text()
    said = ast.get_docstring(ast.parse(text))
    assert f"--config=configs/{name}.py" in said and len(text.splitlines()) < 90
    words = [word for choice in choices(name) for word in choice]
    assert [word for word in words if f"`{word}`" not in said and f".py:{word}" not in said] == []


def test_a_loss_of_which_nothing_is_said_is_that_on_the_target():
    config = load("linear", "")
    del config.loss
    assert from_dict(config).loss == LossConfig()


CHOICES = ({"small": lambda config: config.append("small"), "large": None}, {"fast": lambda config: config.append("f")})


def test_changes_are_made_in_the_order_of_the_choices():
    assert combine([], "fast,small", *CHOICES) == combine([], "small-fast", *CHOICES) == ["small", "f"]
    assert combine([], "", *CHOICES) == combine([], "large", *CHOICES) == []


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("huge", "no variant 'huge', only small or large; fast"),
        ("small,", "no variant '', only small or large; fast"),
        ("small,fast,large", "one of variants small, large at most: there are small or large; fast"),
        ("fast,fast", "one of variants fast, fast at most"),
    ],
)
def test_variants_that_cannot_be_are_one_line_that_lists_those_there_are(variant, said):
    with pytest.raises(UserError, match=said) as error:
        combine([], variant, *CHOICES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_setting_can_be_overridden_also_one_that_a_file_does_not_state(name):
    flat = flatten(read_config(f"configs/{name}.py"))
    stated = flatten(importlib.import_module(f"configs.{name}").get_config().to_dict())
    assert stated.keys() < flat.keys() and "train.optimizer.skip_spikes" not in stated
    given = [f"--config.{setting}={value}" for setting, value in flat.items() if value is not None]
    assert flatten(read_config(f"configs/{name}.py", given)) == flat
    changed = read_config(f"configs/{name}.py", ["--config.train.optimizer.skip_spikes=5", "--config.init_from=~/run"])
    assert changed.train.optimizer.skip_spikes == 5 and changed.init_from == str(pathlib.Path("~/run").expanduser())


def test_a_copied_config_finds_what_it_shares_beside_it_or_in_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "configs" / "co3d.py", "mine.of.co3d.py")
    assert read_config("mine.of.co3d.py:tiny,lean") == read_config(f"{ROOT}/configs/co3d.py:tiny,lean")
    shared = (ROOT / "configs" / "published.py").read_text()
    (tmp_path / "published.py").write_text(shared.replace("seed=0", "seed=7"))
    assert read_config("mine.of.co3d.py").seed == 7
    assert read_config(f"{ROOT}/configs/co3d.py").seed == 0


def test_what_configs_share_is_no_config():
    with pytest.raises(UserError, match=r"published.py: AttributeError: .* has no attribute 'get_config'"):
        read_config("configs/published.py")
    with pytest.raises(UserError, match=r"those that come with the package: (?!.*published)"):
        read_config("configs/nowhere.py")
