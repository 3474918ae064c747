"""What a network says of its weights in the course of a training: `SegmentationModel.diagnostics`, kept by step."""

from __future__ import annotations

from typing import Any

from models.interface import SegmentationModel

POINTS = 8
"""Points between the start and the end of a training at which diagnostics are recorded."""
DIGITS = 4


def diagnostic_steps(total: int) -> list[int]:
    """Return the steps after which diagnostics are recorded: 0, evenly spaced ones, and the last one."""
    return sorted({total * number // (POINTS + 1) for number in range(POINTS + 2)})


def record_diagnostics(records: dict[str, dict[str, Any]], model: SegmentationModel, step: int) -> None:
    """Add the network's diagnostics to what was recorded before; a step is recorded once.

    Args:
        records: name -> {"tasks": names, "steps": steps, quantity: one entry per step}; changed in place.
        model: the network.
        step: steps taken so far.
    """
    for name, quantities in model.diagnostics().items():
        record = records.setdefault(name, {"tasks": list(model.tasks.names), "steps": []})
        if step in record["steps"]:
            continue
        record["steps"].append(step)
        for quantity, values in quantities.items():
            record.setdefault(quantity, []).append(_rounded(values))


def _rounded(values: Any) -> Any:
    """Return numbers in nested lists with `DIGITS` decimals, and no negative zero."""
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return round(values, DIGITS) + 0.0
