"""Which checkpoints of a run stay when later ones are saved."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import orbax.checkpoint as ocp


@dataclasses.dataclass(frozen=True)
class FirstOfEvery(ocp.checkpoint_managers.PreservationPolicy):
    """The first checkpoint at or after each multiple of `interval` steps: times need not meet a multiple."""

    interval: int

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        del context
        part = [checkpoint.step // self.interval for checkpoint in checkpoints]
        return [number > 0 and number not in part[:i] for i, number in enumerate(part)]


@dataclasses.dataclass(frozen=True)
class Retention:
    """Which checkpoints stay: those that any of these names."""

    latest: int  # the last few
    every: int = 0  # the first at or after each multiple of so many steps; 0: none
    best: str = ""  # the one with the lowest value of this metric; '': none

    def policy(self) -> Any:
        """For orbax."""
        policies = [ocp.checkpoint_managers.LatestN(self.latest)]
        if self.every:
            policies.append(FirstOfEvery(self.every))
        if self.best:
            policies.append(
                ocp.checkpoint_managers.BestN(get_metric_fn=self.merit, n=1, keep_checkpoints_without_metrics=False)
            )
        return ocp.checkpoint_managers.AnyPreservationPolicy(policies)

    def merit(self, metrics: Mapping[str, float]) -> float:
        return -metrics[self.best]
