"""What the GPU report found, for people: tables, as a page and as Markdown."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from dfm_jax.errors import UserError
from dfm_jax.pages.evaluation_page import page
from dfm_jax.profiling.gpu_tables import Table, tables
from dfm_jax.profiling.measurement_plan import Wave

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def in_short(numbers: Mapping[str, Any]) -> str:
    """One line on a result."""
    if "failed" in numbers:
        return numbers["failed"][:160]
    if numbers.get("seconds"):
        memory = f", {numbers['peak_bytes'] / 1e9:.1f} GB" if "peak_bytes" in numbers else ""
        return f"{1e3 * numbers['seconds']:.4g} ms{memory}"
    return ", ".join(f"{key} {value}" for key, value in numbers.items() if isinstance(value, (int, str, dict)))[:160]


def write(folder: pathlib.Path, data: Mapping[str, Any], plan: Sequence[Wave]) -> None:
    """Writes `index.html` and `gpu.md`."""
    made = list(tables(data, plan))
    (folder / "gpu.md").write_text(_heading(data) + "\n\n" + "\n".join(map(markdown, made)), encoding="utf-8")
    body = f'<h1>Speed and memory</h1>\n<p class="lead">{escape(_heading(data))}</p>\n'
    body += "".join(map(_html, made)) + '<p class="soft">All numbers: <a href="results.json">results.json</a>.</p>\n'
    (folder / "index.html").write_text(page("Speed and memory", body), encoding="utf-8")


def insert(path: pathlib.Path, data: Mapping[str, Any], plan: Sequence[Wave]) -> None:
    """Puts the tables into a Markdown file, instead of those between the two marks.

    Raises:
      UserError: the file or a mark is not there.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"{path} must hold the lines '{BEGIN}' and '{END}', in this order, for the tables between them")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    middle = "\n".join([_heading(data), "", *map(markdown, tables(data, plan))])
    path.write_text(f"{before}{BEGIN}\n{middle}{END}{after}", encoding="utf-8")


def _heading(data: Mapping[str, Any]) -> str:
    device = data["device"]
    memory = f", {device['memory_bytes'] / 1e9:.0f} GB for programs" if device.get("memory_bytes") else ""
    sizes = "" if data["sizes"] == "published" else f" Sizes: {data['sizes']}; these numbers say nothing."
    return f"Measured on one {data['card']}{memory}; jax {device.get('jax', '?')}.{sizes}"


def markdown(table: Table) -> str:
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    lines = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return f"### {table.title}\n\n{table.note}\n\n{lines}\n" if table.note else f"### {table.title}\n\n{lines}\n"


def _html(table: Table) -> str:
    cells: Callable[[str, Sequence[str]], str] = lambda tag, row: "".join(f"<{tag}>{escape(x)}</{tag}>" for x in row)
    rows = "".join(f"<tr>{cells('td', row)}</tr>" for row in table.rows)
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return (
        f'<h2>{escape(table.title)}</h2>{note}<div class="scroll"><table><thead><tr>{cells("th", table.header)}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>\n"
    )
