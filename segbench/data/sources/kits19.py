"""Card of KiTS19, read as its repository lays it out."""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import input_error
from segbench.data.layouts import find

CARD = {
    "title": "Kidney (KiTS19)",
    "layout": "custom",
    "folder": "kits19",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "kidney", "2": "kidney tumour"},
    "structures": [
        {"name": "kidney", "labels": [1], "tolerance_mm": 3.0, "lesion": False},
        {"name": "kidney tumour", "labels": [2], "tolerance_mm": 3.0, "lesion": True},
    ],
    "tumours": {"2": 1},
    "preprocessing": "ct",
    "expected_cases": {"total": 210},
    "patient_namespace": "kits19",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY-NC-SA 4.0",
    "permits": {"commercial": False, "show_images": True},
    "citation": "Heller et al., The state of the art in kidney and kidney tumor segmentation in "
    "contrast-enhanced CT imaging: Results of the KiTS19 challenge, Medical Image Analysis 67, 2021",
    "url": "https://kits19.grand-challenge.org",
    "obtain": "git clone https://github.com/neheller/kits19 into the data root, then run `python3 -m "
    "starter_code.get_imaging` in it",
}


def discover(root: Path, card: dict) -> list[CaseFiles]:
    """Return data/case_NNNNN/imaging.nii.gz of every case that has a segmentation."""
    labels = find(root, "data/case_*/segmentation.nii.gz")
    if not labels:
        raise input_error(root / "data", found="no case_NNNNN folder", expected=card["title"], fix=card["obtain"])
    return [CaseFiles(path.parent.name, path.parent.name, (path.with_name("imaging.nii.gz"),), path) for path in labels]
