"""RealEstate10K from videos: every camera gets the frame of its own timestamp, or none."""

import io
import json
import os
import pathlib
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from dfm_jax.data import prepare
from dfm_jax.data.builders import realestate10k_video, video
from dfm_jax.data.builders.realestate10k import RealEstate10KSource
from dfm_jax.data.loading import dataset
from dfm_jax.errors import Rejected
from tests.realestate10k_source import URL, camera_line

REAL = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "realestate10k"
WIDTH, HEIGHT, BITS = 64, 36, 8
FPS, NUM_FRAMES = 30, 60
CODECS = {"mp4": ["-c:v", "libx264", "-g", "12", "-bf", "2"], "webm": ["-c:v", "libvpx", "-b:v", "1M"]}


def numbered(number):
    """A picture with its number written in black and white blocks, the middle of it square."""
    bits = np.array([number >> i & 1 for i in range(BITS)], np.uint8).reshape(2, 4) * 255
    square = np.kron(bits, np.ones((HEIGHT // 2, HEIGHT // 4), np.uint8))
    side = (WIDTH - HEIGHT) // 2
    return np.repeat(np.pad(square, ((0, 0), (side, side)), constant_values=128)[:, :, None], 3, 2)


def number_of(square):
    """The number in a square picture [s, s, 3] or [s, s]."""
    square = np.asarray(square, np.float64).reshape(*np.shape(square)[:2], -1).mean(2)
    rows, columns = (np.arange(2) + 0.5) / 2, (np.arange(4) + 0.5) / 4
    blocks = square[np.ix_((rows * len(square)).astype(int), (columns * len(square)).astype(int))]
    return sum(1 << i for i, bright in enumerate(blocks.ravel() > square.max() / 2) if bright)


def decoded_number(picture):
    image = Image.open(io.BytesIO(picture))
    side = (image.width - image.height) // 2
    return number_of(image.crop((side, 0, side + image.height, image.height)))


def write_video(path, numbers=range(NUM_FRAMES), *filters, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-"]
    scale = ",".join([*filters, f"scale={size[0]}:{size[1]}"])
    coding = ["-vf", scale, "-fps_mode", "passthrough", *CODECS[path.suffix[1:]], "-pix_fmt", "yuv420p", str(path)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *source, *coding]
    subprocess.run(command, input=np.stack([numbered(i) for i in numbers]).tobytes(), check=True)
    return path


def write_cameras(root, frames, start=0.0, split="train", name="a", url=URL):
    """A camera file of the video's frames of those numbers."""
    path = root / "RealEstate10K" / split / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [camera_line(frame, {0: round(1e6 * (start + frame / FPS)), 2: 0.5 * WIDTH / HEIGHT}) for frame in frames]
    path.write_text("\n".join([url, *lines]))
    return path


# --- videos


@pytest.mark.parametrize("suffix", CODECS)
def test_frames_are_found_by_their_times(tmp_path, suffix):
    path = write_video(tmp_path / f"v.{suffix}")
    times = video.frame_times(path)
    # Seconds: containers count in milliseconds.
    np.testing.assert_allclose(times, np.arange(NUM_FRAMES) / FPS, atol=1e-3)
    decoded = list(video.decode(path, times[17], times[40]))  # neither is a key frame
    assert [decoded_number(picture) for _, picture in decoded] == list(range(17, 41))
    # Seconds: what the program takes for the same time.
    np.testing.assert_allclose([time for time, _ in decoded], times[17:41], atol=video.SAME_TIME)


def test_times_need_not_be_regular(tmp_path):
    path = write_video(tmp_path / "v.mp4", range(20), "setpts=(N+max(0\\,N-9)*2)/30/TB")  # three times slower from 9 on
    expected = [(n + max(0, n - 9) * 2) / FPS for n in range(20)]
    times = video.frame_times(path)
    np.testing.assert_allclose(times, expected, atol=1e-3)  # seconds: containers count in milliseconds
    assert [decoded_number(picture) for _, picture in video.decode(path, times[8], times[12])] == [8, 9, 10, 11, 12]


def test_timestamps_are_matched_with_frames():
    frames = np.arange(300) / FPS
    stamps = 2 + np.arange(0, 40, 4) / FPS
    matched, how = realestate10k_video.match(frames, stamps + 0.003, complete=True)
    np.testing.assert_allclose(matched, stamps)
    assert how == "timestamp in the video"
    cut = frames[:50]
    matched, how = realestate10k_video.match(cut, stamps + 100, complete=True)
    np.testing.assert_allclose(matched, stamps - 2, atol=1e-9)
    assert how == "time since the first timestamp"
    matched, how = realestate10k_video.match(np.arange(10) / 8, stamps + 100, complete=True)
    np.testing.assert_allclose(matched, np.arange(10) / 8)
    assert how == "one frame a line"


@pytest.mark.parametrize("frames", [np.arange(30) / FPS, np.zeros(1)])
def test_timestamps_beyond_the_video_are_not_matched(frames):
    with pytest.raises(Rejected, match=rf"video has {len(frames)} frames in .* has 10 from 2.00 s to 3.20 s"):
        realestate10k_video.match(frames, 2 + np.arange(0, 40, 4) / FPS, complete=True)


def test_a_cut_video_is_not_matched_with_a_camera_file_that_lost_lines():
    """Neither the number of lines nor the first of them can be relied on."""
    stamps = 100 + np.arange(1, 11) / FPS
    for num_frames in (10, 20):
        with pytest.raises(Rejected):
            realestate10k_video.match(np.arange(num_frames) / FPS, stamps, complete=False)


def test_a_frame_that_the_video_lacks_is_not_replaced_by_its_neighbour():
    frames = np.delete(np.arange(60) / FPS, 12)
    matched, _ = realestate10k_video.match(frames, np.array([10, 12, 14]) / FPS, complete=True)
    np.testing.assert_allclose(matched, [10 / FPS, np.nan, 14 / FPS])


def test_squeezed_pictures_get_their_shape_back():
    buffer = io.BytesIO()
    Image.fromarray(numbered(77)).resize((48, 36)).save(buffer, "PNG")
    image = Image.open(io.BytesIO(realestate10k_video.square_pixels(buffer.getvalue(), WIDTH / HEIGHT)))
    assert image.size == (48, 27)
    buffer = io.BytesIO()
    Image.fromarray(numbered(77)).save(buffer, "PNG")
    for aspect in (WIDTH / HEIGHT, 1.01 * WIDTH / HEIGHT, 1e6):
        assert realestate10k_video.square_pixels(buffer.getvalue(), aspect) == buffer.getvalue()
    tall = Image.open(io.BytesIO(realestate10k_video.square_pixels(buffer.getvalue(), 0.5)))
    assert tall.size == (18, 36)


# --- data sets


def convert(capsys, tmp_path):
    code = prepare.main(
        ["--format=realestate10k", f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path / 'data'}"]
    )
    captured = capsys.readouterr()
    listing = tmp_path / "data" / "realestate10k.quarantine.jsonl"
    reasons = [json.loads(line)["reason"] for line in listing.read_text().splitlines()]
    return code, json.loads(captured.out.splitlines()[-1]) if captured.out else None, reasons


def stored_numbers(tmp_path, scene=0):
    data = dataset.open_dataset(tmp_path / "data", "realestate10k", "train")
    record = data.scene(scene)
    return [number_of(data.image(record, i, HEIGHT)) for i in range(record.num_frames)], record


FRAMES = [20, 21, 25, 31, 50]


@pytest.mark.parametrize(
    ("video_name", "first", "start", "how"),
    [
        ("a.mp4", 0, 0, "timestamp in the video"),
        ("a.webm", 0, 0, "timestamp in the video"),
        ("xyz-_123.mp4", 0, 0, "timestamp in the video"),
        ("a.mp4", 20, 60, "time since the first timestamp"),
    ],
)
def test_cameras_get_the_frames_of_their_timestamps(tmp_path, capsys, monkeypatch, video_name, first, start, how):
    write_cameras(tmp_path / "source", FRAMES, start, url="https://www.youtube.com/watch?v=xyz-_123&t=3")
    write_video(tmp_path / "source" / "videos" / video_name, range(first, NUM_FRAMES))
    passes, decode = [], video.decode
    monkeypatch.setattr(video, "decode", lambda *args: passes.append(args) or decode(*args))
    code, summary, reasons = convert(capsys, tmp_path)
    assert code == 0 and (summary["scenes"], summary["frames"], summary["missing_videos"]) == (1, 5, 0)
    numbers, record = stored_numbers(tmp_path)
    assert numbers == FRAMES and reasons == [] and len(passes) == 1
    assert record.attributes["frames_by"] == how and record.attributes["video"] == f"videos/{video_name}"
    np.testing.assert_allclose(
        record.intrinsics[0], [[0.5 * WIDTH / HEIGHT, 0, 0.5], [0, 0.5 * WIDTH / HEIGHT, 0.5], [0, 0, 1]]
    )


def test_a_squeezed_video_with_a_frame_a_line(tmp_path, capsys):
    write_cameras(tmp_path / "source", FRAMES, 100)
    write_video(tmp_path / "source" / "videos" / "a.mp4", FRAMES, size=(48, 36))
    assert convert(capsys, tmp_path)[0] == 0
    numbers, record = stored_numbers(tmp_path)
    assert numbers == FRAMES and record.attributes["frames_by"] == "one frame a line"
    np.testing.assert_allclose(record.intrinsics[:, 0, 0], record.intrinsics[:, 1, 1])


def test_pictures_can_be_loaded_in_any_order(tmp_path):
    write_cameras(tmp_path, FRAMES)
    write_video(tmp_path / "a.mp4")
    frames = RealEstate10KSource(tmp_path).read("train", "a").frames
    assert [decoded_number(frames[i].load()) for i in (3, 3, 0, 4, 1)] == [FRAMES[i] for i in (3, 3, 0, 4, 1)]


def test_clips_whose_video_is_missing_are_counted(tmp_path, capsys):
    write_cameras(tmp_path / "source", FRAMES, name="a")
    write_cameras(tmp_path / "source", FRAMES, name="gone")
    write_cameras(tmp_path / "source", FRAMES, name="lost", split="test")
    write_video(tmp_path / "source" / "a.mp4")
    code, summary, reasons = convert(capsys, tmp_path)
    assert code == 0 and (summary["scenes"], summary["quarantined_scenes"], summary["missing_videos"]) == (1, 2, 2)
    assert all("no folder of frames named" in reason and "no video" in reason for reason in reasons)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def noise(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def a_playlist(path):
    """Of another file, which ffmpeg would open."""
    other = path.with_name("other.mp4")
    path.rename(other)
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{other}\n#EXT-X-ENDLIST\n")


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [truncated, empty, noise, a_playlist, a_folder])
def test_a_broken_video_costs_its_clip_alone(tmp_path, capsys, damage):
    for name in ("good", "hurt"):
        write_cameras(tmp_path / "source", FRAMES, name=name)
        write_video(tmp_path / "source" / f"{name}.mp4")
    damage(tmp_path / "source" / "hurt.mp4")
    code, summary, reasons = convert(capsys, tmp_path)
    assert code == 0 and (summary["scenes"], summary["quarantined_scenes"]) == (1, 1)
    assert "hurt.mp4 cannot be read" in reasons[-1] or damage is a_folder


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("where", [0.3, 0.5, 0.7])
def test_a_damaged_video_never_gives_a_camera_another_frame(tmp_path, capsys, suffix, where):
    write_cameras(tmp_path / "source", range(2, 58, 2))
    path = write_video(tmp_path / "source" / f"a.{suffix}")
    encoded = bytearray(path.read_bytes())
    middle = int(where * len(encoded))
    encoded[middle : middle + 60] = np.random.default_rng(1).bytes(60)
    path.write_bytes(encoded)
    code, summary, _ = convert(capsys, tmp_path)
    if code == 0:
        numbers, record = stored_numbers(tmp_path)
        assert numbers == [round(time * FPS) for time in record.timestamps]
        assert summary["frames"] + summary["quarantined_frames"] == 28


def test_real_videos_give_the_frames_that_were_cut_from_them(tmp_path, capsys):
    if not REAL.is_dir():
        pytest.skip(f"no real clips at {REAL}")
    (tmp_path / "source").mkdir()
    for folder in ("RealEstate10K", "videos"):
        os.symlink(REAL / folder, tmp_path / "source" / folder)
    code, summary, _ = convert(capsys, tmp_path)
    assert code == 0 and (summary["scenes"], summary["frames"], summary["splits"]) == (6, 96, {"test": 6})
    data = dataset.open_dataset(tmp_path / "data", "realestate10k", "test")
    for scene in map(data.scene, range(6)):
        assert data.stored_size(scene) == 216  # of 384 x 256 pixels, squeezed from 16:9
        # Square pixels but for the whole number of them that the picture was cut to.
        np.testing.assert_allclose(scene.intrinsics[:, 0, 0], scene.intrinsics[:, 1, 1], rtol=1e-3)
        frames = [Image.open(REAL / "test" / scene.name / f"{name}.jpg") for name in scene.frame_names]
        squares = [np.asarray(frame.crop((56, 0, 200, 144)).resize((48, 48))) / 255 for frame in frames]
        pictures = [data.image(scene, i, 48) for i in range(16)]
        differences = np.array([[np.abs(picture - square).mean() for square in squares] for picture in pictures])
        assert (differences.argmin(1) == range(16)).all() and differences.diagonal().max() < 0.02
