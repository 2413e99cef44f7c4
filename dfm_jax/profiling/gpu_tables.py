"""The tables of the GPU report, from its results."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dfm_jax.profiling.measurement_plan import AS_CHOSEN, PRECISIONS, Measurement, Wave, measurements

KERNELS_SHOWN = 20
Results = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Table:
    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def tables(data: Mapping[str, Any], plan: Sequence[Wave]) -> Iterator[Table]:
    """Those that have rows."""
    results = data["results"]
    every = list(measurements(plan))
    makers: Sequence[Callable[[Results, list[Measurement]], Table]] = (
        _goals, _against_the_yardstick, _inference, _training, _device, _attention, _parts, _kernels, _training_kernels,
        _lookup_gradients, _correctness, _missing,
    )  # fmt: skip
    for make in makers:
        table = make(results, every)
        if table.rows:
            yield table


def measured(results: Results, name: str, value: str = "seconds") -> float | None:
    return results.get(name, {}).get(value)


def best(results: Results, step: str, value: str = "seconds") -> float | None:
    """Of a step, or of the fastest of its ways: 'denoising step 64, bf16', '..., chunks of 128', '..., as chosen',
    '..., products by cuBLAS alone'."""
    alike = (f"{step}, chunks of", f"{step}{AS_CHOSEN}", f"{step}, products by")
    rows = [r for name, r in results.items() if (name == step or name.startswith(alike))]
    rows = [r for r in rows if r.get("seconds")]
    return min(rows, key=lambda r: r["seconds"])[value] if rows else None


def rate(results: Results, precision: str) -> float | None:
    return measured(results, f"products, {precision}", "flops_per_s")


def number(value: float | None, form: str, scale: float = 1.0, unit: str = "") -> str:
    return "" if value is None else f"{value * scale:{form}}{unit}"


def quotient(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def share(results: Results, row: Mapping[str, Any], precision: str) -> float | None:
    """Of the measured rate of products, that a program reached."""
    return quotient(quotient(row.get("flops"), row.get("seconds")), rate(results, precision))


def _against_the_yardstick(results: Results, every: list[Measurement]) -> Table:
    rows = []
    for step in ("denoising step 64", "denoising step 128", "training step 64"):
        for precision in PRECISIONS:
            theirs = results.get(f"yardstick: {step}, {precision}", {})
            ours = best(results, f"{step}, {precision}")
            if not theirs or (ours is None and "failed" in theirs):
                continue
            ratio = quotient(theirs.get("seconds"), ours)
            again = measured(results, f"yardstick: {step}, {precision}, at the end")
            rows.append([
                step, precision, number(theirs.get("seconds"), ".4g", 1e3, " ms") or _short(theirs.get("failed")),
                number(ours, ".4g", 1e3, " ms"), number(ratio, ".2f"),
                number(theirs.get("peak_bytes"), ".1f", 1e-9, " GB"),
                number(best(results, f"{step}, {precision}", "peak_bytes"), ".1f", 1e-9, " GB"),
                number(again, ".4g", 1e3, " ms"),
            ])  # fmt: skip
    header = ["", "precision", "PyTorch", "here", "ratio", "its memory", "memory here", "PyTorch at the end"]
    return Table("Against the published computation in PyTorch", header, rows, YARDSTICK_NOTE)


YARDSTICK_NOTE = (
    "Both on this card in one sitting, medians. `tf32` and `fp32` are the networks in float32, with products in the "
    "matrix units' format or exact. A denoising step is of one scene with one context view; a training step too, with "
    "the losses that the yardstick has; here with AdamW's update and the average, which it lacks."
)


def _goals(results: Results, every: list[Measurement]) -> Table:
    step, train = (best(results, f"{x} step 64, bf16") for x in ("denoising", "training"))
    theirs, theirs_train = (f"yardstick: {x} step 64, bf16" for x in ("denoising", "training"))
    faster, faster_train = quotient(measured(results, theirs), step), quotient(measured(results, theirs_train), train)
    reached = quotient(quotient(best(results, "denoising step 64, bf16", "flops"), step), rate(results, "bf16"))
    memory = quotient(
        best(results, "training step 64, bf16", "peak_bytes"), measured(results, theirs_train, "peak_bytes")
    )
    goals = [
        ("denoising step 64, bf16: times as fast as PyTorch", faster, 3.0, True, ".2f"),
        ("its share of the measured rate of bf16 products", reached, 0.4, True, ".0%"),
        ("training step 64, bf16: times as fast as PyTorch", faster_train, 2.5, True, ".2f"),
        ("its share of PyTorch's memory", memory, 1 / 3, False, ".0%"),
        ("training step of co3d.py:128, three context views, AdamW: GB",
         _gigabytes(results, "training step co3d, three views, bf16"), 30.0, False, ".1f"),
        ("guided sample of realestate10k.py:128, 12 steps, bf16: seconds",
         measured(results, "sample 128, guided, bf16"), 2.0, False, ".2f"),
    ]  # fmt: skip
    rows = []
    for what, value, limit, at_least, form in goals:
        if value is not None:
            met = value >= limit if at_least else value <= limit
            bound = f"{'at least' if at_least else 'at most'} {limit:{form}}"
            rows.append([what, f"{value:{form}}", bound, "yes" if met else "no"])
    return Table("Goals", ["", "measured", "goal", "met"], rows)


def _gigabytes(results: Results, name: str) -> float | None:
    peak = measured(results, name, "peak_bytes")
    return peak / 1e9 if peak else None


def _inference(results: Results, every: list[Measurement]) -> Table:
    rows = []
    for m in every:
        row = results.get(m.name, {})
        if m.kind == "inference" and row.get("seconds"):
            rays = row["rays"] / row["seconds"] if m.settings["program"] == "video frame" else None
            rows.append([m.name, *_speed(results, row, m.settings["precision"]), number(rays, ".3g", 1e-6, " M")])
    return Table("Inference, one scene", ["", *SPEED, "rays/s"], rows)


def _training(results: Results, every: list[Measurement]) -> Table:
    rows = [
        [m.name, *_speed(results, results[m.name], m.settings["precision"])]
        for m in every
        if m.kind == "training" and results.get(m.name, {}).get("peak_bytes")
    ]
    return Table("Training steps", ["", *SPEED], rows, "One scene each, unless its name says otherwise.")


SPEED = ["median", "chunks of", "TFLOP", "TFLOP/s", "share of product rate", "peak memory", "compiled in"]


def _speed(results: Results, row: Mapping[str, Any], precision: str) -> list[str]:
    return [
        number(row.get("seconds"), ".4g", 1e3, " ms") or _short(row.get("failed")),
        str(row.get("chunk", "")),
        number(row["flops"], ".3g", 1e-12),
        number(quotient(row["flops"], row.get("seconds")), ".3g", 1e-12),
        number(share(results, row, precision), ".0%"),
        number(row["peak_bytes"], ".2f", 1e-9, " GB"),
        number(row["compile_s"], ".0f", 1, " s"),
    ]


def _device(results: Results, every: list[Measurement]) -> Table:
    rows = []
    for m in every:
        row = results.get(m.name, {})
        if m.kind == "products" and row.get("seconds"):
            error = f"relative error {row['relative_error']:.1e}"
            rows.append([m.name, number(row["flops_per_s"], ".4g", 1e-12, " TFLOP/s"), error])
        if m.kind == "copy" and row.get("seconds"):
            rows.append([m.name, number(row["bytes_per_s"], ".3g", 1e-12, " TB/s"), "read and written"])
    return Table("What the device can do", ["", "measured", ""], rows)


def _attention(results: Results, every: list[Measurement]) -> Table:
    rows = []
    for m in every:
        if m.kind == "attention" and m.settings["by"] == "xla":
            base = m.name.removesuffix(", xla")
            ways = [results.get(f"{base}, {way}", {}) for way in ("xla", "cudnn")]
            if not any(ways):
                continue
            one = [x.get("seconds_of_one") for x in ways]
            cells = [number(s, ".4g", 1e6, " µs") or _short(x.get("failed")) for s, x in zip(one, ways, strict=True)]
            rows.append([base, *cells, number(quotient(*one), ".2f")])
    return Table("Attention: XLA against cuDNN", ["", "XLA", "cuDNN", "ratio"], rows, "bf16, 16 heads of 72.")


def _parts(results: Results, every: list[Measurement]) -> Table:
    step = best(results, "denoising step 64, bf16")
    alone = ["encoder 64, bf16", "rendering 64, bf16"]
    alone += [m.name for m in every if m.name.startswith("rendering 64, bf16:")]
    rows = [
        [name, number(s, ".4g", 1e3, " ms"), number(quotient(s, step), ".0%")]
        for name in alone
        if (s := measured(results, name))
    ]
    rows = [["denoising step 64, bf16", number(step, ".4g", 1e3, " ms"), ""], *rows] if rows else []
    note = "Each piece as a program of its own; 'products alone' are as many operations as the rendering's."
    return Table("Where a denoising step goes: pieces", ["", "median", "of the step"], rows, note)


def _lookup_gradients(results: Results, every: list[Measurement]) -> Table:
    rows = [
        [m.name, number(measured(results, m.name), ".4g", 1e3, " ms")]
        for m in every
        if m.kind == "lookup gradients" and measured(results, m.name)
    ]
    note = "As many as the fine samples of a training step's rays ask for in one view each, and their four corners."
    return Table("Gradients of lookups", ["", "median"], rows, note)


def _kernels(results: Results, every: list[Measurement]) -> Table:
    return _kernels_of("trace", "Where a denoising step goes: kernels", results, every)


def _training_kernels(results: Results, every: list[Measurement]) -> Table:
    return _kernels_of("training trace", "Where a training step goes: kernels", results, every)


def _kernels_of(kind: str, title: str, results: Results, every: list[Measurement]) -> Table:
    for m in every:
        row = results.get(m.name, {})
        if m.kind == kind and row.get("kernels"):
            total = row["seconds"]
            parts = [f"{name} {seconds / total:.0%}" for name, seconds in row["parts"].items()]
            note = f"{m.name}: {total * 1e3:.3g} ms in {row['num_kernels']} kinds of kernels; {', '.join(parts)}."
            rows = [
                [k["kernel"][:60], k["part"], number(k["seconds"], ".3g", 1e3, " ms"), f"{k['seconds'] / total:.1%}",
                 f"{k['runs']:g}", k["operation"][-90:]]
                for k in row["kernels"][:KERNELS_SHOWN]
            ]  # fmt: skip
            return Table(title, ["kernel", "part", "time", "share", "runs", "from"], rows, note)
    return Table("", [], [])


def _correctness(results: Results, every: list[Measurement]) -> Table:
    rows = []
    for m in every:
        row = results.get(m.name, {})
        if m.kind == "resume" and "digest" in row:
            yes = lambda same: "the same bits" if same else "other bits"
            again, resumed = yes(row["same_when_repeated"]), yes(row["same_when_resumed"])
            rows.append([m.name, f"{row['steps']} steps: done again {again}; resumed twice {resumed}"])
        if m.kind == "pytest" and row.get("counts"):
            counts = ", ".join(f"{count} {verdict}" for verdict, count in row["counts"].items())
            rows.append([m.name, "; ".join([counts, *row["not_passed"][:20]])])
    return Table("Is it right?", ["", ""], rows)


def _missing(results: Results, every: list[Measurement]) -> Table:
    rows = [[m.name, _short(results[m.name]["failed"])] for m in every if "failed" in results.get(m.name, {})]
    left = [m.name for m in every if m.name not in results]
    rows += [["; ".join(left), "not reached"]] if left else []
    return Table("Not measured", ["", "why"], rows)


def _short(text: str | None) -> str:
    return (text or "")[:140]
