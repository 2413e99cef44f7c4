"""Where the time of a run goes, and how much of what the devices can do it uses."""

import collections
import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator

import jax

# Dense products in bfloat16, operations per second of one device, as its vendor states them.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
GIB = 2**30


class Stopwatch:
    """Seconds by what they were spent on; all that is not measured went into steps."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._began = clock, clock()
        self._total: collections.Counter[str] = collections.Counter()
        self._interval: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            seconds = self._clock() - start
            self._total[name] += seconds
            self._interval[name] += seconds

    def restart(self, name: str) -> None:
        """All time until now went into `name`."""
        self._total, self._interval = collections.Counter({name: self.elapsed()}), collections.Counter()

    def elapsed(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._began

    def pop_interval(self) -> dict[str, float]:
        """Seconds of each kind since the last call."""
        interval, self._interval = dict(self._interval), collections.Counter()
        return interval

    def goodput(self) -> float:
        """Share of the time that went into steps."""
        return 1 - self._total.total() / max(self.elapsed(), 1e-9)

    def shares(self) -> str:
        """Where the rest went, such as 'starting 5 %, data 1 %'; kinds of less than half a per cent are left out."""
        shares = {name: 100 * seconds / max(self.elapsed(), 1e-9) for name, seconds in self._total.items()}
        return ", ".join(f"{name} {share:.0f} %" for name, share in shares.items() if share >= 0.5)


def peak_flops(devices: int) -> float | None:
    """Operations per second that so many devices of the local kind can do; None: it is not known."""
    peak = PEAK_FLOPS.get(jax.local_devices()[0].device_kind)
    return None if peak is None else peak * devices


def memory_in_use() -> dict[str, float]:
    """Most memory that this process ever held, GiB: of its first device, where that tells, and of the host."""
    unit = 1 if sys.platform == "darwin" else 1024
    memory = {"host_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}
    device = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return memory if device is None else {"device_memory_gib": device / GIB} | memory
