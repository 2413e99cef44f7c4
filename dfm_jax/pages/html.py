"""Pieces that pages are made of. What they are given is HTML already, but for names."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def table(rows: Sequence[Sequence[str]], heads: Sequence[str] = (), text: Sequence[int] = ()) -> str:
    """A table of cells, which can be scrolled where it is too wide.

    Args:
      text: numbers of the columns that hold text, which is broken into lines.
    """
    style = lambda i: ' class="text"' if i in text else ""
    row = lambda cells, tag: "".join(f"<{tag}{style(i)}>{cell}</{tag}>" for i, cell in enumerate(cells))
    head = f"<thead><tr>{row(heads, 'th')}</tr></thead>" if heads else ""
    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def formatted(value: float | None, style: str) -> str:
    """By a format with an optional unit behind a space; nothing for what is not known."""
    number, _, unit = style.partition(" ")
    return "" if value is None else f"{value:{number}}" + (f"&nbsp;{unit}" if unit else "")


def measures(
    found: Sequence[tuple[Sequence[str], Mapping[str, Any]]],
    columns: Sequence[tuple[str, str, str]],
    heads: Sequence[str],
) -> str:
    """A table of what was measured, a row each.

    Args:
      found: names of each, as text, and its numbers.
      columns: a number's name, what it is called, and its format.
      heads: of the columns that hold names.
    """
    rows = [
        [*map(escape, names), *(formatted(numbers.get(key), style) for key, _, style in columns)]
        for names, numbers in found
    ]
    return table(rows, [*heads, *(title for _, title, _ in columns)], text=range(1, len(heads)))


def swatch(colour: str) -> str:
    """The name of a colour, behind a patch of it."""
    return f'<span class="swatch" style="background:{escape(colour)}"></span>{escape(colour)}'
