"""RealEstate10K in pixelSplat's chunks: the clips that text files give, and chunks that are not what they should be."""

import io
import json

import numpy as np
import pytest

from dfm_jax.data import prepare
from dfm_jax.data.builders import realestate10k_chunks
from dfm_jax.data.builders.realestate10k import RealEstate10KSource
from dfm_jax.data.loading import dataset
from tests.realestate10k_source import URL, camera_line, picture, timestamp, write_clip


@pytest.fixture(autouse=True, scope="module")
def with_torch():
    """Imported when the first test runs: every process that runs tests collects these, and one runs them."""
    pytest.importorskip("torch")


def tensor(array):
    import torch

    return torch.from_numpy(np.array(array))


def save(contents, path):
    import torch

    torch.save(contents, path)


def jpeg(number, size):
    buffer = io.BytesIO()
    picture(number, size).save(buffer, "JPEG", quality=95)
    return tensor(np.frombuffer(buffer.getvalue(), np.uint8))


def clip(key, number=0, num_frames=5, size=(32, 18)):
    rows = np.array([camera_line(frame).split() for frame in range(num_frames)], np.float64)
    return {
        "url": URL,
        "timestamps": tensor(rows[:, 0].astype(np.int64)),
        "cameras": tensor(rows[:, 1:].astype(np.float32)),
        "images": [jpeg(100 * number + frame, size) for frame in range(num_frames)],
        "key": key,
    }


def write_chunk(root, name, clips, split="train"):
    """Adds the clips to the index, too."""
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    save(clips, folder / f"{name}.torch")
    index = folder / "index.json"
    keys = json.loads(index.read_text()) if index.exists() else {}
    index.write_text(json.dumps(keys | {entry["key"]: f"{name}.torch" for entry in clips}))
    return folder / f"{name}.torch"


def convert(capsys, tmp_path, *options):
    source, data = tmp_path / "source", tmp_path / "data"
    code = prepare.main(["--format=realestate10k", f"--source={source}", f"--data_dir={data}", *options])
    captured = capsys.readouterr()
    listing = data / "realestate10k.quarantine.jsonl"
    reasons = [json.loads(line)["reason"] for line in listing.read_text().splitlines()] if listing.exists() else []
    return code, json.loads(captured.out.splitlines()[-1]) if captured.out else None, reasons, captured.err


def test_a_clip_that_the_index_does_not_name_is_quarantined(tmp_path, capsys):
    chunk = write_chunk(tmp_path / "source", "000000", [clip("a"), clip("b", 1), clip("c", 2)])
    (chunk.parent / "index.json").write_text(json.dumps({"a": chunk.name, "c": chunk.name}))
    code, summary, reasons, _ = convert(capsys, tmp_path)
    assert code == 0 and (summary["scenes"], summary["frames"], summary["quarantined_frames"]) == (2, 10, 5)
    assert reasons == ["index.json does not name its clip"] * 5


@pytest.mark.parametrize("with_index", [True, False])
def test_clips_are_found_and_read_a_chunk_at_a_time(tmp_path, with_index):
    write_chunk(tmp_path, "000001", [clip("c", 2), clip("a", 0)])
    write_chunk(tmp_path, "000000", [clip("b", 1)])
    write_chunk(tmp_path, "000000", [clip("d", 3)], split="test")
    if not with_index:
        for split in ("train", "test"):
            (tmp_path / split / "index.json").unlink()
    source = RealEstate10KSource(tmp_path)
    assert source.splits() == {"train": ["b", "a", "c"], "test": ["d"]}
    scene = source.read("train", "c")
    assert scene.attributes == {"url": URL, "chunk": "000001.torch"}
    assert scene.frames[3].load() == bytes(jpeg(203, (32, 18)).numpy())


def test_cameras_are_those_of_the_text_files(tmp_path):
    write_chunk(tmp_path / "chunks", "000000", [clip("a")])
    write_clip(tmp_path / "text", "a", 5)
    chunk, text = (RealEstate10KSource(tmp_path / folder).read("train", "a").frames for folder in ("chunks", "text"))
    for one, other in zip(chunk, text, strict=True):
        assert (one.name, one.timestamp) == (other.name, other.timestamp)
        np.testing.assert_allclose(one.camera_to_world, other.camera_to_world, atol=1e-6)
        np.testing.assert_allclose(one.intrinsics, other.intrinsics, atol=1e-6)


def test_frames_are_in_the_order_of_time(tmp_path):
    shuffled = clip("a")
    order = [3, 0, 4, 1, 2]
    for column in ("timestamps", "cameras"):
        shuffled[column] = shuffled[column][order]
    shuffled["images"] = [shuffled["images"][i] for i in order]
    write_chunk(tmp_path, "000000", [shuffled])
    frames = RealEstate10KSource(tmp_path).read("train", "a").frames
    assert [frame.name for frame in frames] == [str(timestamp(i)) for i in range(5)]
    assert [frame.load() for frame in frames] == [bytes(jpeg(i, (32, 18)).numpy()) for i in range(5)]


def test_the_published_crop(tmp_path, capsys):
    """640x360 pictures become their 360x360 middle."""
    write_chunk(tmp_path / "source", "000000", [clip("a", size=(640, 360))])
    assert convert(capsys, tmp_path, "--image_size=360")[0] == 0
    data = dataset.open_dataset(tmp_path / "data", "realestate10k", "train")
    scene = data.scene(0)
    assert data.stored_size(scene) == 360
    expected = np.asarray(picture(2, (640, 360)).crop((140, 0, 500, 360)), np.float32) / 255
    assert np.abs(data.image(scene, 2, 360) - expected).mean() < 0.02
    np.testing.assert_allclose(scene.intrinsics[2], [[0.5 * 640 / 360, 0, 0.5], [0, 0.9, 0.5], [0, 0, 1]], atol=1e-6)


# Ways to damage a clip


def set_item(key, value):
    return lambda entry: entry.__setitem__(key, value)


def set_array(key, array):
    return lambda entry: entry.__setitem__(key, tensor(array))


def spoil_camera(row, column, value):
    return lambda entry: entry["cameras"].__setitem__((row, column), value)


@pytest.mark.parametrize(
    ("damage", "counts", "reason"),
    [
        (lambda entry: entry.pop("cameras"), (1, 1, 0), "clip lacks 'cameras'"),
        (lambda entry: entry.pop("images"), (1, 1, 0), "clip lacks 'images'"),
        (set_item("images", 3), (1, 1, 0), "cannot be understood"),
        (set_item("images", []), (1, 1, 0), "have shapes"),
        (set_array("cameras", np.zeros((5, 19), np.float32)), (1, 1, 0), "have shapes"),
        (set_array("cameras", np.zeros((4, 18), np.float32)), (1, 1, 0), "have shapes"),
        (set_array("timestamps", 0), (1, 1, 0), "have shapes"),
        (set_item("timestamps", "now"), (1, 1, 0), "cannot be understood"),
        (set_item("images", ["x"] * 5), (1, 1, 5), "no tensor of bytes"),
        (lambda entry: entry.update(images=[tensor(np.zeros(3, np.float32))] * 5), (1, 1, 5), "does not decode"),
        (spoil_camera(2, 4, 0.1), (2, 0, 1), "distortion"),
        (spoil_camera(2, 7, float("nan")), (2, 0, 1), "not finite"),
        (spoil_camera(2, 0, 0.0), (2, 0, 1), "focal length"),
    ],
)
def test_damage_to_a_clip_stays_in_it(tmp_path, capsys, damage, counts, reason):
    hurt = clip("hurt")
    damage(hurt)
    write_chunk(tmp_path / "source", "000000", [clip("good"), hurt])
    code, summary, reasons, _ = convert(capsys, tmp_path)
    assert code == 0
    assert (summary["scenes"], summary["quarantined_scenes"], summary["quarantined_frames"]) == counts
    assert reason in reasons[0]


class Harmful:
    """What a pickle must not be allowed to make."""

    def __reduce__(self):
        return (print, ("a file ran code",))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def code_in_it(path):
    save([Harmful()], path)


def no_list(path):
    save({"key": "hurt"}, path)


def other_clips(path):
    save(["hurt", 3], path)


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("damage", [truncated, empty, code_in_it, no_list, other_clips])
def test_a_broken_chunk_costs_its_clips_alone(tmp_path, capsys, damage, with_index):
    write_chunk(tmp_path / "source", "000000", [clip("good")])
    path = write_chunk(tmp_path / "source", "000001", [clip("hurt")])
    damage(path)
    if not with_index:
        (path.parent / "index.json").unlink()
    code, summary, reasons, errors = convert(capsys, tmp_path)
    assert code == 0 and summary["scenes"] == 1 and summary["quarantined_scenes"] >= 1
    assert "000001" in reasons[0] or "clip" in reasons[0]
    assert "ran code" not in errors and "still be loaded" not in reasons[0]  # as torch advises


@pytest.mark.parametrize("file", ["000009.torch", "../000000.torch", "/etc/passwd", None, ["000000.torch"]])
def test_an_index_that_names_other_files_gives_missing_clips(tmp_path, capsys, file):
    path = write_chunk(tmp_path / "source", "000000", [clip("good")])
    save([clip("lost")], path.parent.parent / "000000.torch.txt")
    index = json.loads((path.parent / "index.json").read_text())
    (path.parent / "index.json").write_text(json.dumps(index | {"lost": file}))
    code, summary, reasons, _ = convert(capsys, tmp_path)
    assert code == 0 and (summary["scenes"], summary["missing_videos"]) == (1, 1)
    assert "names it" in reasons[0]


@pytest.mark.parametrize("contents", ["{", "[1, 2]", "3", "[" * 100_000])
def test_a_broken_index_is_done_without(tmp_path, contents):
    path = write_chunk(tmp_path, "000000", [clip("a")])
    (path.parent / "index.json").write_text(contents)
    assert RealEstate10KSource(tmp_path).splits() == {"train": ["a"]}


def test_without_pytorch_there_is_one_error(tmp_path, capsys, monkeypatch):
    write_chunk(tmp_path / "source", "000000", [clip("a")])
    monkeypatch.setattr(realestate10k_chunks.importlib.util, "find_spec", lambda name: None)
    code, _, _, errors = convert(capsys, tmp_path)
    assert code == 1 and "pip install 'dfm_jax[convert]'" in errors


def test_frames_are_numbered_by_their_place_in_the_arrays(tmp_path):
    entry = clip("a", num_frames=6)
    order = [3, 0, 5, 1, 4, 2]
    entry = {key: value[order] if key in ("timestamps", "cameras") else value for key, value in entry.items()}
    entry["images"] = [entry["images"][i] for i in order]
    entry["cameras"][2, 4] = 0.1  # distortion, of the frame with the time 5
    write_chunk(tmp_path, "000000", [entry])
    scene = RealEstate10KSource(tmp_path).read("train", "a")
    assert [(frame.number, frame.name) for frame in scene.frames] == [
        (order.index(time), str(timestamp(time))) for time in range(5)
    ]
    assert scene.rejected[0][0] == "frame 2" and scene.listed[-1] == (2, "frame 2")
