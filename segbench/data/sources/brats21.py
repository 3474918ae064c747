"""Card of BraTS 2021; the released label 4 (enhancing tumour) becomes class 3."""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import input_error
from segbench.data.layouts import find

CARD = {
    "title": "Brain tumour (BraTS21)",
    "layout": "custom",
    "folder": "BraTS2021",
    "channels": [
        {"name": "T1", "modality": "MR"},
        {"name": "T1ce", "modality": "MR"},
        {"name": "T2", "modality": "MR"},
        {"name": "FLAIR", "modality": "MR"},
    ],
    "classes": {"1": "non-enhancing tumour", "2": "edema", "3": "enhancing tumour"},
    "merge": {4: 3},
    "structures": [
        {"name": "non-enhancing tumour", "labels": [1], "tolerance_mm": 1.0, "lesion": True},
        {"name": "edema", "labels": [2], "tolerance_mm": 1.0, "lesion": True},
        {"name": "enhancing tumour", "labels": [3], "tolerance_mm": 1.0, "lesion": True},
    ],
    "preprocessing": "brats",
    "expected_cases": {"total": 1251},
    "patient_namespace": "brats21",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "by agreement with the challenge (Synapse); non-commercial research",
    "permits": {"commercial": False, "show_images": False},
    "citation": "Baid et al., The RSNA-ASNR-MICCAI BraTS 2021 Benchmark, arXiv:2107.02314",
    "url": "https://www.synapse.org/brats2021",
    "obtain": "register at Synapse, download the BraTS 2021 training data and unpack it into the folder BraTS2021",
}


def discover(root: Path, card: dict) -> list[CaseFiles]:
    """Return BraTS2021_NNNNN with its four sequences in the card's order."""
    labels = find(root, "**/BraTS2021_*_seg.nii.gz")
    if not labels:
        raise input_error(root, found="no BraTS2021_NNNNN_seg.nii.gz", expected=card["title"], fix=card["obtain"])
    cases = []
    for path in labels:
        case_id = path.name.removesuffix("_seg.nii.gz")
        images = tuple(path.with_name(f"{case_id}_{channel['name'].lower()}.nii.gz") for channel in card["channels"])
        cases.append(CaseFiles(case_id, case_id, images, path))
    return cases
