"""Which kernels a program's time goes to, read from a trace by jax's profiler."""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

RUNS = 3
LISTED = 40
# Parts of a denoising step by the scopes that their operations lie in; the first that fits.
PARTS = (
    ("lookup", r"/lookup/"),
    ("importance sampling", r"/importance_sampling/"),
    ("compositing", r"/compositing/"),
    ("encoder", r"Encoder"),
    ("field", r"RadianceField"),
)
# Of optimised HLO: the head of a computation, an instruction, the operation that it comes from, what a fusion holds.
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
OPERATION = re.compile(r'metadata=\{[^}]*?op_name="([^"]*)"')
CALLS = re.compile(r"\bcalls=%?([\w.\-]+)")
# What is no kernel, but holds others or waits for them.
CONTAINERS = re.compile(r"^(while|conditional|call)[.\d]*$")
NOT_KERNELS = re.compile(r"^(Thunk|ThreadpoolListener|TaskDispatcher|end:|.*::)")


def kernels(run: Callable[[], Any], hlo: str) -> dict[str, Any]:
    """Seconds of one run by part and by kernel, the longest first.

    Args:
      hlo: the program's optimised HLO, which says where each kernel comes from.

    Raises:
      RuntimeError: the trace shows no kernels.
    """
    jax.block_until_ready(run())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(RUNS):
                jax.block_until_ready(run())
        files = list(pathlib.Path(folder).rglob("*.xplane.pb"))
        if not files:
            raise RuntimeError("the profiler wrote no trace")
        planes = jax.profiler.ProfileData.from_file(str(files[0])).planes
        spent = total_by_kernel(planes)
    if not spent:
        raise RuntimeError("the trace shows no kernels")
    return summarize({name: (seconds / RUNS, count / RUNS) for name, (seconds, count) in spent.items()}, origins(hlo))


def origins(hlo: str) -> dict[str, str]:
    """The operation that each instruction of optimised HLO comes from; of a fusion that does not say, the one that most
    of its instructions come from."""
    inside: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    found, called, computation = {}, {}, ""
    for line in hlo.splitlines():
        if head := COMPUTATION.match(line):
            computation = head[1]
        if not (instruction := INSTRUCTION.match(line)):
            continue
        if operation := OPERATION.search(line):
            found[instruction[1]] = operation[1]
            inside[computation][operation[1]] += 1
        elif calls := CALLS.search(line):
            called[instruction[1]] = calls[1]
    most = {name: inside[callee].most_common(1)[0][0] for name, callee in called.items() if inside[callee]}
    return most | found


def total_by_kernel(planes: Iterable[Any]) -> dict[tuple[str, str], tuple[float, int]]:
    """Seconds and number of runs of each (kernel, HLO instruction): of the device; on a CPU, of its threads."""
    planes = list(planes)
    shown = [plane for plane in planes if any(True for line in plane.lines for _ in line.events)]
    devices = [plane for plane in shown if plane.name.startswith("/device:")]
    spent: dict[tuple[str, str], list[float]] = collections.defaultdict(lambda: [0.0, 0])
    for plane in devices or planes:
        for line in plane.lines:
            if devices and not line.name.startswith("Stream"):
                continue  # the profiler's own sums over the streams
            for event in line.events:
                instruction = str(next((value for key, value in event.stats if key == "hlo_op"), ""))
                if CONTAINERS.match(instruction):
                    continue
                if instruction or (devices and not NOT_KERNELS.match(event.name)):
                    entry = spent[event.name, instruction]
                    entry[0] += event.duration_ns * 1e-9
                    entry[1] += 1
    return {key: (seconds, count) for key, (seconds, count) in spent.items()}


def summarize(spent: Mapping[tuple[str, str], tuple[float, float]], origin: Mapping[str, str]) -> dict[str, Any]:
    parts: collections.Counter[str] = collections.Counter()
    listed = []
    for (kernel, instruction), (seconds, count) in spent.items():
        where = origin.get(instruction) or origin.get(re.sub(r"_(\d+)$", r".\1", kernel), "")
        part = next((name for name, pattern in PARTS if re.search(pattern, where)), "other")
        parts[part] += seconds
        listed.append(
            {"kernel": kernel[:120], "operation": where[-160:], "part": part, "seconds": seconds, "runs": count}
        )
    listed.sort(key=lambda x: -x["seconds"])
    return {
        "seconds": sum(parts.values()),
        "parts": dict(parts.most_common()),
        "num_kernels": len(listed),
        "kernels": listed[:LISTED],
    }
