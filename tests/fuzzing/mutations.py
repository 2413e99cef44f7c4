"""Ways in which files come to harm: what transfers, editors, other machines and other programs do to them."""

import gzip
import json
import pathlib
from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
ODD_VALUES = (None, True, -1, 0, 3, 1e308, float("nan"), 10**400, "", "..", "a/b/c", "x" * 5000, [], {}, [[1]], "é\0")


def truncate(path: pathlib.Path, rng: Rng) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(len(content) + 1))])


def flip_bits(path: pathlib.Path, rng: Rng) -> None:
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    if len(content):
        where = rng.integers(len(content), size=int(rng.integers(1, 9)))
        content[where] ^= rng.integers(1, 256, size=len(where)).astype(np.uint8)
    path.write_bytes(content.tobytes())


def zero_a_part(path: pathlib.Path, rng: Rng) -> None:
    """What a copy leaves that was cut and filled up."""
    content = bytearray(path.read_bytes())
    start = int(rng.integers(len(content) + 1))
    content[start:] = bytes(len(content) - start)
    path.write_bytes(bytes(content))


def drop_a_part(path: pathlib.Path, rng: Rng) -> None:
    content = path.read_bytes()
    start, end = sorted(rng.integers(len(content) + 1, size=2).tolist())
    path.write_bytes(content[:start] + content[end:])


def repeat_a_part(path: pathlib.Path, rng: Rng) -> None:
    content = path.read_bytes()
    start, end = sorted(rng.integers(len(content) + 1, size=2).tolist())
    path.write_bytes(content[:end] + content[start:])


def wrong_endianness(path: pathlib.Path, rng: Rng) -> None:
    """Words of 4 or 8 bytes as another machine writes them."""
    content = path.read_bytes()
    word = int(rng.choice([4, 8]))
    whole = len(content) // word * word
    path.write_bytes(np.frombuffer(content[:whole], f"<u{word}").byteswap().tobytes() + content[whole:])


def wrong_size(path: pathlib.Path, rng: Rng) -> None:
    """A word in the first 256 bytes, where formats keep sizes and counts, that is far too large, or negative."""
    content = bytearray(path.read_bytes())
    word = int(rng.choice([1, 2, 4, 8]))
    start = int(rng.integers(max(1, min(256, len(content)) - word)))
    value = rng.choice([b"\xff" * 8, b"\xff\xff\xff\x7f\0\0\0\0", b"\0\0\0\x10\0\0\0\0", bytes(8)])
    content[start : start + word] = bytes(value)[:word].ljust(word, b"\0")
    path.write_bytes(bytes(content))


def empty(path: pathlib.Path, rng: Rng) -> None:
    path.write_bytes(b"")


def remove(path: pathlib.Path, rng: Rng) -> None:
    path.unlink()


def rename(path: pathlib.Path, rng: Rng) -> None:
    other = rng.choice([path.name.upper(), path.name + ".bak", "a" + path.name, path.stem, path.stem + ".xyz"])
    path.rename(path.with_name(str(other)))


def become_a_folder(path: pathlib.Path, rng: Rng) -> None:
    path.unlink()
    path.mkdir()


def other_text(path: pathlib.Path, rng: Rng) -> None:
    """In UTF-16, with a byte order mark, or with line ends of another system; and a number that is none."""
    content = path.read_bytes()
    changes = [
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: content.decode("latin-1").encode("utf-16"),
        lambda: content.replace(b"1", rng.choice([b"one", b"nan", b"inf", b"1e999", b"-1", b"1,", b""]).item()),
        lambda: content.replace(b" ", b"\t"),
        lambda: content.replace(b"\n", b"\n\n"),
    ]
    path.write_bytes(changes[int(rng.integers(len(changes)))]())


def swap_types(path: pathlib.Path, rng: Rng) -> None:
    """One value of a JSON file, at a random depth, becomes something else, or goes."""
    packed = path.suffix == ".jgz"
    content = path.read_bytes()
    try:
        tree = json.loads(gzip.decompress(content) if packed else content)
    except ValueError:  # a file that lies beside and is no JSON
        return flip_bits(path, rng)
    holder = [tree]
    parent, key = holder, 0
    while isinstance(parent[key], dict | list) and parent[key] and (parent is holder or rng.random() < 0.85):
        parent = parent[key]
        keys = list(parent) if isinstance(parent, dict) else range(len(parent))
        key = keys[int(rng.integers(len(keys)))]
    if rng.random() < 0.2 and parent is not holder:
        del parent[key]
    else:
        parent[key] = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    text = json.dumps(holder[0]).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    return None


def repack(mutation: Callable[[pathlib.Path, Rng], None]) -> Callable[[pathlib.Path, Rng], None]:
    """The mutation of what a gzipped file holds, so that it gets past the checksum of the packing."""

    def inside(path: pathlib.Path, rng: Rng) -> None:
        path.write_bytes(gzip.decompress(path.read_bytes()))
        mutation(path, rng)
        path.write_bytes(gzip.compress(path.read_bytes()))

    inside.__name__ = f"{mutation.__name__} (inside)"
    return inside


BYTES = (truncate, flip_bits, zero_a_part, drop_a_part, repeat_a_part, wrong_endianness, wrong_size, empty)
PLACES = (remove, rename, become_a_folder)
TEXT = (truncate, flip_bits, drop_a_part, repeat_a_part, empty, other_text, other_text)
JSON = (*TEXT, *4 * (swap_types,))
PACKED_JSON = (*BYTES, *4 * (swap_types,), repack(flip_bits), repack(truncate), repack(other_text))
