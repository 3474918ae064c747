"""Card of VerSe20, its training, validation and test folders pooled; vertebrae are merged into one class."""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import fault

CARD = {
    "title": "Vertebrae (VerSe20)",
    "layout": "custom",
    "folder": "VerSe20",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "vertebrae"},
    "merge": {
        1: 1,
        2: 1,
        3: 1,
        4: 1,
        5: 1,
        6: 1,
        7: 1,
        8: 1,
        9: 1,
        10: 1,
        11: 1,
        12: 1,
        13: 1,
        14: 1,
        15: 1,
        16: 1,
        17: 1,
        18: 1,
        19: 1,
        20: 1,
        21: 1,
        22: 1,
        23: 1,
        24: 1,
        25: 1,
        26: 1,
        27: 1,
        28: 1,
    },
    "structures": [{"name": "vertebrae", "labels": [1], "tolerance_mm": 2.0, "lesion": False}],
    "recipe": "verse",
    "expected_cases": {"total": 214},
    "patient_namespace": "verse20",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY-SA 4.0",
    "permits": {"redistribute": True, "commercial": True, "show_images": True},
    "citation": "Sekuboyina et al., VerSe: A vertebrae labelling and segmentation benchmark for multi-detector "
    "CT images, Medical Image Analysis 73, 2021",
    "url": "https://github.com/anjany/verse",
    "obtain": "download the VerSe20 training, validation and test archives (subject-based) and unpack them side "
    "by side into the folder VerSe20",
}


def discover(root: Path, card: dict) -> list[CaseFiles]:
    """Return rawdata/sub-*/*_ct.nii.gz of every challenge folder with its vertebra mask below derivatives."""
    images = sorted(root.rglob("rawdata/sub-*/*_ct.nii.gz"), key=lambda path: path.name)
    if not images:
        raise fault(root, found="no rawdata/sub-*/*_ct.nii.gz", expected=card["title"], mend=card["obtain"])
    cases = []
    for path in images:
        case_id = path.name.removesuffix("_ct.nii.gz")
        label = path.parents[2] / "derivatives" / path.parent.name / f"{case_id}_seg-vert_msk.nii.gz"
        cases.append(CaseFiles(case_id, path.parent.name, (path,), label))
    return cases
