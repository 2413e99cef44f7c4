"""Pieces that pages are made of. What they are given is HTML already, but for names."""

from collections.abc import Sequence
from html import escape


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


def swatch(colour: str) -> str:
    """The name of a colour, behind a patch of it."""
    return f'<span class="swatch" style="background:{escape(colour)}"></span>{escape(colour)}'
