"""LPIPS weights from PyTorch's files."""

import sys

import numpy as np
import pytest

from dfm_jax.errors import UserError
from dfm_jax.interop import lpips_weights
from dfm_jax.interop.state_files import read_state
from dfm_jax.models import lpips
from tests.test_lpips_weights import WITHOUT_TORCH, Malicious, assert_numbered, run, state_dicts


def test_state_dicts_are_taken_name_for_name():
    assert_numbered(lpips_weights.from_state_dicts(*state_dicts()))


def test_all_that_is_wrong_with_state_dicts_is_listed_at_once():
    vgg16, heads = state_dicts()
    vgg16["features.7.weight"] = vgg16.pop("features.5.weight")[0]
    vgg16["features.30.weight"] = heads.pop("lin4.model.1.weight")
    with pytest.raises(UserError) as caught:
        lpips_weights.from_state_dicts(vgg16, heads)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "missing: features.5.weight",
        "missing: lin4.model.1.weight",
        "unexpected: features.30.weight",
        "features.7.weight has shape (64, 3, 3)",
    ]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvisions_file_and_the_heads_become_a_file_that_loads(suffix, tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch", reason=WITHOUT_TORCH)
    safetensors = pytest.importorskip("safetensors.torch", reason=WITHOUT_TORCH)
    save = torch.save if suffix == ".pth" else safetensors.save_file
    files = [tmp_path / f"{name}{suffix}" for name in ("vgg16", "heads")]
    for state, file in zip(state_dicts(), files, strict=True):
        save({name: torch.from_numpy(array) for name, array in state.items()}, file)
    arguments = f"--source={files[0]}", f"--heads={files[1]}", f"--output={tmp_path / 'weights.npz'}"

    status, _, error = run(capsys, *arguments)  # heads of another version look just like these
    assert status == 1
    assert "does not hold the heads of LPIPS 0.1" in error
    assert not (tmp_path / "weights.npz").exists()

    heads = {f"head{i}": 100 * np.ones(count) * i for i, (_, count) in enumerate(lpips.BLOCKS, start=1)}
    monkeypatch.setattr(lpips_weights, "HEADS_SHA256", lpips_weights.digest(heads))
    status, _, error = run(capsys, *arguments)
    assert status == 0
    assert error.startswith("note: ")
    assert_numbered(lpips.load(tmp_path / "weights.npz").params)


@pytest.mark.parametrize("damage", ["malicious", "truncated", "nested", "no file", "no suffix", "text"])
def test_bad_files_of_pytorch_are_refused_unread(damage, tmp_path, capsys):
    torch = pytest.importorskip("torch", reason=WITHOUT_TORCH)
    source = tmp_path / ("vgg16.bin" if damage == "no suffix" else "vgg16.pth")
    content = {"malicious": Malicious(tmp_path / "made"), "nested": {"model": {"a": torch.ones(2)}}}
    torch.save(content.get(damage, {"a": torch.ones(1000)}), source)
    if damage == "truncated":
        source.write_bytes(source.read_bytes()[:-500])
    if damage == "text":
        source.write_text("<html>not found</html>")
    if damage == "no file":
        source.unlink()
    with pytest.raises(UserError, match=str(source)) as caught:
        read_state(source)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_a_damaged_safetensors_file_is_refused(tmp_path):
    pytest.importorskip("safetensors", reason=WITHOUT_TORCH)
    (tmp_path / "vgg16.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match="is damaged"):
        read_state(tmp_path / "vgg16.safetensors")


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "vgg16.pth").touch()
    with pytest.raises(UserError, match=r"needs the library torch: pip install -e '\.\[convert\]'"):
        read_state(tmp_path / "vgg16.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--fetch --source is required"),
        (["--source=vgg16.pth"], "--heads goes with"),
        (["--source=package.tar.gz", "--heads=vgg.pth"], "--heads goes with"),
        (["--fetch", "--heads=vgg.pth"], "--heads goes with"),
        (["--source=weights.bin"], "must end in"),
        (["--source=nowhere.tar.gz"], "there is no file nowhere.tar.gz"),
    ],
)
def test_mistakes_on_the_command_line_are_one_clear_error(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, error = run(capsys, *arguments)
    assert (status, out) == (1, "")
    assert error.startswith("error: ")
    assert message in error
