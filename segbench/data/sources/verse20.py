"""Card of VerSe20, its training, validation and test folders pooled; vertebrae are merged into one class."""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import input_error
from segbench.data.layouts import find

CARD = {
    "title": "Vertebrae (VerSe20)",
    "layout": "custom",
    "folder": "VerSe20",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "vertebrae"},
    "merge": {"1-28": 1},
    "structures": [{"name": "vertebrae", "labels": [1], "tolerance_mm": 2.0, "lesion": False}],
    "preprocessing": "verse",
    "expected_cases": {"total": 214},
    "patient_namespace": "verse20",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY-SA 4.0",
    "permits": {"commercial": True, "show_images": True},
    "citation": "Sekuboyina et al., VerSe: A vertebrae labelling and segmentation benchmark for multi-detector "
    "CT images, Medical Image Analysis 73, 2021",
    "url": "https://github.com/anjany/verse",
    "obtain": "python -m segbench fetch verse20, or unpack the three subject-based VerSe20 archives of "
    "github.com/anjany/verse side by side into the folder VerSe20",
    "downloads": [
        {
            "url": "https://s3.bonescreen.de/public/VerSe-complete/dataset-verse20training.zip",
            "unpacks_to": "VerSe20/dataset-01training",
        },
        {
            "url": "https://s3.bonescreen.de/public/VerSe-complete/dataset-verse20validation.zip",
            "unpacks_to": "VerSe20/dataset-02validation",
        },
        {
            "url": "https://s3.bonescreen.de/public/VerSe-complete/dataset-verse20test.zip",
            "unpacks_to": "VerSe20/dataset-03test",
        },
    ],
}


def discover(root: Path, card: dict) -> list[CaseFiles]:
    """Return rawdata/sub-*/*_ct.nii.gz of every challenge folder with its vertebra mask below derivatives."""
    images = find(root, "**/rawdata/sub-*/*_ct.nii.gz")
    if not images:
        raise input_error(root, found="no rawdata/sub-*/*_ct.nii.gz", expected=card["title"], fix=card["obtain"])
    cases = []
    for path in images:
        case_id = path.name.removesuffix("_ct.nii.gz")
        label = path.parents[2] / "derivatives" / path.parent.name / f"{case_id}_seg-vert_msk.nii.gz"
        cases.append(CaseFiles(case_id, path.parent.name, (path,), label))
    return cases
