"""Memory that a process frees is kept for its next allocations: no page faults at every training step.

By default glibc hands large blocks back to the system as soon as they are freed, and the system zeroes every page of
the next block again. A training step allocates the same blocks thousands of times.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Numbers of options of mallopt(3) in glibc's malloc.h."""
NEVER = -1
LARGEST_BLOCK = 1 << 30
SMALLER_LARGEST_BLOCK = 1 << 25
"""What glibc before 2.35 accepts at most."""
GROW_BY = 64 << 20


def keep_freed_memory() -> bool:
    """Let the allocator of this process keep what is freed; call it before large blocks are allocated.

    Returns:
        Whether it acted: only with glibc, the C library of most Linux systems. Elsewhere nothing is changed.
    """
    if platform.system() != "Linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return False
    kept = mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK) or mallopt(M_MMAP_THRESHOLD, SMALLER_LARGEST_BLOCK)
    return bool(kept and mallopt(M_TRIM_THRESHOLD, NEVER) and mallopt(M_TOP_PAD, GROW_BY))
