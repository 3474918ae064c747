"""Generic folder layouts; each function returns the labelled cases below a folder."""

from __future__ import annotations

import json
from pathlib import Path

from segbench.core.cards import patient_of
from segbench.core.case import CaseFiles
from segbench.core.errors import fault


def msd(folder: Path, card: dict) -> list[CaseFiles]:
    """Medical Segmentation Decathlon: dataset.json lists image and label of every training case."""
    path = folder / "dataset.json"
    if not path.exists():
        raise fault(path, found="no file", expected=f"the data set {card['title']}", mend=card["obtain"])
    entries = json.loads(path.read_text(encoding="utf-8"))["training"]
    cases = []
    for entry in entries:
        case_id = Path(entry["image"]).name.removesuffix(".gz").removesuffix(".nii")
        image, label = folder / entry["image"], folder / entry["label"]
        cases.append(CaseFiles(case_id, patient_of(card, case_id), (image,), label))
    return cases
