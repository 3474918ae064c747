"""Loss and learning rate of trainings for TensorBoard, where the environment asks for them: a display, no setting."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from segbench.core.errors import input_error

VARIABLE = "SEGBENCH_TENSORBOARD"


class Events:
    """Writes the rows of a training's log as events; called with step, task, mean loss and learning rate."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: Any = None

    def __call__(self, step: int, task: str, loss: float, rate: float) -> None:
        """Write a row; what an interrupted training wrote for later steps is taken back."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=step)
        self._writer.add_scalar("loss", loss, step)
        self._writer.add_scalar("learning_rate", rate, step)
        self._writer.flush()


def asked_for() -> bool:
    """Tell whether the environment asks for events.

    Raises:
        InputError: the variable has another value than 0 and 1, or the package `tensorboard` is not installed.
    """
    value = os.environ.get(VARIABLE, "")
    if value in ("", "0"):
        return False
    if value != "1":
        raise input_error(VARIABLE, found=repr(value), expected="1, 0 or nothing", fix="change it")
    if importlib.util.find_spec("tensorboard") is None:
        fix = f"pip install tensorboard, or unset {VARIABLE}"
        raise input_error(VARIABLE, found="no package tensorboard", expected="the package", fix=fix)
    return True
