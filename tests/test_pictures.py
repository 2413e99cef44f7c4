"""Pictures of every kind: what is read comes as 8-bit sRGB, and of the rest it is said why it is not read."""

import importlib.util
import io

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image, ImageCms

from dfm_jax.data import prepare
from dfm_jax.data.builders import gathered_photos
from dfm_jax.data.pictures import deep_pictures, picture_kinds, pictures
from dfm_jax.data.pictures.deep_pictures import White
from dfm_jax.errors import Rejected
from tests import captures_source

BLACK = (0, 0, 0)
SMOOTH = np.stack([*np.meshgrid(np.linspace(0, 250, 32), np.linspace(250, 10, 24)), np.full((24, 32), 90.0)], -1)


def smooth():
    return Image.fromarray(SMOOTH.astype(np.uint8))


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def stored_pictures(folder):
    """Of the training scenes of a data set."""
    frames = tfds.builder_from_directory(str(folder / "frames" / "1.0.0")).as_data_source("train")
    return [frame["image"] for frame in frames]


def by_opencv(values, suffix):
    return cv2.imencode(suffix, values[..., ::-1] if values.ndim == 3 else values)[1].tobytes()


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        ("PNG", 0),
        ("TIFF", 0),
        ("BMP", 0),
        ("PPM", 0),
        ("TGA", 0),
        ("JPEG", 4),
        ("WEBP", 4),
        ("AVIF", 4),
        ("JPEG2000", 1),
    ],
)
def test_kinds_that_are_read(tmp_path, kind, tolerance):
    (tmp_path / "1").write_bytes(encoded(smooth(), kind))
    found = pictures.open_picture((tmp_path / "1").read_bytes())
    assert (
        found.image.mode == "RGB"
        and np.abs(np.asarray(found.image, float) - SMOOTH.astype(np.uint8)).mean() <= tolerance
    )
    header = pictures.read_header(tmp_path / "1")
    assert header.size == (32, 24) and not header.deep


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_colours_of_every_mode_become_red_green_and_blue(mode):
    grey = Image.fromarray(np.repeat([[0, 255]], 2, 0).astype(np.uint8)).resize((32, 24), Image.Resampling.NEAREST)
    image = grey.convert("RGB")
    if mode == "LAB":
        image = ImageCms.profileToProfile(
            image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    found = pictures.open_picture(encoded(image.convert(mode), "PNG" if mode in ("P", "LA") else "TIFF"))
    assert found.image.mode == ("RGBA" if mode in ("LA", "RGBA") else "RGB")
    np.testing.assert_allclose(np.asarray(found.image.convert("RGB")), np.asarray(grey.convert("RGB")), atol=3)  # LAB


def test_colours_of_another_profile_become_srgb():
    """A profile whose red is sRGB's green, and the other way round."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    srgb = bytes(profile)
    for name, other in ((b"rXYZ", b"gXYZ"), (b"gXYZ", b"rXYZ")):
        at = srgb.index(name)
        profile[at : at + 4] = other
    other = bytes(profile).replace(b"sRGB", b"tRGB").replace("sRGB".encode("utf-16-be"), "tRGB".encode("utf-16-be"))
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert pictures.open_picture(encoded(red, "PNG", icc_profile=srgb)).image.getpixel((0, 0)) == (255, 0, 0)
    for colours in (red, red.convert("RGBA")):
        converted = pictures.open_picture(encoded(colours, "PNG", icc_profile=other))
        assert converted.image.getpixel((0, 0))[:3] == (0, 255, 0) and not converted.as_is
    broken = pictures.open_picture(encoded(red, "PNG", icc_profile=b"no profile"))
    assert broken.image.getpixel((0, 0)) == (255, 0, 0)


def test_of_an_animated_picture_the_first_counts():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        red, green, _ = pictures.open_picture(content).image.getpixel((0, 0))
        assert red > 250 and green < 5


# --- more than 8 bits


def deep_kinds(values):
    """Encoded files by kind, of 16-bit values [h, w, 3]."""
    grey = Image.fromarray(values[..., 0])
    file = io.BytesIO()
    Image.frombytes("I;16B", grey.size, values[..., 0].astype(">u2").tobytes()).save(file, "TIFF")
    return {
        "grey PNG": encoded(grey, "PNG"),
        "grey TIFF": encoded(grey, "TIFF"),
        "grey TIFF, big-endian": file.getvalue(),
        "grey PGM": by_opencv(values[..., 0], ".pgm"),
        "RGB PNG": by_opencv(values, ".png"),
        "RGB TIFF": by_opencv(values, ".tiff"),
        "RGBA PNG": by_opencv(np.concatenate([np.full_like(values[..., :1], 65535), values], -1), ".png"),
    }


DEEP = (SMOOTH * 16).astype(np.uint16)  # of 12 bits


@pytest.mark.parametrize("kind", deep_kinds(DEEP))
def test_deep_pictures_are_shares_of_the_white_level(tmp_path, kind):
    content = deep_kinds(DEEP)[kind]
    white = pictures.white_level([content])
    assert white == White(4095.0)
    found = np.asarray(pictures.open_picture(content, lambda: white).image)
    expected = DEEP / 4095 * 255 if "RGB" in kind else np.repeat(DEEP[..., :1], 3, -1) / 4095 * 255
    np.testing.assert_allclose(found[..., :3], expected, atol=0.51)  # rounded
    (tmp_path / "1").write_bytes(content)
    assert pictures.read_header(tmp_path / "1").deep


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(("largest", "white"), [(0.5, 1.0), (1.0, 1.0), (200.0, 200.0)])
def test_floating_point_reaches_from_nothing_to_one_or_to_the_brightest(colours, largest, white):
    values = (SMOOTH[..., :colours] / SMOOTH.max() * largest).astype(np.float32).squeeze()
    content = cv2.imencode(".tiff", values)[1].tobytes()
    level = pictures.white_level([content])
    np.testing.assert_allclose(level.real, white, rtol=0.01)  # the 99.9th percentile of few pixels
    found = np.asarray(pictures.open_picture(content, lambda: level).image, float)[..., ::-1]
    expected = np.clip(values / level.real, 0, 1) * 255
    np.testing.assert_allclose(found if colours == 3 else found[..., 0], expected, atol=0.51)  # rounded


def test_values_that_are_not_finite_are_rejected():
    content = cv2.imencode(".tiff", np.full((4, 4), np.nan, np.float32))[1].tobytes()
    with pytest.raises(Rejected, match="not finite"):
        pictures.open_picture(content)


@pytest.mark.parametrize(("largest", "bits"), [(200, 8), (256, 10), (4095, 12), (4096, 14), (60000, 16)])
def test_the_white_level_is_one_for_all_pictures_of_a_scene(largest, bits):
    values = [np.full((2, 2), level, np.uint16) for level in (3, largest, 17)]
    assert deep_pictures.white(values).integer == 2**bits - 1


@pytest.mark.parametrize("others", ["deep", "8 bits"])
def test_a_scene_of_deep_pictures_is_neither_clipped_nor_uneven(tmp_path, others):
    captures_source.write_transforms(tmp_path / "source")
    paths = sorted((tmp_path / "source" / "images").iterdir())
    for i, path in enumerate(paths if others == "deep" else paths[:3]):
        grey = np.asarray(Image.open(path).convert("L"), np.uint16)
        Image.fromarray(grey * (16 if i else 4)).save(path)  # the first is darker than the others
    assert prepare.main(["--format=transforms", f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path}"]) == 0
    stored = stored_pictures(tmp_path / "transforms")
    assert len(stored) == 6 and all((image == 255).mean() < 0.01 for image in stored[: 3 if others != "deep" else 6])
    np.testing.assert_allclose(4 * stored[0].mean(), stored[1].mean(), rtol=0.1)  # as the balls move


# --- kinds that are not read


UNREAD = {  # how files of a kind begin, and what is said of it
    ".jxl": (b"\xff\x0a" + bytes(40), "JPEG XL"),
    ".JXL": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
    ".exr": (b"\x76\x2f\x31\x01" + bytes(40), "OpenEXR"),
    ".hdr": (b"#?RADIANCE\n" + bytes(40), "Radiance"),
    ".DNG": (b"II*\0" + bytes(40), "raw data"),
    ".cr3": (bytes(4) + b"ftypcrx " + bytes(40), "raw data"),
    ".nef": (b"MM\0*" + bytes(40), "raw data"),
    ".heic": (bytes(4) + b"ftypheic" + bytes(40), "pip install '.[heic]'"),
    ".HIF": (bytes(4) + b"ftypmif1" + bytes(40), "pip install '.[heic]'"),
    ".jpg": (bytes(4) + b"ftypheic" + bytes(40), "pip install '.[heic]'"),  # as phones rename them
    ".tif": (b"II*\0" + bytes(40), "decode"),
}


@pytest.mark.parametrize("suffix", UNREAD)
def test_of_kinds_that_are_not_read_it_is_said_why(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(picture_kinds, "reads_heif", lambda: False)
    content, reason = UNREAD[suffix]
    (tmp_path / f"1{suffix}").write_bytes(content)
    for attempt in (pictures.read_header, lambda path: pictures.open_picture(pictures.read_picture(path))):
        with pytest.raises(Rejected) as rejected:
            attempt(tmp_path / f"1{suffix}")
        assert reason in str(rejected.value)


def test_heic_is_read_with_its_extra(tmp_path):
    if importlib.util.find_spec("pillow_heif") is None:
        pytest.skip("pillow_heif is not installed")
    assert picture_kinds.reads_heif()
    (tmp_path / "1.HEIC").write_bytes(encoded(smooth(), "HEIF", quality=95))
    found = pictures.open_picture(pictures.read_picture(tmp_path / "1.HEIC"))
    assert np.abs(np.asarray(found.image, float) - SMOOTH).mean() < 4  # lossy


def test_every_picture_that_a_person_sees_is_gathered_or_a_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_kinds, "reads_heif", lambda: False)
    seen, target = tmp_path / "seen", tmp_path / "target"
    seen.mkdir(), target.mkdir()
    readable = {"1.jpg": "JPEG", "2.JPG": "JPEG", "3.Jpeg": "JPEG", "4.png": "PNG", "5.WebP": "WEBP", "6.AVIF": "AVIF"}
    readable |= {"7.gif": "GIF", "8.tif": "TIFF", "9.bmp": "BMP", "10.JFIF": "JPEG"}
    for name, kind in readable.items():
        (seen / name).write_bytes(encoded(smooth(), kind))
    (seen / "11.png").write_bytes(encoded(Image.fromarray(DEEP[..., 0]), "PNG"))
    for suffix, (content, _) in UNREAD.items():
        (seen / f"unread{suffix}").write_bytes(content)
    names = sorted(path.name for path in seen.iterdir())
    gathered, unreadable = gathered_photos.gather(seen, names, target, BLACK)
    assert sorted(gathered.values()) == sorted([*readable, "11.png"])
    assert sorted([*gathered.values(), *unreadable]) == names
    for file, name in gathered.items():  # what COLMAP sees is what is stored
        copy = Image.open(target / file)
        assert copy.mode == "RGB" and copy.format in ("JPEG", "PNG", "BMP")
        expected = pictures.open_picture((seen / name).read_bytes(), lambda: White(4095.0)).image
        assert np.abs(np.asarray(copy, float) - np.asarray(expected)).mean() < 1


# --- pictures that show nothing


def test_pictures_of_one_colour_are_quarantined_and_dark_ones_are_not(tmp_path):
    """Black stands for a hidden frame; any other colour is a failed capture. By night, pixels differ."""
    captures_source.write_transforms(tmp_path / "source")
    folder = tmp_path / "source" / "images"
    Image.new("RGB", (captures_source.WIDTH, captures_source.HEIGHT)).save(folder / "0.png")
    Image.new("L", (captures_source.WIDTH, captures_source.HEIGHT), 255).save(folder / "1.png")
    dark = np.random.default_rng(0).integers(0, 6, (captures_source.HEIGHT, captures_source.WIDTH, 3), np.uint8)
    Image.fromarray(dark).save(folder / "2.png")
    assert prepare.main(["--format=transforms", f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path}"]) == 0
    listing = (tmp_path / "transforms.quarantine.jsonl").read_text()
    assert listing.count("shows nothing") == listing.count("\n") == 2 and "0.png" in listing and "1.png" in listing
    stored = stored_pictures(tmp_path / "transforms")
    assert len(stored) == 4 and stored[0].max() == 5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "AVIF"])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (30, 90, 120)])
def test_one_colour_is_one_colour_after_compression(kind, colour):
    image = Image.new("RGB", (32, 24), colour)
    assert pictures.shows_nothing(pictures.open_picture(encoded(image, kind)).image)
    assert not pictures.shows_nothing(pictures.open_picture(encoded(smooth(), kind)).image)
