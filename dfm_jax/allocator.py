"""How a process on the CPU holds its memory."""

import ctypes
import sys

from dfm_jax import platforms

# Parameters of mallopt, as in <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


# Parameters up to which a model is small: its training state and intermediate results fit memory several times over.
SMALL_MODEL = 50_000_000


def reuse_memory(num_parameters: int) -> None:
    """Lets glibc keep what is freed, and hand it out again; to be called before jax starts its threads.

    Every step takes and returns some hundred MB. By default these come fresh from the kernel each time, page by page:
    on two cores that was a quarter of a toy training step (0.36 s against 0.26 s, medians of three interleaved runs).
    Large models are left alone: blocks of GB leave gaps that no other fits in, and the published model's training step
    would take 24 GB instead of 20. Where jax may have an accelerator, or malloc is not glibc's, nothing changes.
    """
    if num_parameters > SMALL_MODEL or sys.platform != "linux" or platforms.may_have_accelerator():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_ARENA_MAX, 1)  # other arenas cannot hold large blocks
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 * 2**20)
