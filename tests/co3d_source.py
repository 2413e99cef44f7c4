"""Writes small sources in the layout of CO3D, for tests."""

import gzip
import json

import numpy as np
from PIL import Image

from dfm_jax.data import prepare
from tests.realestate10k_source import picture

WIDTH, HEIGHT = 18, 32
COUNTS = ("scenes", "frames", "quarantined_scenes", "quarantined_frames")


def rotation(azimuth):
    """Of a PyTorch3D camera (x left, y up, row vectors) that looks at the world's origin from that direction."""
    forward = -np.array([np.sin(azimuth), 0.3, np.cos(azimuth)])
    forward /= np.linalg.norm(forward)
    left = np.cross([0, 1, 0], forward)
    left /= np.linalg.norm(left)
    return np.stack([left, np.cross(forward, left), forward], axis=1)  # columns: the camera's axes in the world


def frame_record(category, sequence, number, distance=4.0, depth=False, version=2):
    """On a circle around the origin, `distance` away from it; the picture's number is one higher, as in version 1."""
    folder, name = f"{category}/{sequence}", f"frame{number + 1:06d}"
    viewpoint = {
        "R": rotation(0.2 * number).tolist(),
        "T": [0.0, 0.0, distance],
        "focal_length": [2.4, 2.4],
        "principal_point": [0.1, -0.2],
        "intrinsics_format": "ndc_isotropic",
    }
    record = {
        "sequence_name": sequence,
        "frame_number": number,
        "frame_timestamp": 0.1 * number,
        "image": {"path": f"{folder}/images/{name}.jpg", "size": [HEIGHT, WIDTH]},
        "depth": None,
        "mask": None,
        "viewpoint": viewpoint,
        "meta": {"frame_type": "train_known"},
    }
    if depth:
        paths = {"path": f"{folder}/depths/{name}.jpg.geometric.png", "mask_path": f"{folder}/depth_masks/{name}.png"}
        record["depth"] = {**paths, "scale_adjustment": 0.5}
        record["mask"] = {"path": f"{folder}/masks/{name}.png", "mass": 1.0}
    if version == 1:
        del viewpoint["intrinsics_format"], record["meta"]
        viewpoint["focal_length"] = [2.4, 2.4 * WIDTH / HEIGHT]
    return record


def write_category(root, category, sequences, *, num_frames=5, scores=None, damage=None, **options):
    """`damage` may change the frame records before they are written. Returns the category's folder."""
    folder = root / category
    frames = [frame_record(category, name, i, **options) for name in sequences for i in range(num_frames)]
    for number, record in enumerate(frames):
        path = root / record["image"]["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, (WIDTH, HEIGHT)).save(path, quality=95)
        if record["depth"]:
            _write_depth(root, record)
    if damage:
        damage(frames)
    write_jgz(folder / "frame_annotations.jgz", frames)
    write_jgz(
        folder / "sequence_annotations.jgz",
        [
            {"sequence_name": name, "category": category, "viewpoint_quality_score": (scores or {}).get(name)}
            for name in sequences
        ],
    )
    return folder


def _write_depth(root, record):
    """The foreground, in the middle, is 6 + number deep in stored units, but for holes; around it everything is 50."""
    depth = np.full((HEIGHT, WIDTH), 50, np.float16)
    depth[8:24, 4:14] = 6 + record["frame_number"]
    depth[10:13, 6:9] = 0
    depth[14, 6] = np.inf
    depth[20:24, 4:14] = 1  # not trusted by the mask of depths
    trusted = np.full((HEIGHT, WIDTH), 255, np.uint8)
    trusted[20:24] = 0
    mask = np.full((HEIGHT, WIDTH), 90, np.uint8)  # soft: probably background
    mask[8:24, 4:14] = 170
    arrays = {record["depth"]["path"]: depth.view(np.uint16), record["depth"]["mask_path"]: trusted}
    for path, array in {**arrays, record["mask"]["path"]: mask}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / path)


def write_jgz(path, contents):
    path.write_bytes(gzip.compress(json.dumps(contents).encode()))


def write_json(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(contents))


def listed(category, sequence, numbers):
    """Entries of a set list."""
    return [[sequence, number, f"{category}/{sequence}/images/frame{number + 1:06d}.jpg"] for number in numbers]


def convert(capsys, source, data_dir, *options):
    """Exit code, the counts of the summary, reasons in the quarantine and standard error."""
    code = prepare.main(["--format=co3d", f"--source={source}", f"--data_dir={data_dir}", *options])
    captured = capsys.readouterr()
    summary = json.loads(captured.out.splitlines()[-1]) if captured.out else None
    listing = data_dir / "co3d.quarantine.jsonl"
    reasons = [json.loads(line) for line in listing.read_text().splitlines()] if listing.exists() else []
    return code, summary and tuple(summary[count] for count in COUNTS), reasons, captured.err
