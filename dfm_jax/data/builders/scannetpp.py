"""ScanNet++, as it is downloaded; the source is the folder that holds `data`, or any below it:

    .../<scene>/dslr/nerfstudio/transforms.json              with dslr/resized_images (or original_images), masks in
                                                             dslr/resized_anon_masks (original_anon_masks)
    .../<scene>/dslr/nerfstudio/transforms_undistorted.json  with dslr/resized_undistorted_images, _masks
    .../<scene>/iphone/nerfstudio/transforms.json            with iphone/rgb, rgb_masks, where there is no dslr
    .../splits/*_{train,val,test}.txt                        names of scenes, where they exist

A file is as nerfstudio has it, but names its pictures without their folder. Its `test_frames` are held out, and frames
that it marks as bad (`is_bad`: blurred) are quarantined. Masks are black where people were made anonymous.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfm_jax.data.builders import captures, posed_photos, source_files, transforms_json
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.builders.transforms_splits import frame_name
from dfm_jax.data.loading import text_files
from dfm_jax.data.pictures.pictures import Colour
from dfm_jax.data.preparing.source import SourceScene, refused
from dfm_jax.errors import Rejected

PLACES = (  # of cameras, pictures and masks in a scene, the best first
    ("dslr/nerfstudio/transforms.json", "dslr/resized_images", "dslr/resized_anon_masks"),
    ("dslr/nerfstudio/transforms.json", "dslr/original_images", "dslr/original_anon_masks"),
    (
        "dslr/nerfstudio/transforms_undistorted.json",
        "dslr/resized_undistorted_images",
        "dslr/resized_undistorted_masks",
    ),
    ("iphone/nerfstudio/transforms.json", "iphone/rgb", "iphone/rgb_masks"),
)
SPLITS = {"_train": "train", "_val": "validation", "_test": "test"}  # by how the name of a list ends


class ScanNetPPSource:
    def __init__(self, root: Path, background: Colour | None, masked: bool = False):
        """`masked`: masks are read, and needed where there is a background."""
        self._root, self._background, self._masked = root, background, masked

    def splits(self) -> Mapping[str, Sequence[str]]:
        listed = _lists(self._root)
        splits: dict[str, list[str]] = {}
        for name, folder in self._scenes.items():
            splits.setdefault(listed.get(folder.name, "train"), []).append(name)
        return splits

    def read(self, split: str, name: str) -> SourceScene:
        del split  # names are distinct in all of them
        folder = self._scenes[name]
        file, pictures, masks = _places(folder)[0]
        masks_in = folder / masks if self._masked else None
        try:
            content = source_files.read_object(folder / file)
            held_out, frames = _frames(content)
        except Rejected as reason:
            raise refused(str(reason), (), source_files.pictures_in(folder / pictures)) from reason

        def photo(name: str, frame: Any) -> Photo:
            if isinstance(frame, Mapping) and frame.get("is_bad"):
                raise Rejected("frame is marked as bad (is_bad): it is blurred")
            needed = self._background is not None
            found = transforms_json.read_photo(self._root, folder / pictures, frame, content, masks_in, needed)
            if found.name != name:
                raise Rejected("image is listed twice")
            return found

        photos, rejected = posed_photos.read_each(frames, photo)
        scene = captures.make_scene(
            name,
            photos,
            rejected,
            {"file": file},
            self._background,
            listed=list(frames),
        )
        out = {text_files.as_text(name) for name in held_out}
        kept = [dataclasses.replace(frame, held_out=frame.name in out) for frame in scene.frames]
        return dataclasses.replace(scene, frames=kept if held_out else scene.frames, own_poses=False)

    @functools.cached_property
    def _scenes(self) -> dict[str, Path]:
        wanted = "scene (a folder with dslr/nerfstudio/transforms.json)"
        found = source_files.scenes_in(self._root, lambda folder, _: bool(_places(folder)), wanted)
        return source_files.distinct((text_files.as_text(folder.resolve().name), folder) for folder in found.values())


def _places(folder: Path) -> list[tuple[str, str, str]]:
    """Cameras of a scene with their pictures; those without any count where there are no others."""
    there = [place for place in PLACES if (folder / place[0]).is_file()]
    return [place for place in there if source_files.pictures_in(folder / place[1])] or there


def _frames(content: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Names of the frames that are held out, and all frames by name, in the file's order."""
    frames: dict[str, Any] = {}
    held_out = []
    for key in ("frames", "test_frames"):
        listed = content.get(key, [])
        if not isinstance(listed, list):
            raise Rejected(f"{key} is no list")
        for number, frame in enumerate(listed):
            has_name = isinstance(frame, Mapping) and isinstance(frame.get("file_path"), str)
            name = frame_name(frame["file_path"]) if has_name else f"{key} {number}"
            if name in frames:
                name = f"{name} ({key} {number})"
            frames[name] = frame
            held_out += [name] if key == "test_frames" else []
    return held_out, frames


def _lists(root: Path) -> dict[str, str]:
    """Splits of scenes by their names, from the lists beside `data`; a scene in several is held out."""
    splits: dict[str, str] = {}
    folder = next((place / "splits" for place in (root, root.parent) if (place / "splits").is_dir()), None)
    for end, split in SPLITS.items() if folder else ():
        for path in sorted(folder.glob(f"*{end}.txt")):
            try:
                names = text_files.lines(source_files.read_file(path))
            except (ValueError, Rejected):  # a list that cannot be read says nothing
                continue
            splits |= {name.strip(): split for name in names if name.strip()}
    return splits
