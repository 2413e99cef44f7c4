"""What a result was made from is known by its content: not by names, places or training steps."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dfm_jax.data.builders import procedural
from dfm_jax.data.loading import dataset
from dfm_jax.data.preparing import building, posed_scenes
from dfm_jax.runs import earlier_results, fingerprints


def tree():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(8, 6)).astype(np.float32)
    return {"a": {"kernel": kernel, "bias": np.zeros(6, np.float32)}, "step": np.int32(3)}


def changed(change):
    other = tree()
    change(other)
    return other


def test_arrays_are_the_same_wherever_they_lie_and_however_they_are_ordered():
    known = fingerprints.of_arrays(tree())
    assert len(known) == fingerprints.DIGITS
    assert fingerprints.of_arrays(dict(reversed(tree().items()))) == known
    assert fingerprints.of_arrays(jax.tree.map(jnp.asarray, tree())) == known
    # Split over as many devices as there are, along each axis; a transposed copy in memory.
    mesh = Mesh(np.array(jax.devices()[: 2 if len(jax.devices()) > 1 else 1]), ("x",))
    for spec in (P("x"), P(None, "x")):
        split = tree()
        split["a"]["kernel"] = jax.device_put(split["a"]["kernel"], NamedSharding(mesh, spec))
        assert fingerprints.of_arrays(split) == known
    split["a"]["kernel"] = np.asfortranarray(tree()["a"]["kernel"])
    assert fingerprints.of_arrays(split) == known


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["a"]["kernel"].__setitem__((7, 5), np.nextafter(t["a"]["kernel"][7, 5], np.float32(9))),
        lambda t: t["a"]["bias"].__setitem__(0, -0.0),
        lambda t: t["a"].update(kernel=t["a"]["kernel"].reshape(6, 8)),
        lambda t: t["a"].update(bias=t["a"]["bias"].view(np.int32)),
        lambda t: t["a"].update(offset=t["a"].pop("bias")),
        lambda t: t.update(step=np.int32(4)),
        lambda t: t.update(step=np.array([3], np.int32)),
    ],
    ids=["one bit", "sign of zero", "shape", "type", "name", "number", "rank"],
)
def test_every_bit_shape_type_and_name_counts(change):
    assert fingerprints.of_arrays(changed(change)) != fingerprints.of_arrays(tree())


def test_numbers_of_16_bits_have_fingerprints():
    a, b = (fingerprints.of_arrays({"w": jnp.full(3, x, jnp.bfloat16)}) for x in (1.0, 1.0078125))
    assert a != b


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Toy data sets: `a`, the same again as `b`, the same scenes in other colours, and with a scene more."""
    data_dir = tmp_path_factory.mktemp("data")
    for name, scenes, seed in (("a", 3, 0), ("b", 3, 0), ("colours", 3, 1), ("more", 4, 0)):
        building.prepare(procedural.ToySource(scenes, 4, seed), data_dir, name, posed_scenes.StoreOptions(0, 3))
    return data_dir


def of(folder, name, split="train"):
    return dataset.open_dataset(folder, name, split).fingerprint()


def test_a_data_set_is_known_by_its_content_and_not_by_its_name(folder):
    assert of(folder, "a") == of(folder, "b")
    assert fingerprints.changes_of_split(of(folder, "a"), of(folder, "b")) == ""
    assert of(folder, "a") != of(folder, "a", "test") and of(folder, "a", "test") == of(folder, "b", "test")
    assert json.loads(json.dumps(of(folder, "a"))) == of(folder, "a")


def test_what_changed_of_a_data_set_is_said_and_nothing_else(folder):
    changes = fingerprints.changes_of_split(of(folder, "a"), of(folder, "colours"))
    assert changes == "scenes of the same names and lengths, but other files (checksums differ)"
    assert fingerprints.changes_of_split(of(folder, "a"), of(folder, "more")) == "scenes 3 -> 4, frames 39 -> 52"
    index = dataset.read_index(folder, "a")
    for change, said in (
        ({"holdout": 4}, "every so many frames held out 0 -> 4"),
        ({"splits": {"train": index["splits"]["train"] | {"names": ["x", "y", "z"]}}}, "other names of scenes, or"),
    ):
        other = fingerprints.of_split(index | change, "train")
        assert fingerprints.changes_of_split(of(folder, "a"), other).startswith(said)


def test_of_a_data_set_without_checksums_no_change_is_claimed(folder):
    index = copy.deepcopy(dataset.read_index(folder, "a"))
    del index["files"]
    old = fingerprints.of_split(index, "train")
    assert old["files"] is None
    assert fingerprints.changes_of_split(old, of(folder, "colours")) == ""
    assert fingerprints.changes_of_split(of(folder, "a"), old) == ""


def test_differences_are_named_and_long_values_are_not_shown():
    old = {"step": 7, "sample": {"num_steps": 4, "sampler": "ddim"}, "views": list(range(100)), "gone": 1}
    new = {"step": 7, "sample": {"num_steps": 8, "sampler": "ddim"}, "views": list(range(101)), "come": 2}
    assert fingerprints.differences(old, new) == [
        "sample.num_steps: 4 -> 8",
        "views",
        "gone: 1 -> (unknown)",
        "come: (unknown) -> 2",
    ]
    assert fingerprints.differences(old, old) == []


# --- results that are continued, or set aside

MADE_FROM = {"parameters": "aaaa", "seed": 0, "views": [[0, 1]]}


def results(tmp_path, made_from):
    """A folder with one result, as a command that writes such leaves it."""
    folder = tmp_path / "evaluation"
    earlier_results.open_for(folder, made_from, ("*.txt",))
    (folder / "1.txt").write_text("result")
    (folder / ".lock").write_text("held")
    return folder


def test_results_of_the_same_are_gone_on_with(tmp_path):
    folder = results(tmp_path, MADE_FROM)
    assert earlier_results.open_for(folder, dict(reversed(MADE_FROM.items())), ("*.txt",)) == ""
    assert (folder / "1.txt").read_text() == "result" and [p.name for p in tmp_path.iterdir()] == ["evaluation"]


def test_results_of_something_else_are_set_aside_whole_and_said(tmp_path):
    for n in (1, 2):
        folder = results(tmp_path, MADE_FROM)
        line = earlier_results.open_for(folder, MADE_FROM | {"parameters": "bbbb", "views": []}, ("*.txt",))
        kept = tmp_path / f"evaluation-old-{n}"
        assert "\n" not in line and line == (
            f"{folder} holds results of something else (parameters: aaaa -> bbbb; views: [[0, 1]] -> []): "
            f"kept as {kept}, starting anew"
        )
        assert (kept / "1.txt").read_text() == "result"
        assert json.loads((kept / "settings.json").read_text()) == MADE_FROM
        assert sorted(path.name for path in folder.iterdir()) == [".lock", "settings.json"]
        (folder / "settings.json").write_text(json.dumps(MADE_FROM))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('{"seed": 0, "views": [[0, 1]]}', "do not say of which parameters they are (of an earlier version)"),
        ("{", "not what they were made from"),
        ("[]", "do not say of which parameters and seed and views they are"),
        ("3", "not what they were made from"),
        (None, "not what they were made from"),
    ],
)
def test_results_that_do_not_say_what_made_them_are_not_gone_on_with(settings, said, tmp_path):
    folder = results(tmp_path, MADE_FROM)
    (folder / "settings.json").unlink()
    if settings is not None:
        (folder / "settings.json").write_text(settings)
    assert said in earlier_results.open_for(folder, MADE_FROM, ("*.txt",))
    assert (tmp_path / "evaluation-old-1" / "1.txt").exists() and not (folder / "1.txt").exists()


def test_where_there_is_no_result_yet_nothing_is_set_aside(tmp_path):
    folder = results(tmp_path, MADE_FROM)
    (folder / "1.txt").unlink()
    assert earlier_results.open_for(folder, MADE_FROM | {"seed": 1}, ("*.txt",)) == ""
    assert json.loads((folder / "settings.json").read_text())["seed"] == 1
    assert not (tmp_path / "evaluation-old-1").exists()
