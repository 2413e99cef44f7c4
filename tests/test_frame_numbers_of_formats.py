"""Every importer gives a frame the number that it has in its source."""

import json

import pytest

from dfm_jax.data.builders.co3d import CO3DSource
from dfm_jax.data.builders.colmap import ColmapSource
from dfm_jax.data.builders.middlebury import MiddleburySource
from dfm_jax.data.builders.photos import PhotosSource
from dfm_jax.data.builders.realestate10k import RealEstate10KSource
from dfm_jax.data.builders.source_files import natural_key
from dfm_jax.data.builders.transforms_json import TransformsSource
from dfm_jax.data.loading import holes
from dfm_jax.data.preparing import posed_scenes, sfm
from dfm_jax.data.preparing.quarantine import Quarantine
from tests import captures_source, co3d_source, format_sources, test_formats
from tests.realestate10k_source import camera_line, replace_line, timestamp, write_clip
from tests.test_frame_numbers import BLACK, FRAMES, OPTIONS


def realestate10k(root, removed):
    _, folder = write_clip(root, "a", FRAMES)
    return RealEstate10KSource(root), [folder / f"{timestamp(i)}.jpg" for i in removed]


def realestate10k_unsorted(root, removed):
    cameras, folder = write_clip(root, "a", FRAMES)
    for line, frame in enumerate((3, 0, 5, 1, 4, 2), start=1):
        replace_line(cameras, line, camera_line(frame))
    return RealEstate10KSource(root), [folder / f"{timestamp(i)}.jpg" for i in removed]


def co3d(root, removed):
    folder = co3d_source.write_category(root, "apple", ["a"], num_frames=FRAMES)
    return CO3DSource(root), [folder / "a" / "images" / f"frame{i + 1:06d}.jpg" for i in removed]


def co3d_sparse(root, removed):
    """Frame numbers with gaps, and a record that cannot be understood."""

    def damage(records):
        for i, record in enumerate(records):
            record["frame_number"] = 5 * i + 3
        for i in removed:
            records[i]["viewpoint"] = None
        records.reverse()

    co3d_source.write_category(root, "apple", ["a"], num_frames=FRAMES, damage=damage)
    return CO3DSource(root), []


def transforms(root, removed):
    captures_source.write_transforms(root, captures_source.arc(FRAMES))
    return TransformsSource(root, BLACK), [root / "images" / f"{i}.png" for i in removed]


def transforms_in_another_order(root, removed):
    path = captures_source.write_transforms(root, captures_source.arc(FRAMES))
    content = json.loads(path.read_text())
    content["frames"] = [content["frames"][i] for i in (3, 0, 5, 1, 4, 2)]
    path.write_text(json.dumps(content))
    return TransformsSource(root, BLACK), [root / "images" / f"{i}.png" for i in removed]


def colmap(root, removed):
    captures_source.write_colmap(root, captures_source.arc(FRAMES))
    return ColmapSource(root, BLACK), [root / "images" / f"{i}.png" for i in removed]


def middlebury(root, removed):
    captures_source.write_middlebury(root, captures_source.arc(FRAMES))
    return MiddleburySource(root, BLACK), [root / f"{i}.png" for i in removed]


SOURCES = [realestate10k, realestate10k_unsorted, co3d, co3d_sparse, transforms]
SOURCES += [transforms_in_another_order, colmap, middlebury]


def of_views(kind, pictures):
    def write(root, removed):
        format_sources.WRITERS[kind](root, captures_source.arc(FRAMES))
        files = sorted(root.glob(pictures), key=lambda path: natural_key(path.name))
        return test_formats.source(kind, root), [files[i] for i in removed]

    write.__name__ = kind
    return write


SOURCES += [of_views("dl3dv", "images_4/*"), of_views("mvsnet", "images/*"), of_views("opensfm", "images/*")]
SOURCES += [of_views("polycam", "keyframes/corrected_images/*"), of_views("record3d", "rgbd/*")]
SOURCES += [of_views("scannetpp", "dslr/resized_images/*"), of_views("srn", "rgb/*"), of_views("zero123", "*.png")]


def accepted(write, root, removed):
    """Numbers by name of the frames that are stored, in order, and the holes; as they would be in a record."""
    source, files = write(root, removed)
    for file in files:
        file.unlink()
    ((split, (name,)),) = source.splits().items()
    scene, frames, _ = posed_scenes.accept(source.read(split, name), split, OPTIONS, Quarantine())
    found = holes.decode(holes.encode(posed_scenes.find_holes(scene, frames)))
    return {frame.name: frame.number for frame in frames}, found


@pytest.mark.parametrize("write", SOURCES)
@pytest.mark.parametrize("removed", [(2,), (0, 3), (1, 4, 5)])
def test_every_format_keeps_the_numbers_of_the_frames_that_are_left(write, removed, tmp_path):
    whole, none = accepted(write, tmp_path / "whole", ())
    left, found = accepted(write, tmp_path / "left", removed)
    assert sorted(whole.values()) == list(range(FRAMES)) and none == ()
    assert left == {name: number for name, number in whole.items() if name in left}
    assert {hole.number for hole in found} == set(whole.values()) - set(left.values()) and len(found) == len(removed)
    # Positions are those in the order of capture, which is that of the stored frames.
    order = list(whole)
    assert [hole.position for hole in found] == [i for i, name in enumerate(order) if name not in left]
    assert [order[i] for i in holes.positions(len(left), [hole.position for hole in found])] == list(left)
    assert all(hole.reason for hole in found) and "no reason is known" not in {hole.reason for hole in found}


def test_numbers_are_positions_in_the_sources_own_list(tmp_path):
    numbers, _ = accepted(transforms_in_another_order, tmp_path / "transforms", ())
    assert numbers == {f"images/{name}.png": i for i, name in enumerate((3, 0, 5, 1, 4, 2))}
    numbers, _ = accepted(realestate10k_unsorted, tmp_path / "realestate10k", ())
    assert numbers == {str(timestamp(frame)): i for i, frame in enumerate((3, 0, 5, 1, 4, 2))}


def test_a_line_that_is_no_camera_is_a_hole_where_it_stands(tmp_path):
    cameras, _ = write_clip(tmp_path, "a", FRAMES)
    replace_line(cameras, 3, "left right")
    scene = RealEstate10KSource(tmp_path).read("train", "a")
    assert [frame.number for frame in scene.frames] == [0, 1, 3, 4, 5] and scene.listed[2] == (2, "line 4")


def test_a_frame_that_is_listed_twice_has_its_first_number(tmp_path):
    path = captures_source.write_transforms(tmp_path)
    content = json.loads(path.read_text())
    content["frames"].insert(3, content["frames"][1])
    path.write_text(json.dumps(content))
    numbers, found = accepted(lambda root, _: (TransformsSource(root, BLACK), []), tmp_path, ())
    assert list(numbers.values()) == [0, 1, 2, 4, 5, 6]
    assert [(hole.number, hole.reason) for hole in found] == [(3, "image is listed twice")]


def test_pictures_beside_a_model_have_no_number_so_that_they_may_come_and_go(tmp_path):
    captures_source.write_colmap(tmp_path)
    (tmp_path / "images" / "0b.png").write_bytes((tmp_path / "images" / "0.png").read_bytes())
    numbers, found = accepted(lambda root, _: (ColmapSource(root, BLACK), []), tmp_path, ())
    assert list(numbers.values()) == list(range(6)) and found == ()


def test_photographs_are_numbered_with_those_that_no_camera_was_found_for(tmp_path, monkeypatch):
    captures_source.write_photographs(tmp_path / "photos", captures_source.arc())
    (tmp_path / "photos" / "0b.png").write_bytes((tmp_path / "photos" / "0.png").read_bytes())

    def reconstruct(images, names, workspace, in_sequence, known):
        return sfm.Reconstruction(captures_source.write_colmap(workspace), names, {"0b.png": "no camera was found"})

    monkeypatch.setattr(sfm, "require", lambda: None)
    monkeypatch.setattr(sfm, "reconstruct", reconstruct)
    source = PhotosSource(tmp_path / "photos", tmp_path / "work", BLACK, video_frames=3)
    numbers, found = accepted(lambda *_: (source, []), tmp_path, ())
    assert list(numbers.values()) == [0, 2, 3, 4, 5, 6]
    assert [(hole.number, hole.name, hole.reason) for hole in found] == [(1, "0b.png", "no camera was found")]
