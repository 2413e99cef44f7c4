"""Nothing bad enters silently: the list of what failed a check, with reasons."""

import collections
from collections.abc import Iterable

WARNED = "warned_scenes"  # counted as: accepted, but something about them may be wrong


def most_frequent_reason(reasons: Iterable[str]) -> str:
    """' (mostly: <the first of the most frequent kind>)', or nothing if there are no reasons."""
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(reason_kind(reason), []).append(reason)
    return f" (mostly: {max(kinds.values(), key=len)[0]})" if kinds else ""


def reason_kind(reason: str) -> str:
    """A reason without the path that it names."""
    return reason.partition(": looked for ")[0]


class Quarantine:
    """Collects what was rejected, in `entries` as they stand in the quarantine file: split, scene, frame (None: all of
    it), reason."""

    def __init__(self) -> None:
        self.entries: list[dict[str, str | None]] = []
        self.counts: collections.Counter[str] = collections.Counter()  # of scenes, also of accepted ones

    def add_scene(self, split: str, scene: str, reason: str, counted_as: str = "") -> None:
        if counted_as:
            self.counts[counted_as] += 1
        self.entries.append({"split": split, "scene": scene, "frame": None, "reason": reason})

    def add_frame(self, split: str, scene: str, frame: str, reason: str) -> None:
        self.entries.append({"split": split, "scene": scene, "frame": frame, "reason": reason})
