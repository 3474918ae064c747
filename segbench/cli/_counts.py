"""Options that are a number of something."""

from __future__ import annotations

from segbench.core.errors import Problem


def count_problems(**counts: tuple[int, int]) -> list[Problem]:
    """Return what is too small.

    Args:
        counts: option -> (its value, the least that it can be), such as workers=(args.workers, 1).
    """
    return [
        Problem(f"--{option.replace('_', '-')}", str(value), f"at least {least}", f"give {max(least, 1)}")
        for option, (value, least) in counts.items()
        if value < least
    ]
