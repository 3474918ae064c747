"""Options that are a number of something."""

from __future__ import annotations

from segbench.core.errors import Problem


def count_problems(**counts: tuple[float | None, int]) -> list[Problem]:
    """Return what is too small.

    Args:
        counts: option -> (its value, None where it is not given, the least that it can be), such as
            workers=(args.workers, 1).
    """
    return [
        Problem(f"--{option.replace('_', '-')}", f"{value:g}", f"at least {least}", f"give {max(least, 1)}")
        for option, (value, least) in counts.items()
        if value is not None and not value >= least  # not a number is no count either
    ]
