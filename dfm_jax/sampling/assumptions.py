"""What was assumed of photographs, for a person: in the log, in `samples.json`, in saved scenes and on the page."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class PhotographFacts:
    """One photograph, as viewers show it."""

    name: str  # of its file; '' of what lies in memory
    width: int  # pixels
    height: int
    field_of_view: float  # horizontal, of the whole picture, degrees
    field_of_view_from: str  # where that comes from
    crop: str  # 'centre' or 'pad'
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """Of the photographs that scenes are sampled behind. Distances are in the model's units."""

    photographs: tuple[PhotographFacts, ...]
    near: float
    far: float
    bounds_from: str  # where they come from
    scale: float  # units of the source in one unit of the model
    frame: str  # 'first_camera': the photograph's camera is the origin, with OpenCV axes; 'source': as cameras say
    target_camera: str  # where it comes from
    notes: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """All of it, a line each."""
        lines = [line for i, photograph in enumerate(self.photographs) for line in _of_photograph(i, photograph)]
        unit = "" if self.scale == 1 else f" (a unit is {self.scale:g} of the source)"
        lines.append(f"what is seen lies from {self.near:g} to {self.far:g}{unit}: {self.bounds_from}")
        lines.append(f"target camera: {self.target_camera}")
        return lines + list(self.notes)


def _of_photograph(number: int, photograph: PhotographFacts) -> Sequence[str]:
    name = photograph.name or f"photograph {number}"
    taken = "the middle square" if photograph.crop == "centre" else "all, with bars that make it square"
    size = f"{photograph.width} x {photograph.height} pixels, of which {taken} is taken"
    angle = f"field of view: {photograph.field_of_view:.1f} degrees across, {photograph.field_of_view_from}"
    return [f"{name}: {size}", f"{name}: {angle}", *(f"{name}: {note}" for note in photograph.notes)]
