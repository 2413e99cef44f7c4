"""Text as people's tools write it: with a byte order mark or without, and lines that end in any of the usual ways; and
names of files, which need not be text."""

import codecs
import json
import re
from typing import Any

WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


def lines(content: bytes, errors: str = "strict") -> list[str]:
    """Lines without their ends; `errors` as for `bytes.decode`.

    Raises:
      ValueError: it is no UTF-8; says so where it is another encoding of text.
    """
    if content.startswith(WIDE) or b"\0" in content[:4]:
        raise ValueError("it is UTF-16 or UTF-32, not UTF-8: save it as UTF-8")
    text = content.decode("utf-8-sig", errors)
    return re.split(r"\r\n|\n|\r", text.removesuffix("\n").removesuffix("\r")) if text else []


def parse_json(content: bytes) -> Any:
    """What JSON holds, in any encoding that it may have.

    Raises:
      ValueError: it is no JSON, or too deep.
    """
    try:
        return json.loads(content)  # of bytes it finds out the encoding, and passes over a mark
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def as_text(name: str) -> str:
    """A name on disk, which need not be text; bytes that are none are written out, so that names stay distinct."""
    return name.encode("utf-8", "backslashreplace").decode()
