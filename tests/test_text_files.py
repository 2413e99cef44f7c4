"""Text files of every format mean the same however they are encoded and their lines end; other encodings are named."""

import functools
import gzip
import json

import numpy as np
import pytest

from dfm_jax.data.builders.co3d import CO3DSource
from dfm_jax.data.builders.colmap import ColmapSource
from dfm_jax.data.builders.middlebury import MiddleburySource
from dfm_jax.data.builders.realestate10k import RealEstate10KSource
from dfm_jax.data.builders.transforms_json import TransformsSource
from dfm_jax.data.loading import text_files
from dfm_jax.errors import Rejected
from dfm_jax.evaluation import evaluation_index
from tests import format_sources, test_formats
from tests.captures_source import write_colmap, write_middlebury, write_transforms
from tests.co3d_source import write_category, write_json
from tests.realestate10k_source import write_clip

BLACK = (0, 0, 0)
WAYS = {
    "mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "cr": lambda text: text.replace("\n", "\r").encode(),
    "mark, crlf, no end": lambda text: b"\xef\xbb\xbf" + text.strip().replace("\n", "\r\n").encode(),
}


def _category(root):
    write_json(root / "apple" / "set_lists.json", {"train_known": [["seq", 0, "x"]]})
    return write_category(root, "apple", {"seq": 4})


FORMATS = {
    "transforms": (lambda root: write_transforms(root), lambda root: TransformsSource(root, BLACK), "*.json"),
    "colmap": (lambda root: write_colmap(root, text=True), lambda root: ColmapSource(root, BLACK), "*.txt"),
    "middlebury": (lambda root: write_middlebury(root), lambda root: MiddleburySource(root, BLACK), "*_par.txt"),
    "realestate10k": (lambda root: write_clip(root, "clip"), RealEstate10KSource, "*.txt"),
    "co3d": (_category, CO3DSource, "*.j[gs][zo]*"),
}
TEXTS = {"dl3dv": "*.json", "mvsnet": "*_cam.txt", "opensfm": "*.json", "polycam": "*0.json", "record3d": "metadata"}
TEXTS |= {"scannetpp": "*.json", "srn": "*.txt"}
FORMATS |= {
    kind: (format_sources.WRITERS[kind], functools.partial(test_formats.source, kind), pattern)
    for kind, pattern in TEXTS.items()
}


def scenes(source):
    return [source.read(split, name) for split, names in source.splits().items() for name in names]


def rewrite(root, pattern, encode):
    """Encodes the text of all files anew; gzipped ones stay so."""
    for path in root.rglob(pattern):
        content = path.read_bytes()
        if path.suffix == ".jgz":
            path.write_bytes(gzip.compress(encode(gzip.decompress(content).decode())))
        else:
            path.write_bytes(encode(content.decode()))


@pytest.mark.parametrize("kind", FORMATS)
def test_text_means_the_same_however_it_is_written(tmp_path, kind):
    write, source, pattern = FORMATS[kind]
    write(tmp_path)
    (expected,) = scenes(source(tmp_path))
    originals = {path: path.read_bytes() for path in tmp_path.rglob(pattern)}
    assert originals and expected.frames
    for encode in WAYS.values():
        rewrite(tmp_path, pattern, encode)
        (found,) = scenes(source(tmp_path))
        assert found.rejected == expected.rejected and found.attributes == expected.attributes
        assert [frame.name for frame in found.frames] == [frame.name for frame in expected.frames]
        for one, other in zip(found.frames, expected.frames, strict=True):
            np.testing.assert_array_equal(one.camera_to_world, other.camera_to_world)
            np.testing.assert_array_equal(one.intrinsics, other.intrinsics)
        for path, content in originals.items():
            path.write_bytes(content)


@pytest.mark.parametrize("kind", ["colmap", "middlebury", "realestate10k", "srn"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(tmp_path, kind, encoding):
    write, source, pattern = FORMATS[kind]
    write(tmp_path)
    rewrite(tmp_path, pattern, lambda text: text.encode(encoding))
    with pytest.raises(Rejected, match="save it as UTF-8"):
        scenes(source(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_json_in_any_of_its_encodings_is_read(tmp_path, encoding):
    write_transforms(tmp_path)
    rewrite(tmp_path, "*.json", lambda text: text.encode(encoding))
    (scene,) = scenes(TransformsSource(tmp_path, BLACK))
    assert len(scene.frames) == 6
    index = tmp_path / "index.json"
    index.write_bytes(
        json.dumps({"examples": [{"scene": "a", "context": [0], "target": [1]}]}, indent=1).encode(encoding)
    )
    assert evaluation_index.read(index)[0][0].scene == "a"


def test_what_is_no_text_is_an_error():
    with pytest.raises(ValueError):
        text_files.lines(b"abc\xff")
    assert text_files.lines(b"") == [] and text_files.lines(b"a\r\n\r\nb\n") == ["a", "", "b"]
    with pytest.raises(ValueError, match="deeply"):
        text_files.parse_json(b"[" * 100_000)
