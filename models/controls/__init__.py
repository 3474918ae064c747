"""Control predictors: they follow the same path as networks and bound the scale. They need numpy only.

A control is a file of this folder with a CARD, `fit(cases, task) -> fitted` from the preprocessed training cases, and
`predict(fitted, case, task) -> labels_ZYX`.
"""

from __future__ import annotations

import importlib
from types import ModuleType


def load_control(name: str) -> ModuleType:
    """Import the control's module; the config has already checked that the name is a control's."""
    return importlib.import_module(f"models.controls.{name}")
