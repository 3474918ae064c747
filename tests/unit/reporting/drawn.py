"""Figures of the report as they are about to be written, for tests that look at what is in them."""

from __future__ import annotations

from types import ModuleType

import pytest
from matplotlib.figure import Figure

from segbench.reporting.style import Plot, finish


def kept_figures(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> list[tuple[Figure, str]]:
    """Return a list that gets every figure of these modules with its width, after its layout is settled."""
    kept: list[tuple[Figure, str]] = []

    def keep(figure: Figure, name: str, caption: str, *, width: str = "double") -> Plot:
        figure.draw_without_rendering()
        kept.append((figure, width))
        return finish(figure, name, caption, width=width)

    for module in modules:
        monkeypatch.setattr(module, "finish", keep)
    return kept
