"""An evaluation beside the numbers that were published with its protocol, and all that differs between the two."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from dfm_jax.evaluation.extent import Extent
from dfm_jax.evaluation.protocols.table import Protocol


@dataclasses.dataclass(frozen=True)
class Circumstances:
    """What an evaluation was made with."""

    image_size: int  # pixels a side of what the model draws
    stored_size: int  # the same of the data set's pictures
    most_context: int  # context views that the model was trained with at most
    used_context: int  # that the protocol gives at most
    num_samples: int  # of each example
    num_scales: int  # of the cameras, of which the best was taken; 0: none
    left_out: Mapping[str, str]  # what could not be measured, and why
    foreground: bool = False  # whether pictures were compared in the foreground alone


def compare(
    protocol: Protocol, numbers: Mapping[str, Any], extent: Extent, circumstances: Circumstances
) -> dict[str, Any]:
    """What the page and `metrics.json` say of the comparison; JSON can hold it.

    Args:
      numbers: of all scenes, by the names of `metrics.json`.
    """
    rows = [
        {"by": row.by, "numbers": dict(row.numbers), "source": row.source, "scenes": row.scenes}
        for row in protocol.published
    ]
    return {
        "name": protocol.name,
        "rule": protocol.rule,
        "targets": protocol.targets,
        "notes": protocol.notes,
        "metrics": list(protocol.metrics),
        "ours": {name: numbers.get(name) for name in protocol.metrics},
        "published": rows,
        "differences": list(_differences(protocol, numbers, extent, circumstances)),
    }


def _differences(
    protocol: Protocol, numbers: Mapping[str, Any], extent: Extent, circumstances: Circumstances
) -> Iterator[str]:
    size, side = circumstances.image_size, protocol.resolution
    if side and size != side:
        yield f"resolution: {size} x {size} pixels here, {side} x {side} in the protocol"
    if circumstances.stored_size < size:
        yield f"the data set's pictures have {circumstances.stored_size} pixels a side, and are enlarged to {size}"
    if holes := extent.headline():
        yield f"holes: {holes}"
    for row in protocol.published:
        if row.scenes and row.scenes != extent.examples:
            yield f"{row.by}: means over {row.scenes} scenes; here {extent.examples} examples"
    if circumstances.used_context > circumstances.most_context:
        yield (
            f"{circumstances.used_context} context views are given; the model was trained with at most "
            f"{circumstances.most_context}"
        )
    if circumstances.num_samples > 1:
        yield f"means over {circumstances.num_samples} samples of each example, unless the best of them is meant"
    if beyond := [count for count in protocol.best_of if count > circumstances.num_samples]:
        yield f"best of {', '.join(map(str, beyond))}: there are {circumstances.num_samples} samples of each example"
    if circumstances.num_scales:
        yield f"of {circumstances.num_scales} scales of the cameras, the best by PSNR in each example"
    if circumstances.foreground:
        yield "pictures are compared in the foreground alone, by the masks of the data set"
    for name in protocol.metrics:
        if numbers.get(name) is None and not name.startswith("psnr_best_of_"):
            yield f"{name} is not measured: {_why_not(name, circumstances.left_out)}"


def _why_not(name: str, left_out: Mapping[str, str]) -> str:
    reasons = [reason for names, reason in left_out.items() if name.removesuffix("_best") in names.split(", ")]
    return reasons[0] if reasons else "it cannot be of these images"
