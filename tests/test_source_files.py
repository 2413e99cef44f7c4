"""Finding the pictures that a source names, passing over what is hidden, and naming scenes."""

import functools
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from dfm_jax.data.builders import source_files
from dfm_jax.data.builders.co3d import CO3DSource
from dfm_jax.data.builders.colmap import ColmapSource
from dfm_jax.data.builders.middlebury import MiddleburySource
from dfm_jax.data.builders.realestate10k import RealEstate10KSource
from dfm_jax.data.builders.source_files import distinct, find_picture, find_scaled_picture
from dfm_jax.data.builders.transforms_json import TransformsSource
from dfm_jax.errors import Rejected
from tests import captures_source, format_sources, test_formats

BLACK = (0, 0, 0)
COMPOSED = unicodedata.normalize("NFC", "Säule")
DECOMPOSED = unicodedata.normalize("NFD", "Säule")


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("a/1.png", "a/1.png"),
        ("a/1", "a/1.png"),
        ("a/1", "a/1.JPG"),
        ("a\\1.png", "a/1.png"),
        ("A/IMG.JPG", "a/img.jpg"),
        ("a/1.png", "a/1.jpg"),
        ("a/1.jpeg", "a/1.JPG"),
        ("a/1.heic", "a/1.jpg"),
        (f"{COMPOSED}/{COMPOSED}.jpg", f"{DECOMPOSED}/{DECOMPOSED}.jpg"),
        (f"{DECOMPOSED}/{DECOMPOSED}.jpg", f"{COMPOSED}/{COMPOSED}.JPG"),
        ("./a/../b/1.png", "B/1.png"),
        ("a\\1.png", "a\\1.png"),  # a backslash may be part of a name
    ],
)
def test_a_picture_is_found_where_only_one_fits(tmp_path, named, there):
    write(tmp_path, there, "a/11.png", "other/1.png", "a/._1.jpg", "a/notes.txt")
    assert find_picture(tmp_path, tmp_path, named) == tmp_path / there


def test_the_name_itself_comes_first(tmp_path):
    write(tmp_path, "1.png", "1.PNG", "1.jpg", "2.JPG", "2.tif")
    assert find_picture(tmp_path, tmp_path, "1.PNG").name == "1.PNG"
    assert find_picture(tmp_path, tmp_path, "2.jpg").name == "2.JPG"  # one of another suffix fits less


def test_where_several_fit_they_are_named(tmp_path):
    write(tmp_path, "1.jpg", "1.tif", "IMG.png", "img.PNG")
    with pytest.raises(Rejected, match=r"missing: .*any of 1\.jpg, 1\.tif may be meant"):
        find_picture(tmp_path, tmp_path, "1.png")
    with pytest.raises(Rejected, match=r"IMG\.png, img\.PNG"):
        find_picture(tmp_path, tmp_path, "Img.png")


@pytest.mark.parametrize("name", ["2.png", "a/1.png", "1.txt", "1.png/1.png", "x" * 300, "\0", "", ".", ".."])
def test_what_is_not_there_is_not_found(tmp_path, name):
    write(tmp_path / "source", "1.png", "d/e.png")
    with pytest.raises(Rejected, match=r"missing|out of the source"):
        find_scaled_picture(tmp_path / "source", tmp_path / "source", name)


@pytest.mark.parametrize("name", ["../1.png", "..\\1.png", "a/../../1.PNG", "/etc/passwd"])
def test_nothing_outside_of_the_source_is_found(tmp_path, name):
    write(tmp_path, "1.png", "source/2.png")
    with pytest.raises(Rejected, match="out of the source"):
        find_scaled_picture(tmp_path / "source", tmp_path / "source", name)


def test_a_picture_that_comes_later_is_found_too(tmp_path):
    """What a folder holds is remembered only until it changes."""
    write(tmp_path, "1.jpg")
    with pytest.raises(Rejected):
        find_picture(tmp_path, tmp_path, "2.png")
    write(tmp_path, "2.jpg")
    os.utime(tmp_path, ns=(1, 1))  # in case the clock of the disk did not move on
    assert find_picture(tmp_path, tmp_path, "2.png").name == "2.jpg"


@pytest.mark.parametrize(
    ("named", "there", "found", "reduced"),
    [
        ("images/1.png", ("images_4/1.png", "images_8/1.png"), "images_4/1.png", 4),
        ("images/1.png", ("images/1.png", "images_2/1.png"), "images/1.png", 1),
        ("images_4/1.png", ("images_2/1.png",), "images_2/1.png", 0.5),
        ("images_2\\1.png", ("images/1.JPG",), "images/1.JPG", 0.5),
        ("./train/1", ("train_8/1.png",), "train_8/1.png", 8),
    ],
)
def test_reduced_copies_are_found(tmp_path, named, there, found, reduced):
    write(tmp_path, *there)
    assert find_scaled_picture(tmp_path, tmp_path, named) == (tmp_path / found, reduced)


@pytest.mark.parametrize("stated", [True, False], ids=["size stated", "size of the named pictures"])
def test_a_lens_holds_for_reduced_copies(tmp_path, stated):
    size = {} if stated else {"w": None, "h": None}
    captures_source.write_transforms(tmp_path, **size)
    before = TransformsSource(tmp_path, BLACK).read("train", tmp_path.name)
    os.rename(tmp_path / "images", tmp_path / "images_2")
    for path in (tmp_path / "images_2").iterdir():
        Image.open(path).reduce(2).save(path)
    after = TransformsSource(tmp_path, BLACK).read("train", tmp_path.name)
    assert len(before.frames) == len(after.frames) == 6
    for a, b in zip(before.frames, after.frames, strict=True):
        np.testing.assert_array_equal(a.intrinsics, b.intrinsics)


HIDDEN = (".trash", ".thumbnails", "__MACOSX", ".ipynb_checkpoints", "@eaDir", "$RECYCLE.BIN")


def write_middlebury(folder):
    folder.mkdir(parents=True)
    (folder / "a_par.txt").write_text("0\n")


WRITERS = {
    "transforms": (captures_source.write_transforms, lambda root: TransformsSource(root, BLACK)),
    "colmap": (captures_source.write_colmap, lambda root: ColmapSource(root, BLACK)),
    "middlebury": (write_middlebury, lambda root: MiddleburySource(root, BLACK)),
    "realestate10k": (lambda f: write(f, "0a.txt", "0a/1.jpg"), RealEstate10KSource),
    "co3d": (lambda f: write(f, "frame_annotations.jgz", "s/images/1.jpg"), CO3DSource),
}
WRITERS |= {
    kind: (functools.partial(make, poses=captures_source.arc(2)), functools.partial(test_formats.source, kind))
    for kind, make in format_sources.WRITERS.items()
    if kind != "minens"
}


@pytest.mark.parametrize("kind", WRITERS)
def test_hidden_folders_hold_no_scenes(tmp_path, kind):
    """But a source may lie in one itself."""
    make, source = WRITERS[kind]
    root = tmp_path / ".cache" / "source"
    make(root / "room")
    expected = source(root).splits()
    assert sum(map(len, expected.values())) == 1
    for name in HIDDEN:
        make(root / name / "room")
        make(root / name) if kind == "co3d" else None  # its categories lie directly below
    for path in [path for path in root.rglob("*") if path.is_file()]:  # macOS, on other disks
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert source(root).splits() == expected


@pytest.mark.parametrize("kind", ["transforms", "colmap", "middlebury"])
def test_captures_whose_names_join_to_the_same_are_scenes_each(tmp_path, kind):
    make, source = WRITERS[kind]
    for place in ("room/1", "room-1", "Room-1"):
        make(tmp_path / place)
    (names,) = source(tmp_path).splits().values()
    assert len(names) == 3 and len({name.lower() for name in names}) == 3


def test_names_are_distinct_and_unchanged_where_they_can_be():
    named = [("b", 0), ("a", 1), ("A", 2), ("a", 3), ("a~2", 4), (COMPOSED, 5), (DECOMPOSED, 6)]
    found = distinct(named)
    assert list(found.values()) == list(range(7)) and list(found)[:2] == ["b", "a"] and COMPOSED in found
    assert len({unicodedata.normalize("NFC", name).casefold() for name in found}) == 7
    assert source_files.distinct(iter(named)) == found
