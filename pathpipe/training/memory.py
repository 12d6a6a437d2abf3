"""Memory: freed pages are kept for the next step instead of going back to the kernel and being zeroed again."""

from __future__ import annotations

import ctypes
import sys

# glibc's mallopt parameters (malloc.h)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 1 << 30  # larger tensors, of bags that fill the memory, are still given back


def keep_freed_memory() -> bool:
    """Let this process reuse what it frees; whether the C library can be told so (glibc only).

    A packed batch of long bags takes tensors of tens of megabytes. Each would be mapped anew in every step, and
    touching the fresh pages costs a fifth of the step.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST * 2 - 1))
