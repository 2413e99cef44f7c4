"""`python -m dfm_jax.evaluation.protocols list` prints the table of protocols; `list NAME ...` some of them."""

import sys
from collections.abc import Sequence

from dfm_jax.errors import Parser, UserError
from dfm_jax.evaluation.protocols.table import PROTOCOLS, Protocol
from dfm_jax.runs import log


def describe(protocol: Protocol) -> str:
    """A protocol as lines of text."""
    side = f"{protocol.resolution} x {protocol.resolution} pixels" if protocol.resolution else "not stated"
    lines = {
        "index file": f"{protocol.layout}{f'; shipped: {protocol.index}' if protocol.index else ''}",
        "reading rule": protocol.rule,
        "context views": "all that are listed" if protocol.context is None else f"the first {protocol.context}",
        "targets": protocol.targets,
        "resolution": side,
        "crop": protocol.crop,
        "metrics": ", ".join(protocol.metrics),
    }
    for row in protocol.published:
        numbers = ", ".join(f"{name} {value:g}" for name, value in row.numbers.items())
        count = f", {row.scenes} scenes" if row.scenes else ""
        lines[f"published by {row.by}"] = f"{numbers} ({row.source}{count})"
    lines |= {"notes": protocol.notes} if protocol.notes else {}
    return "\n".join([protocol.name, *(f"  {name + ':':<16} {text}" for name, text in lines.items())])


@log.command
def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m dfm_jax.evaluation.protocols", description=__doc__)
    parser.add_argument("command", choices=["list"], help="print the table")
    parser.add_argument("names", nargs="*", metavar="NAME", help="protocols; all by default")
    names = parser.parse_args(arguments).names
    if unknown := [name for name in names if name not in PROTOCOLS]:
        raise UserError(f"there is no protocol {unknown[0]!r}: these are {', '.join(PROTOCOLS)}")
    print("\n\n".join(describe(PROTOCOLS[name]) for name in names or PROTOCOLS), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
