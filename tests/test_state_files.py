"""Files of arrays from elsewhere: what comes out, and that nothing damaged, hostile or misnamed gets in."""

import importlib.util
import pathlib
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest

from dfm_jax.interop import state_files
from dfm_jax.interop.state_files import StateFileError, read_state, read_tree, write_tree

STATE = {
    "layer.weight": np.arange(600, dtype=np.float32).reshape(20, 30),
    "layer.bias": np.float16([1.5, -2]),
    "count": np.array(7),
}


def torch():
    return pytest.importorskip("torch", reason="torch is not installed: nothing here can write a .pt file")


def written(tmp_path, suffix):
    path = tmp_path / f"state{suffix}"
    if suffix == ".npz":
        np.savez(path, **STATE)
    else:
        if suffix == ".pt":
            torch()
        write_tree(path, STATE)
    return path


@pytest.fixture(params=[".pt", ".safetensors", ".npz"])
def path(request, tmp_path):
    return written(tmp_path, request.param)


READ = STATE | {"layer.bias": np.float32([1.5, -2])}  # what comes back of it


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], strict=True)


def test_arrays_come_back_with_their_types_and_half_the_bits_as_float32(path):
    assert_equal(read_state(path), READ)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
def test_bfloat16_is_read_as_float32(suffix, tmp_path):
    wide = np.float32([1.5, -2.25, 1e30, 0])
    path = tmp_path / f"state{suffix}"
    if suffix == ".pt":
        torch().save({"x": torch().from_numpy(wide).bfloat16()}, path)
    elif suffix == ".npz":
        np.savez(path, x=wide.astype(ml_dtypes.bfloat16))
    else:
        write_tree(path, {"x": wide.astype(ml_dtypes.bfloat16)})
    assert_equal(read_state(path), {"x": wide.astype(ml_dtypes.bfloat16).astype(np.float32)})


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_numbers_tell_how_many_bits_they_were_stored_with(dtype):
    exact = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    stored = exact.astype(dtype).astype(np.float32)
    error = np.max(np.abs(stored / exact - 1))
    assert state_files.precision(exact) == 0
    assert error < state_files.precision(stored) < 10 * error


@pytest.mark.parametrize("wrap", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "_orig_mod.module.{}"])
def test_names_of_wrapped_models_are_read_as_their_own_and_it_is_said(wrap, tmp_path, caplog):
    path = tmp_path / "state.safetensors"
    write_tree(path, {wrap.format(name): array for name, array in STATE.items()})
    assert read_state(path).keys() == STATE.keys()
    assert all(f"'{part}.'" in caplog.text for part in wrap.split(".")[:-1])
    caplog.clear()
    write_tree(tmp_path / "plain.safetensors", STATE)
    read_state(tmp_path / "plain.safetensors")
    assert not caplog.text


def test_names_that_would_be_the_same_are_refused(tmp_path):
    write_tree(tmp_path / "state.safetensors", {"module.a": np.zeros(2), "a": np.ones(2)})
    with pytest.raises(StateFileError, match="differ by module or _orig_mod only"):
        read_state(tmp_path / "state.safetensors")


def test_truncated_anywhere_is_one_clear_error(path):
    content = path.read_bytes()
    for size in (0, 1, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(StateFileError, match="is damaged") as error:
            read_tree(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pt", ".npz"])
def test_a_changed_number_is_noticed_by_its_checksum(suffix, tmp_path):
    path = written(tmp_path, suffix)
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(300).tobytes()) + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StateFileError, match="is damaged"):
        read_tree(path)


@pytest.mark.parametrize("suffix", state_files.SUFFIXES)
def test_a_file_of_another_kind_than_its_name_says_is_refused(path, suffix):
    if suffix in state_files.TORCH:
        torch()
    if suffix == path.suffix or (path.suffix, suffix) == (".pt", ".pth"):
        return
    renamed = path.rename(path.with_suffix(suffix))
    # A .pt is a zip archive, and so is an .npz: one may be read as the other, but then holds no arrays.
    with pytest.raises(StateFileError):
        read_state(renamed)


def test_files_that_are_not_there_or_have_unknown_names_are_refused(tmp_path):
    with pytest.raises(StateFileError, match="there is no file"):
        read_tree(tmp_path / "nothing.pt")
    with pytest.raises(StateFileError, match="can be read are"):
        read_tree(tmp_path / "model.h5")
    with pytest.raises(StateFileError, match="can be written are"):
        write_tree(tmp_path / "model.npz", STATE)


class Malicious:
    """Makes a file, wherever it is unpickled."""

    def __init__(self, trace: pathlib.Path):
        self.trace = trace

    def __reduce__(self):
        return pathlib.Path.touch, (self.trace,)


def malicious_files(tmp_path):
    bad, good = Malicious(tmp_path / "trace"), np.zeros(2, np.float32)
    np.savez(tmp_path / "bad.npz", good=good, bad=np.array([bad], dtype=object))
    (tmp_path / "pickled.npz").write_bytes(pickle.dumps({"good": good, "bad": bad}))
    yield from (tmp_path / "bad.npz", tmp_path / "pickled.npz")
    if importlib.util.find_spec("torch"):
        torch().save({"model": {"bad": bad}}, tmp_path / "bad.pt")
        torch().save({"bad": bad}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        (tmp_path / "pickled.pt").write_bytes(pickle.dumps(bad, protocol=2))
        yield from (tmp_path / "bad.pt", tmp_path / "old.pt", tmp_path / "pickled.pt")


def test_what_would_run_code_is_refused_and_not_run(tmp_path):
    for path in malicious_files(tmp_path):
        with pytest.raises(StateFileError) as error:
            read_tree(path)
        assert not (tmp_path / "trace").exists(), path
        assert "\n" not in str(error.value)
        # Not even the advice to read the file unsafely, which libraries give here.
        assert "weights_only" not in str(error.value)
        assert "refused" in str(error.value) or path.suffix == ".npz"


def test_nested_dicts_and_plain_values_of_a_pt(tmp_path):
    path, shared = tmp_path / "model.pt", STATE["layer.weight"]
    torch()
    write_tree(path, {"model": STATE, "ema": {"same": shared}, "step": 12, "name": "x"})
    tree = read_tree(path)
    assert (tree["step"], tree["name"]) == (12, "x")
    assert_equal(tree["model"], READ)
    assert_equal(read_state(path, "ema"), {"same": shared})
    assert path.stat().st_size < 2 * shared.nbytes  # stored once
    with pytest.raises(StateFileError, match="also has: model, ema, step, name"):
        read_state(path)
    with pytest.raises(StateFileError, match="no part 'opt', only: model, ema, step, name"):
        read_state(path, "opt")


def test_a_folder_in_the_names_of_an_npz_is_a_part(tmp_path):
    np.savez(tmp_path / "a.npz", **{"params/x": np.ones(2), "inputs/y": np.zeros(3)})
    assert_equal(read_state(tmp_path / "a.npz", "params"), {"x": np.ones(2)})
    np.savez(tmp_path / "b.npz", **{"a": np.ones(2), "a/b": np.zeros(3)})
    with pytest.raises(StateFileError, match="'a/b' is there twice"):
        read_tree(tmp_path / "b.npz")


def test_tensors_that_numpy_cannot_hold_or_that_are_larger_than_their_file(tmp_path):
    t = torch()
    t.save({"a": t.tensor([1.5, 3e38], dtype=t.bfloat16), "b": t.nn.Parameter(t.ones(2))}, tmp_path / "a.pt")
    state = read_state(tmp_path / "a.pt")
    assert state["a"].dtype == np.float32
    assert state["a"][0] == 1.5
    assert_equal({"b": state["b"]}, {"b": np.ones(2, np.float32)})
    t.save({"huge": t.zeros(1).expand(10**12)}, tmp_path / "b.pt")
    with pytest.raises(StateFileError, match="1000000000000"):
        read_tree(tmp_path / "b.pt")


def test_the_format_of_before_torch_1_6_is_read(tmp_path):
    t = torch()
    t.save({"a": t.arange(3.0)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert_equal(read_state(tmp_path / "a.pth"), {"a": np.arange(3, dtype=np.float32)})


def test_without_torch_only_pt_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for suffix in (".safetensors", ".npz"):
        assert_equal(read_state(written(tmp_path, suffix)), READ)
    (tmp_path / "a.pt").write_bytes(b"anything")
    with pytest.raises(StateFileError, match=r"needs the library torch: pip install -e '\.\[convert\]'"):
        read_tree(tmp_path / "a.pt")
    with pytest.raises(StateFileError, match="needs the library torch"):
        write_tree(tmp_path / "b.pt", STATE)
    assert not list(tmp_path.glob("*b.pt*"))


def test_nothing_is_overwritten_or_left_half_written(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.safetensors"
    write_tree(path, STATE)
    with pytest.raises(StateFileError, match="exists already"):
        write_tree(path, {"other": np.ones(2)})
    assert_equal(read_state(path), READ)
    with pytest.raises(Exception, match=r"."):
        write_tree(tmp_path / "new" / "b.safetensors", STATE | {"text": np.array(["x"])})
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]
