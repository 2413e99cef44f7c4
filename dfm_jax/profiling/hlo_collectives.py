"""What a compiled program sends between devices, read from its text (HLO).

A computation runs as often as it is called: the bodies of loops as often as the loop turns. jax's loops count from 0 in
steps of 1, so that the one integer constant of a loop's condition is the number of turns.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping

# Collectives by their HLO names; asynchronous ones begin with a '-start', which is what is counted.
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # of types whose names do not end in their bits

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_SHAPE = re.compile(r"\b(pred|bf16|c64|c128|[suf]\d+(?:e\w+)?)\[([\d,]*)\]")
_CALLEE = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_CHANNEL = re.compile(r"\bchannel_id=\d+")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collectives:
    """Of one run of the program, on each device."""

    counts: Mapping[str, int]  # times that each kind runs
    bytes: Mapping[str, int]  # size of what is reduced, gathered or moved: of a gather the result, else what goes in
    unknown_loops: int  # loops with collectives whose turns are not known; they count as one turn


@dataclasses.dataclass(frozen=True)
class _Instruction:
    opcode: str
    bytes: int  # of its result
    operands: tuple[str, ...]
    attributes: str
    constant: int | None  # value of an integer constant


_Computation = dict[str, _Instruction]


def collectives(hlo: str) -> Collectives:
    """Counts the collectives of an optimised program, such as `compiled.as_text()`."""
    computations, entry = _parse(hlo)
    found: dict[str, tuple[str, int, int, bool]] = {}  # kind, turns, bytes and whether turns are known, by channel
    for name, (turns, known) in _runs(computations, entry).items():
        for label, instruction in computations[name].items():
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            given = sum(computations[name][x].bytes for x in instruction.operands if x in computations[name])
            moved = given
            if kind == "all-gather":
                # A start's result holds what goes in, too.
                moved = instruction.bytes - (given if instruction.opcode.endswith("-start") else 0)
            if name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"  # a fusion of a sum and the part of it that is kept
            # One that runs beside other work stands in each of the fusions that it runs beside.
            channel = _CHANNEL.search(instruction.attributes)
            key = channel[0] if channel else f"{name}/{label}"
            if key not in found or found[key][1] < turns:
                found[key] = (kind, turns, moved, known)
    counts, sizes = collections.Counter(), collections.Counter()
    for kind, turns, moved, _ in found.values():
        counts[kind] += turns
        sizes[kind] += turns * moved
    return Collectives(dict(counts), dict(sizes), sum(not known for *_, known in found.values()))


def _runs(computations: Mapping[str, _Computation], entry: str) -> dict[str, tuple[int, bool]]:
    """How often each computation runs, and whether that is known."""
    runs: dict[str, tuple[int, bool]] = {}

    def visit(name: str, turns: int, known: bool) -> None:
        before, before_known = runs.get(name, (0, True))
        runs[name] = (before + turns, before_known and known)
        for instruction in computations[name].values():
            for callee, times in _callees(instruction, computations):
                if callee in computations:
                    visit(callee, turns * (times or 1), known and times is not None)

    visit(entry, 1, True)
    return runs


def _callees(instruction: _Instruction, computations: Mapping[str, _Computation]) -> Iterator[tuple[str, int | None]]:
    """What an instruction calls, and how often; None: it is not known how often."""
    called = dict(_CALLEE.findall(instruction.attributes))
    if instruction.opcode == "while":
        turns = _trip_count(instruction, computations[called["condition"]], computations)
        yield called["body"], turns
        return
    for match in _BRANCHES.findall(instruction.attributes):
        for branch in match.split(","):
            yield branch.strip().lstrip("%"), 1  # one of them runs: an upper bound
    if instruction.opcode in ("fusion", "call", "async-start", "conditional"):
        for callee in called.values():
            yield callee, 1


def _trip_count(loop: _Instruction, condition: _Computation, computations: Mapping[str, _Computation]) -> int | None:
    if stated := _TRIP_COUNT.search(loop.attributes):
        return int(stated[1])
    constants = [x.constant for x in condition.values() if x.constant is not None]
    for instruction in condition.values():
        for _, callee in _CALLEE.findall(instruction.attributes):
            constants += [x.constant for x in computations.get(callee, {}).values() if x.constant is not None]
    return constants[0] if len(set(constants)) == 1 else None


def _parse(hlo: str) -> tuple[dict[str, _Computation], str]:
    """All computations by name, and the name of the one that the program begins with."""
    computations: dict[str, _Computation] = {}
    entry, current = "", None
    for line in hlo.splitlines():
        if header := _HEADER.match(line):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current[found[1]] = _instruction(found[2])
    return computations, entry


def _instruction(text: str) -> _Instruction:
    """From what stands behind the `=`: `type opcode(operands), attributes`."""
    kind, rest = _balanced(text) if text.startswith("(") else text.split(" ", 1)
    opcode, _, rest = rest.strip().partition("(")
    inside, attributes = _balanced("(" + rest)
    constant = int(inside[1:-1]) if opcode == "constant" and re.fullmatch(r"\(-?\d+\)", inside) else None
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return _Instruction(opcode, _bytes(kind), operands, attributes, constant)


def _balanced(text: str) -> tuple[str, str]:
    """The part of the text up to the bracket that closes its first one, and what follows."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :]
    return text, ""


def _bytes(kind: str) -> int:
    """Of a type, or of all parts of a tuple; layouts are left out of account."""
    total = 0
    for name, dimensions in _SHAPE.findall(kind):
        elements = 1
        for size in filter(None, dimensions.split(",")):
            elements *= int(size)
        bits = BITS.get(name) or int(re.match(r"[suf](\d+)", name)[1])
        total += -(-elements * bits // 8)
    return total
